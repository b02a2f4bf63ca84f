/**
 * One `pi-vers core` process: requests out, answers and streams in, see docs/core.md.
 *
 * It starts with the first request and ends with this program, since its input ends then. It keeps the program alive only while a
 * request is open.
 */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import type { Readable, Writable } from "node:stream";
import { Failure, messageOf } from "../failure.mjs";
import { LineReader, encode, isObject } from "../wire.mjs";

/** Why the platform, a VM or this machine did not do what was asked. */
export class VersError extends Error {
  readonly kind: string;
  /** Of the platform's HTTP answer, if there was one. */
  readonly status: number | undefined;

  constructor(kind: string, message: string, status?: number) {
    super(message);
    this.name = "VersError";
    this.kind = kind;
    this.status = status;
  }
}

export interface RequestOptions {
  signal?: AbortSignal | undefined;
  onData?: ((stream: "stdout" | "stderr", data: Buffer) => void) | undefined;
}

interface Open extends RequestOptions {
  settle: (outcome: { value: unknown } | { error: VersError }) => void;
}

export class Channel {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #reader = new LineReader();
  readonly #open = new Map<number, Open>();
  #nextId = 1;
  #dead: VersError | undefined;

  constructor(program: string, environment: NodeJS.ProcessEnv) {
    this.#child = spawn(program, ["core"], { env: environment, stdio: ["pipe", "pipe", "inherit"] });
    this.#reference(false);
    this.#child.once("error", (why) => this.#end(`${program} can't be started: ${why.message}`));
    this.#child.once("close", (code, signal) => this.#end(`pi-vers core ended (${signal ?? `exit code ${code}`})`));
    this.#child.stdin.on("error", (why) => this.#end(`pi-vers core can't be reached: ${why.message}`));
    this.#child.stdout.on("data", (chunk: Buffer) => this.#read(chunk));
  }

  get alive(): boolean {
    return this.#dead === undefined;
  }

  /** Asks. An aborted request is cancelled, and ends when what it ran has stopped. */
  request(method: string, params: Record<string, unknown>, options: RequestOptions = {}): Promise<unknown> {
    if (this.#dead !== undefined) return Promise.reject(this.#dead);
    const id = this.#nextId++;
    let line: Buffer;
    try {
      line = encode({ id, method, params });
    } catch (why) {
      return Promise.reject(new VersError("limit", messageOf(why)));
    }
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        if (this.#dead === undefined) this.#child.stdin.write(encode({ cancel: id }));
      };
      this.#open.set(id, {
        ...options,
        settle: (outcome) => {
          this.#open.delete(id);
          options.signal?.removeEventListener("abort", onAbort);
          if (this.#open.size === 0) this.#reference(false);
          if ("error" in outcome) reject(outcome.error);
          else resolve(outcome.value);
        },
      });
      this.#reference(true);
      this.#child.stdin.write(line);
      if (options.signal?.aborted === true) onAbort();
      else options.signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** No further request comes: it ends when those that are open have ended. */
  async finish(): Promise<void> {
    await Promise.allSettled([...this.#open.values()].map((open) => new Promise<void>((done) => after(open, done))));
    this.#child.stdin.end();
  }

  #read(chunk: Buffer): void {
    try {
      for (const line of this.#reader.push(chunk)) {
        if (line !== "") this.#handle(JSON.parse(line));
      }
    } catch (why) {
      this.#child.kill("SIGTERM");
      this.#end(why instanceof Failure ? why.message : `pi-vers core wrote what is no answer: ${messageOf(why)}`);
    }
  }

  #handle(answer: unknown): void {
    if (!isObject(answer) || typeof answer["id"] !== "number") throw new Error("an answer without an id");
    const open = this.#open.get(answer["id"]);
    if (open === undefined) return;
    if (typeof answer["stream"] === "string") {
      const stream = answer["stream"] === "stderr" ? "stderr" : "stdout";
      open.onData?.(stream, Buffer.from(String(answer["data"] ?? ""), "base64"));
    } else if (isObject(answer["error"])) {
      const { kind, message, status } = answer["error"];
      const error = new VersError(String(kind), String(message), typeof status === "number" ? status : undefined);
      open.settle({ error });
    } else {
      open.settle({ value: answer["result"] });
    }
  }

  #end(message: string): void {
    if (this.#dead !== undefined) return;
    this.#dead = new VersError("unavailable", message);
    for (const open of [...this.#open.values()]) open.settle({ error: this.#dead });
    this.#reference(false);
  }

  #reference(on: boolean): void {
    for (const thing of [this.#child, this.#child.stdin, this.#child.stdout] as { ref?(): void; unref?(): void }[]) {
      if (on) thing.ref?.();
      else thing.unref?.();
    }
  }
}

function after(open: Open, done: () => void): void {
  const { settle } = open;
  open.settle = (outcome) => {
    settle(outcome);
    done();
  };
}
