/**
 * One `pi-vers bridge` process and what is under way with it.
 *
 * A connection ends once: by `close`, or because the process died or broke the protocol. Then everything that was asked ends
 * with an error, and everything that the host had asked is aborted; nothing waits for a dead process.
 *
 * The process must not keep the harness alive (punkin-pi ends when its event loop is empty), and must not be left behind
 * while something is awaited: it is referenced exactly while anything is under way.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { Readable, Writable } from "node:stream";
import { eitherOf } from "./abort.mjs";
import { Failure, messageOf } from "./failure.mjs";
import type { Context } from "./pi.mjs";
import {
  type HostFrame,
  PROTOCOL,
  type Question,
  type Ready,
  type Request,
  type Telling,
  type Update,
} from "./protocol.mjs";
import { LineReader, decode, encode } from "./wire.mjs";

/** How to start the process. */
export interface Launch {
  program: string;
  args: string[];
  cwd: string;
  environment: NodeJS.ProcessEnv;
  /** Where its standard error goes: a file descriptor, or what `spawn` takes. */
  stderr: number | "inherit" | "ignore";
}

/** For whom the host asks something: the call or command that the request is made for. */
export interface Scope {
  context?: Context | undefined;
  signal?: AbortSignal | undefined;
}

/** What a question brings along besides its frame. */
export interface Asking extends Scope {
  onUpdate?: ((update: Update) => void) | undefined;
  /** After this many milliseconds it is cancelled. */
  limit?: number;
}

/** Who deals with what the host asks and tells. */
export interface Handlers {
  request(request: Request, scope: Scope, connection: Connection): Promise<unknown>;
  notice(method: string, params: Record<string, unknown>): void;
  /** It ended without having been closed. */
  died(why: Failure): void;
}

export interface Limits {
  /** For `ready`. Longer than a cold start of the host takes on a busy machine. */
  handshake: number;
  /** For the answer to something that was cancelled. */
  grace: number;
  /** For the process to end when it is closed. */
  shutdown: number;
  /** Bytes that may wait for the process to read them. */
  backlog: number;
}

export const LIMITS: Limits = { handshake: 20_000, grace: 15_000, shutdown: 5_000, backlog: 64 * 1024 * 1024 };

interface Pending extends Asking {
  settle: (outcome: { value: unknown } | { failure: Failure }) => void;
}

export class Connection {
  readonly #child: ChildProcess;
  readonly #stdin: Writable;
  readonly #stdout: Readable;
  readonly #handlers: Handlers;
  readonly #limits: Limits;
  readonly #reader = new LineReader();
  readonly #pending = new Map<number, Pending>();
  readonly #requests = new Map<number, AbortController>();
  readonly #gone: Promise<void>;
  #nextId = 1;
  #held = 0;
  #closing = false;
  #dead: Failure | undefined;
  #usable = false;
  #onReady: ((outcome: Ready | Failure) => void) | undefined;
  /** The snapshot that the host has, as it was sent. */
  snapshot: string | undefined;

