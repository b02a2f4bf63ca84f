/**
 * A `pi-vers bridge` of a few lines, for the tests: argv[2] is its script.
 *
 * Its tools do what their names say; `frames` returns all that it has been sent.
 */
import { appendFileSync, existsSync } from "node:fs";
import { dirname } from "node:path";
import { createInterface } from "node:readline";

interface Script {
  ready?: Record<string, unknown>;
  /** The answer to each event, by name; none: nothing is done. `"silent"`: none ever comes. */
  reactions?: Record<string, unknown>;
  fatal?: string;
  /** Says nothing at all. */
  mute?: boolean;
  /** Lines that are written to this file: `start`, and `end` when the input ends. */
  marks?: string;
  /** Does not end with its input. */
  stays?: boolean;
  /** What it says after `ready`. */
  first?: Record<string, unknown>[];
}

type Frame = Record<string, unknown> & { t: string; id?: number };

const script = JSON.parse(process.argv[2] ?? "{}") as Script;
const frames: Frame[] = [];
const waiting = new Map<number, (frame: Frame) => void>();
const running = new Map<number, (code: string) => void>();
let nextId = 1;

const write = (frame: Record<string, unknown>) => process.stdout.write(`${JSON.stringify(frame)}\n`);
const mark = (line: string) => {
  // A test that has ended has taken its directory away.
  if (script.marks !== undefined && existsSync(dirname(script.marks))) appendFileSync(script.marks, `${line}\n`);
};

const tool = (name: string, more: Record<string, unknown> = {}) => ({
  name,
  label: name,
  description: `The tool ${name}. It is one of the tests.`,
  parameters: { type: "object", properties: {} },
  extension: "fake",
  hints: { readOnly: false, destructive: false, idempotent: false, openWorld: false },
  replaces: false,
  ...more,
});

const ready = {
  t: "ready",
  v: 1,
  host: { version: "0" },
  extensions: [{ name: "fake", version: "0", summary: "" }],
  tools: ["echo", "fail", "stream", "slow", "deaf", "ask", "die", "babble", "frames"]
    .map((name) => tool(name))
    .concat(["bash", "read", "grep"].map((name) => tool(name, { replaces: true }))),
  commands: [{ name: "vers", description: "Choose a VM", arguments: "[vm]", extension: "fake" }],
  shortcuts: [{ key: "ctrl+alt+p", description: "Plan", command: "vers", extension: "fake" }],
  flags: [
    { name: "plan", description: "", type: "boolean", default: false, extension: "fake" },
    { name: "timeout", description: "", type: "number", default: 120, extension: "fake" },
    { name: "url", description: "", type: "string", default: "", extension: "fake" },
  ],
  events: ["tool-call"],
  topics: ["t.in"],
  ...script.ready,
};

function result(id: number, text: string, isError = false, details: unknown = null): void {
  write({ t: "result", id, value: { content: [{ type: "text", text }], details, isError } });
}

function request(method: string, params: unknown, call: number | null): Promise<Frame> {
  const id = nextId++;
  write({ t: "request", id, method, params, call });
  return new Promise((answer) => waiting.set(id, answer));
}

async function call(id: number, name: string, args: Record<string, unknown>): Promise<void> {
  switch (name) {
    case "echo":
      return result(id, `echo ${JSON.stringify(args)}`, false, { lines: [[{ text: "echoed", role: "accent" }]] });
    case "fail":
      return result(id, "it did not work", true);
    case "stream":
      for (const text of ["one", "one two"]) write({ t: "update", id, content: [{ type: "text", text }] });
      write({ t: "update", id, content: [], progress: { done: 1, total: 4, caption: "copying" } });
      return result(id, "done");
    case "slow":
      running.set(id, (code) => write({ t: "error", id, code, message: "stopped there, too" }));
      write({ t: "update", id, content: [{ type: "text", text: "running" }] });
      return;
    case "deaf":
      return;
    case "ask": {
      const answer = await request(String(args["method"]), args["params"], args["alone"] === true ? null : id);
      const { t, value, code, message } = answer;
      return result(id, JSON.stringify(t === "result" ? { value } : { code, message }));
    }
    case "die":
      return process.exit(3);
    case "babble":
      process.stdout.write("this is no JSON\n");
      return;
    case "frames":
      return result(id, JSON.stringify(frames));
    default:
      return result(id, `${name} of the host #${frames.filter((frame) => frame["tool"] === name).length}`);
  }
}

function handle(frame: Frame): void {
  frames.push(frame);
  const id = frame.id ?? 0;
  switch (frame.t) {
    case "hello":
      if (script.mute === true) return;
      if (script.fatal !== undefined) {
        write({ t: "fatal", message: script.fatal });
        return;
      }
      write(ready);
      for (const frame of script.first ?? []) write(frame);
      return;
    case "start":
      mark(`start ${String(frame["reason"])}`);
      write({ t: "result", id, value: null });
      return;
    case "call":
      void call(id, String(frame["tool"]), frame["arguments"] as Record<string, unknown>);
      return;
    case "command":
      if (frame["arguments"] === "bad") write({ t: "error", id, code: "invalid", message: "no such VM" });
      else write({ t: "result", id, value: null });
      return;
    case "complete":
      write({ t: "result", id, value: [{ value: `${String(frame["prefix"])}lpha`, label: "the first" }] });
      return;
    case "event": {
      if (frame.id === undefined) return;
      const reaction = script.reactions?.[String(frame["name"])];
      if (reaction !== "silent") write({ t: "result", id, value: reaction ?? {} });
      return;
    }
    case "cancel":
      running.get(id)?.("cancelled");
      return;
    case "result":
    case "error":
      if (frame.t === "error") mark(`error ${String(frame["code"])}`);
      waiting.get(id)?.(frame);
      return;
  }
}

createInterface({ input: process.stdin, crlfDelay: Number.POSITIVE_INFINITY })
  .on("line", (line) => handle(JSON.parse(line) as Frame))
  .on("close", () => {
    mark("end");
    if (script.stays === true) setInterval(() => {}, 1_000);
    else process.exit(0);
  });
