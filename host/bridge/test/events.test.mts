import assert from "node:assert/strict";
import { test } from "node:test";
import { type Options, bench } from "./bench.mjs";

const wanting = (events: string[], reactions: Record<string, unknown> = {}): Options => ({
  script: { ready: { events }, reactions },
});

test("a tool is blocked with the reason", async (t) => {
  const { harness } = await bench(t, wanting(["tool-call"], { "tool-call": { block: "plan mode" } }));
  assert.deepEqual(await harness.call("echo", {}), { text: "plan mode", isError: true, blocked: true });
});

test("arguments are rewritten in place", async (t) => {
  const { harness } = await bench(t, wanting(["tool-call"], { "tool-call": { arguments: { b: 2 } } }));
  const input = { a: 1 };
  assert.equal((await harness.call("echo", input)).text, 'echo {"b":2}');
  assert.deepEqual(input, { b: 2 });
});

test("a result is rewritten", async (t) => {
  const result = { content: [{ type: "text", text: "other" }], isError: true };
  const { harness, frames } = await bench(t, wanting(["tool-result"], { "tool-result": { result } }));
  const fields = { toolCallId: "1", toolName: "x", input: {}, content: [], details: undefined, isError: false };
  assert.deepEqual(await harness.emit("tool_result", fields), { content: result.content, details: {}, isError: true });
  const [event] = await frames("event");
  assert.deepEqual(event?.["data"], {
    callId: "1",
    tool: "x",
    arguments: {},
    result: { content: [], details: null, isError: false },
  });
});

test("the user's words go on, are changed, or are dealt with", async (t) => {
  const said = { text: "hi", images: ["i"], source: "rpc" };
  for (const [reaction, expected] of [
    [{}, { action: "continue" }],
    [{ text: "ho" }, { action: "transform", text: "ho", images: ["i"] }],
    [{ handled: true }, { action: "handled" }],
  ]) {
    const { harness } = await bench(t, wanting(["input"], { input: reaction }));
    assert.deepEqual(await harness.emit("input", said), expected);
  }
});

test("a command of the user is answered", async (t) => {
  const { harness } = await bench(t, wanting(["user-bash"], { "user-bash": { bash: { output: "o", exitCode: 2 } } }));
  assert.deepEqual(await harness.emit("user_bash", { command: "ls" }), {
    result: { output: "o", exitCode: 2, cancelled: false, truncated: false },
  });
});

test("several messages before the agent starts: one for each handler, the rest joined", async (t) => {
  const message = (text: string) => ({ kind: text, content: [{ type: "text", text }], display: false });
  const extensions = ["a", "b"].map((name) => ({ name, version: "0", summary: "" }));
  const script = {
    ready: { events: ["before-agent-start"], extensions },
    reactions: { "before-agent-start": { messages: ["1", "2", "3"].map(message) } },
  };
  const { harness } = await bench(t, { script });
  const handlers = harness.handlers.get("before_agent_start") ?? [];
  const answers = [];
  for (const handler of handlers) answers.push(await handler({ prompt: "go" }, harness.context()));
  const parts = ["2", "3"].map((text) => ({ type: "text", text }));
  assert.deepEqual(answers, [
    { message: { customType: "1", content: "1", display: false } },
    { message: { customType: "2", content: parts, display: false } },
  ]);
});

test("the conversation is rewritten for the model", async (t) => {
  const { harness } = await bench(t, wanting(["context"], { context: { messages: [{ role: "user" }] } }));
  assert.deepEqual(await harness.emit("context", { messages: [] }), { messages: [{ role: "user" }] });
});

test("events that the protocol has no words for go as they are, without what can't be written", async (t) => {
  const reactions = { "session-before-compact": { other: [{ cancel: true }, { summary: "s" }] } };
  const { harness, frames } = await bench(t, wanting(["session-before-compact", "session-compact"], reactions));
  const fields = { preparation: { read: new Set(["a"]), done: () => {} }, signal: new AbortController().signal };
  assert.deepEqual(await harness.emit("session_before_compact", fields), { cancel: true, summary: "s" });
  await harness.observe("session_compact", { n: 1n });
  const told = (await frames("event")).map((frame) => frame["data"]);
  assert.deepEqual(told, [{ preparation: { read: ["a"] } }, { n: "1" }]);
});

test("of the model an extension learns no address and no key", async (t) => {
  const { harness, frames } = await bench(t, wanting(["model-select"]));
  await harness.observe("model_select", { model: { id: "m", provider: "p", baseUrl: "http://x", headers: { k: "v" } } });
  assert.deepEqual((await frames("event"))[0]?.["data"], { id: "m", provider: "p" });
});

test("an event that nobody could be asked about goes on; a tool call does not", async (t) => {
  const { harness, logged } = await bench(t, wanting(["tool-call", "input"]));
  for (let n = 0; n < 4; n++) await harness.call("die", {});
  assert.equal(await harness.emit("input", { text: "x" }), undefined);
  assert.match(logged.at(-1) ?? "", /input: pi-vers died/);
  assert.match((await harness.call("read", {})).text, /can't say whether read may run/);
});

test("only events that are wanted are subscribed to", async (t) => {
  const { harness } = await bench(t, wanting([]));
  for (const event of ["input", "context", "message_update", "turn_end"]) assert.equal(harness.handlers.has(event), false);
});