  private constructor(launch: Launch, handlers: Handlers, limits: Limits) {
    this.#handlers = handlers;
    this.#limits = limits;
    this.#child = spawn(launch.program, launch.args, {
      cwd: launch.cwd,
      env: launch.environment,
      stdio: ["pipe", "pipe", launch.stderr],
    });
    const { stdin, stdout } = this.#child;
    if (stdin === null || stdout === null) throw new Failure("other", "a child process without pipes");
    this.#stdin = stdin;
    this.#stdout = stdout;
    this.#reference(false);
    this.#gone = new Promise((gone) => {
      this.#child.once("error", (why) => {
        this.#fail(new Failure("unavailable", `${launch.program} can't be started: ${why.message}`));
        gone();
      });
      // Its last words may still be in the pipe when it has exited, but a grandchild may keep the pipe open for ever.
      const end = (code: number | null, signal: string | null) => {
        this.#fail(new Failure("unavailable", `pi-vers ended (${signal ?? `exit code ${code}`})`));
        gone();
      };
      this.#child.once("close", end);
      this.#child.once("exit", (code, signal) => setTimeout(end, 1_000, code, signal).unref());
    });
    this.#stdin.on("error", (why) => this.#fail(new Failure("unavailable", `pi-vers can't be reached: ${why.message}`)));
    this.#stdout.on("data", (chunk: Buffer) => this.#read(chunk));
  }

  /** Starts the process and shakes hands. */
  static async open(
    launch: Launch,
    hello: Omit<Telling & { t: "hello" }, "t" | "v">,
    handlers: Handlers,
    limits: Limits = LIMITS,
  ): Promise<{ connection: Connection; ready: Ready }> {
    const connection = new Connection(launch, handlers, limits);
    connection.#hold();
    const ready = await new Promise<Ready | Failure>((done) => {
      const timer = setTimeout(
        () => done(new Failure("timed-out", `${launch.program} has not said ready in ${limits.handshake / 1000} s`)),
        limits.handshake,
      );
      connection.#onReady = (outcome) => {
        clearTimeout(timer);
        done(outcome);
      };
      // It may have failed before anybody could be told.
      if (connection.#dead !== undefined) connection.#onReady(connection.#dead);
      else connection.tell({ t: "hello", v: PROTOCOL, ...hello });
    });
    connection.#onReady = undefined;
    connection.#release();
    if (ready instanceof Failure) {
      connection.#fail(ready);
      throw ready;
    }
    connection.#usable = true;
    return { connection, ready };
  }

  /** Whether it can still be used. */
  get alive(): boolean {
    return this.#dead === undefined && !this.#closing;
  }

  /** Asks, and waits for the answer. A signal that is aborted cancels the question; the host still gets to answer. */
  ask(question: Question, asking: Asking = {}): Promise<unknown> {
    if (this.#dead !== undefined) return Promise.reject(this.#dead);
    if (asking.signal?.aborted === true) return Promise.reject(new Failure("cancelled", "cancelled"));
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      let timer: NodeJS.Timeout | undefined;
      const cancel = (why: Failure) => {
        clearTimeout(timer);
        timer = setTimeout(() => pending.settle({ failure: why }), this.#limits.grace);
        this.#send({ t: "cancel", id });
      };
      const onAbort = () => cancel(new Failure("cancelled", "cancelled; pi-vers has not said that it stopped"));
      const pending: Pending = {
        ...asking,
        settle: (outcome) => {
          if (!this.#pending.delete(id)) return;
          clearTimeout(timer);
          asking.signal?.removeEventListener("abort", onAbort);
          this.#release();
          if ("failure" in outcome) reject(outcome.failure);
          else resolve(outcome.value);
        },
      };
      this.#pending.set(id, pending);
      this.#hold();
      try {
        this.tell({ id, ...question });
      } catch (why) {
        pending.settle({ failure: why instanceof Failure ? why : new Failure("invalid", messageOf(why)) });
        return;
      }
      asking.signal?.addEventListener("abort", onAbort, { once: true });
      if (asking.limit !== undefined && this.#pending.has(id)) {
        const limit = asking.limit;
        timer = setTimeout(
          () => cancel(new Failure("timed-out", `pi-vers has not answered in ${limit / 1000} s`)),
          limit,
        );
      }
    });
  }

  /** Sends a frame. Throws when it can't be one; a process that is dead hears nothing. */
  tell(frame: Telling | (Question & { id: number })): void {
    const line = encode(frame);
    if (this.#dead !== undefined || this.#stdin.writableEnded) return;
    this.#stdin.write(line);
    if (this.#stdin.writableLength > this.#limits.backlog) {
      this.#fail(new Failure("limit", "pi-vers no longer reads what it is sent"));
    }
  }

  /** Ends the session, and returns when the process is gone: by itself, or killed. */
  async close(reason: string): Promise<void> {
    if (this.#dead !== undefined) return;
    this.#closing = true;
    this.#hold();
    this.#send({ t: "shutdown", reason });
    this.#stdin.end();
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), this.#limits.shutdown);
    await this.#gone;
    clearTimeout(timer);
  }

  #send(frame: Telling): void {
    try {
      this.tell(frame);
    } catch {
      // A frame of ours that is no frame: too long. Those that may be are sent with `tell`.
    }
  }

  #read(chunk: Buffer): void {
    try {
      for (const line of this.#reader.push(chunk)) {
        if (this.#dead !== undefined) return;
        const frame = decode(line);
        if (frame !== undefined) this.#handle(frame);
      }
    } catch (why) {
      this.#fail(why instanceof Failure ? why : new Failure("other", messageOf(why)));
    }
  }

  #handle(frame: HostFrame): void {
    switch (frame.t) {
      case "ready":
        this.#onReady?.(
          frame.v === PROTOCOL
            ? frame
            : new Failure("invalid", `pi-vers speaks version ${frame.v} of the bridge, this package ${PROTOCOL}: update`),
        );
        return;
      case "fatal":
        if (this.#onReady === undefined) this.#fail(new Failure("unavailable", frame.message));
        else this.#onReady(new Failure("unavailable", frame.message));
        return;
      case "update":
        this.#pending.get(frame.id)?.onUpdate?.(frame);
        return;
      case "result":
        this.#pending.get(frame.id)?.settle({ value: frame.value });
        return;
      case "error":
        this.#pending.get(frame.id)?.settle({ failure: new Failure(frame.code, frame.message) });
        return;
      case "cancel":
        this.#requests.get(frame.id)?.abort();
        return;
      case "notice":
        try {
          this.#handlers.notice(frame.method, frame.params);
        } catch {
          // What nobody waits for can't be refused either.
        }
        return;
      case "request":
        void this.#serve(frame);
        return;
    }
  }

  async #serve(request: Request): Promise<void> {
    const asked = request.call == null ? undefined : this.#pending.get(request.call);
    const given = new AbortController();
    this.#requests.set(request.id, given);
    this.#hold();
    // Who gives up the call has given up its dialogs and built-ins, too.
    const both = eitherOf(given.signal, asked?.signal);
    try {
      const scope = { context: asked?.context, signal: both.signal };
      const value = await this.#handlers.request(request, scope, this);
      this.tell({ t: "result", id: request.id, value: value === undefined ? null : value });
    } catch (why) {
      const code = why instanceof Failure ? why.code : both.signal.aborted ? "cancelled" : "other";
      this.#send({ t: "error", id: request.id, code, message: messageOf(why) });
    } finally {
      both.release();
      this.#requests.delete(request.id);
      this.#release();
    }
  }

  #fail(why: Failure): void {
    if (this.#dead !== undefined) return;
    this.#dead = why;
    // It may still live: it gets the time to stop what it has started, here and on VMs.
    this.#stdin.destroy();
    this.#stdout.destroy();
    this.#child.kill("SIGTERM");
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), this.#limits.shutdown).unref();
    this.#child.once("exit", () => clearTimeout(timer));
    this.#onReady?.(why);
    for (const pending of [...this.#pending.values()]) pending.settle({ failure: why });
    for (const request of this.#requests.values()) request.abort();
    this.#held = 0;
    this.#reference(false);
    // Who opens it or closes it hears of it there.
    if (this.#usable && !this.#closing) this.#handlers.died(why);
  }

  #hold(): void {
    if (this.#held++ === 0) this.#reference(true);
  }

  #release(): void {
    if (this.#held > 0 && --this.#held === 0) this.#reference(false);
  }

  #reference(on: boolean): void {
    for (const thing of [this.#child, this.#stdin, this.#stdout] as { ref?(): void; unref?(): void }[]) {
      if (on) thing.ref?.();
      else thing.unref?.();
    }
  }
}
