/** What punkin-pi does in its own way, each with the stand-in that does so. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { bench, marksFile } from "./bench.mjs";

const kind = "punkin-pi";

test("a cached answer is not given for a tool that is replaced", async (t) => {
  const { harness } = await bench(t, { kind });
  assert.equal((await harness.call("read", { path: "a" })).text, "read of the host #1");
  assert.equal((await harness.call("read", { path: "a" })).text, "read of the host #2");
  assert.equal((await harness.call("bash", { command: "cat a" })).text, "bash of the host #1");
  assert.equal((await harness.call("bash", { command: "cat a" })).text, "bash of the host #2");
});

test("the stand-in does cache", async (t) => {
  const { harness } = await bench(t, { kind });
  harness.handlers.delete("tool_call");
  await harness.call("read", { path: "a" });
  assert.equal((await harness.call("read", { path: "a" })).text, "cached: read of the host #1");
});

test("the host and the conversation see nothing of the key that keeps the cache away", async (t) => {
  const { harness, frames } = await bench(t, { kind });
  const input = { path: "a" };
  await harness.call("read", input);
  assert.deepEqual(input, { path: "a" });
  const seen = (await frames()).filter((frame) => frame["tool"] === "read" || frame["t"] === "event");
  assert.ok(!JSON.stringify(seen).includes("__piVers"));
});

test("no key is added where the harness does not cache", async (t) => {
  const { harness } = await bench(t, { kind: "pi-0.73" });
  const input = {};
  await harness.emit("tool_call", { toolName: "read", toolCallId: "1", input });
  assert.deepEqual(input, {});
});

test("tools that come late are ignored, so all are there when the factory returns", async (t) => {
  const { harness } = await bench(t, { kind, started: false });
  assert.deepEqual(harness.loaded.get("pi-vers")?.tools.includes("echo"), true);
});

test("observers are not waited for: what is stored keeps its order while the host is busy", async (t) => {
  const events = ["agent-start", "turn-start", "turn-end", "agent-end"];
  const { harness, frames } = await bench(t, { kind, script: { ready: { events } } });
  const names = ["agent_start", "turn_start", "turn_end", "agent_end"];
  await Promise.all(names.map((name) => harness.observe(name, { turnIndex: 1, messages: [], message: {} })));
  assert.deepEqual(harness.stored, names);
  assert.deepEqual((await frames("event")).map((frame) => frame["name"]), events);
});

test("the value of a number flag arrives: it is registered as a text", async (t) => {
  const { harness, frames } = await bench(t, { kind, before: (harness) => (harness.commandLine = { timeout: "30" }) });
  assert.equal(harness.flags.get("timeout")?.type, "string");
  assert.equal(((await frames("context"))[0]?.["flags"] as Record<string, unknown>)["timeout"], 30);
});

test("completions are there at once: the last ones that fit", async (t) => {
  const { harness } = await bench(t, { kind });
  const complete = harness.commands.get("vers")?.getArgumentCompletions;
  assert.equal(complete?.("a"), null);
  await harness.call("echo", {});
  assert.deepEqual(complete?.("al"), [{ value: "alpha", label: "the first" }]);
  assert.equal(complete?.("b"), null);
});

test("the session changes under the same extension", async (t) => {
  const marks = marksFile(t);
  const { harness } = await bench(t, { kind, script: { marks: marks.path } });
  harness.sessionId = "session-2";
  await harness.emit("session_switch", { reason: "resume" });
  harness.sessionId = "session-3";
  await harness.emit("session_switch", { reason: "new" });
  harness.sessionId = "session-4";
  await harness.emit("session_fork", {});
  assert.deepEqual(marks.read(), ["start startup", "start resume", "start startup", "start fork"]);
});

test("its tools are left as they are: choosing them would take its own away", async (t) => {
  const { harness } = await bench(t, { kind });
  assert.ok(harness.active.includes("grep"));
});

test("the harness ends with its event loop, without a word, and the host with it", async (t) => {
  const marks = marksFile(t);
  const program = fileURLToPath(new URL("./drained.mjs", import.meta.url));
  const child = spawn(process.execPath, [program, marks.path], { stdio: ["ignore", "pipe", "inherit"] });
  const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
  const [code, said] = await Promise.all([
    new Promise((exited) => child.once("exit", exited)),
    // Ends when the host has ended, too: it has inherited nothing else that keeps this open.
    child.stdout.toArray().then((chunks) => Buffer.concat(chunks as Buffer[]).toString()),
  ]);
  clearTimeout(timer);
  assert.equal(code, 0);
  assert.equal(said, "echo {}\n");
  while (marks.read().length < 2) await new Promise((next) => setTimeout(next, 5));
  assert.deepEqual(marks.read(), ["start startup", "end"]);
});
