/** A pi in RPC mode: JSON lines on its standard input and output. */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import type { Readable, Writable } from "node:stream";

export type Message = Record<string, unknown> & { type: string };

/** Nothing that a test waits for takes so long, on a busy machine either. */
const DEADLINE = 60_000;

export class Rpc {
  readonly log: Message[] = [];
  readonly stray: string[] = [];
  readonly exit: Promise<number | null>;
  /** Answers dialogs: what is returned is put into the response. Without it they are cancelled. */
  answer: ((dialog: Message) => Record<string, unknown>) | undefined;
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #listeners = new Set<() => void>();
  readonly #settled: string;
  #stderr = "";
  #ended = false;
  #nextId = 1;

  /** `settled`: the event after which nothing more happens by itself. */
  constructor(command: string[], cwd: string, env: NodeJS.ProcessEnv, settled: string) {
    const [program = "", ...args] = command;
    this.#settled = settled;
    this.#child = spawn(program, args, { cwd, env, stdio: ["pipe", "pipe", "pipe"] });
    this.exit = new Promise((exited) =>
      this.#child.once("close", (code) => {
        this.#ended = true;
        this.#heard();
        exited(code);
      }),
    );
    let rest = "";
    this.#child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.#read(line);
      this.#heard();
    });
    this.#child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
      this.#stderr += chunk;
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get stderr(): string {
    return this.#stderr;
  }

  /** The pids of the bridges that this pi has started and that run. */
  bridges(): number[] {
    const children = readFileSync(`/proc/${this.pid}/task/${this.pid}/children`, "utf8").trim();
    return children
      .split(" ")
      .filter((child) => child !== "")
      .map(Number)
      .filter((child) => commandOf(child).includes("bridge"));
  }

  /** Sends a command, and returns its response. Throws when it is refused. */
  async command(type: string, fields: Record<string, unknown> = {}): Promise<Record<string, unknown>> {
    const id = `test-${this.#nextId++}`;
    this.#write({ id, type, ...fields });
    const response = await this.find((message) => message.type === "response" && message["id"] === id);
    if (response["success"] !== true) throw new Error(`${type}: ${String(response["error"])}`);
    return (response["data"] ?? {}) as Record<string, unknown>;
  }

  /** Says something to the agent; returns all that happened until it is done. */
  async prompt(message: string): Promise<Message[]> {
    const from = this.log.length;
    await this.command("prompt", { message });
    await this.settled(from);
    return this.log.slice(from);
  }

  /** The run that was started after this position of the log is over. */
  async settled(from: number): Promise<void> {
    await this.find((message) => message.type === this.#settled, from);
  }

  /** The first message that fits, which may still come. */
  async find(fits: (message: Message) => boolean, from = 0): Promise<Message> {
    const deadline = performance.now() + DEADLINE;
    for (;;) {
      const found = this.log.slice(from).find(fits);
      if (found !== undefined) return found;
      const left = deadline - performance.now();
      if (this.#ended || left <= 0) {
        const last = this.log.slice(from).map((message) => JSON.stringify(message).slice(0, 300));
        throw new Error(
          `${this.#ended ? "pi has ended" : "it did not come"}: ${fits.toString()}\n${last.slice(-15).join("\n")}\n${this.#stderr}`,
        );
      }
      await this.#news(left);
    }
  }

  /** The end of its input; returns its exit code. */
  async close(): Promise<number | null> {
    this.#child.stdin.end();
    const timer = setTimeout(() => this.kill(), DEADLINE);
    const code = await this.exit;
    clearTimeout(timer);
    return code;
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  #news(limit: number): Promise<void> {
    return new Promise((news) => {
      const heard = () => {
        clearTimeout(timer);
        this.#listeners.delete(heard);
        news();
      };
      const timer = setTimeout(heard, limit);
      this.#listeners.add(heard);
    });
  }

  #heard(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  #read(line: string): void {
    let message: Message;
    try {
      message = JSON.parse(line) as Message;
    } catch {
      this.stray.push(line);
      return;
    }
    this.log.push(message);
    if (message.type !== "extension_ui_request") return;
    if (!["select", "confirm", "input", "editor"].includes(String(message["method"]))) return;
    const answer = this.answer?.(message) ?? { cancelled: true };
    this.#write({ type: "extension_ui_response", id: message["id"], ...answer });
  }

  #write(message: object): void {
    this.#child.stdin.write(`${JSON.stringify(message)}\n`);
  }
}

/** The command line of a process; empty when it is gone. */
export function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
  } catch {
    return "";
  }
}
