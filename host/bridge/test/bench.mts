/** A stand-in with the shim loaded into it, before a fake host. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { type Environment, load } from "../src/bridge.mjs";
import { BuiltIns } from "../src/builtins.mjs";
import { LIMITS, type Limits } from "../src/connection.mjs";
import { type Harness, harnessOf } from "../src/harness.mjs";
import { type Kind, StandIn } from "./stand-in.mjs";

export const FAKE_HOST = fileURLToPath(new URL("./fake-host.mjs", import.meta.url));

export interface Options {
  kind?: Kind;
  script?: Record<string, unknown>;
  limits?: Partial<Limits>;
  terminal?: boolean;
  program?: string;
  modules?: Record<string, unknown>;
  /** Set before the session starts. */
  before?: (harness: StandIn) => void;
  started?: boolean;
}

export interface Bench {
  harness: StandIn;
  environment: Environment;
  logged: string[];
  /** What the host has been sent. */
  frames: (t?: string) => Promise<Record<string, unknown>[]>;
}

export function harnessFor(kind: Kind): Harness {
  return kind === "punkin-pi"
    ? harnessOf("punkin-pi", "0.8.0", "file:///there/index.js")
    : harnessOf("pi", kind === "pi-0.73" ? "0.73.1" : "0.87.1", "file:///there/index.js");
}

/** Loads and starts it; it is ended with the test. */
export async function bench(t: TestContext, options: Options = {}): Promise<Bench> {
  const kind = options.kind ?? "pi-0.73";
  // As in a process that is new: nothing has been loaded and ended in it.
  delete (globalThis as Record<symbol, unknown>)[Symbol.for("pi-vers.ended")];
  const harness = new StandIn(kind);
  const logged: string[] = [];
  const about = harnessFor(kind);
  const maker = (name: string) => () => ({
    execute: (_id: string, params: unknown) =>
      Promise.resolve({ content: [{ type: "text", text: `${name} of the harness ${JSON.stringify(params)}` }] }),
  });
  const modules = options.modules ?? { createBashTool: maker("bash"), createReadTool: maker("read"), createGrepTool: maker("grep") };
  const environment: Environment = {
    harness: about,
    terminal: options.terminal ?? false,
    log: (level, message) => logged.push(`${level}: ${message}`),
    builtIns: new BuiltIns(about, () => Promise.resolve(modules)),
    limits: { ...LIMITS, ...options.limits },
    launch: () => ({
      program: options.program ?? process.execPath,
      args: [FAKE_HOST, JSON.stringify(options.script ?? {})],
      cwd: process.cwd(),
      environment: process.env,
      stderr: "inherit",
    }),
  };
  await harness.load("pi-vers", (api) => load(api, environment));
  options.before?.(harness);
  if (options.started !== false) await harness.start("startup");
  t.after(() => harness.emit("session_shutdown", { reason: "quit" }));
  return {
    harness,
    environment,
    logged,
    frames: async (wanted) => {
      const { text } = await harness.call("frames", {});
      const frames = JSON.parse(text) as Record<string, unknown>[];
      return wanted === undefined ? frames : frames.filter((frame) => frame["t"] === wanted);
    },
  };
}

/** A file for marks of the fake host; gone with the test. */
export function marksFile(t: TestContext): { path: string; read: () => string[] } {
  const directory = mkdtempSync(join(tmpdir(), "pi-vers-test-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, "marks");
  return {
    path,
    read: () => {
      try {
        return readFileSync(path, "utf8").split("\n").filter((line) => line !== "");
      } catch {
        return [];
      }
    },
  };
}

/** Waits for what nobody tells of; fails at a deadline. */
export async function eventually(what: string, holds: () => boolean): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`still not: ${what}`);
    await new Promise((next) => setTimeout(next, 5));
  }
}
