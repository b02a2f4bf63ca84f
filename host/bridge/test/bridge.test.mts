import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "../src/bridge.mjs";
import { bench, eventually, marksFile } from "./bench.mjs";

test("everything is there when the factory returns", async (t) => {
  const { harness } = await bench(t, { started: false });
  assert.deepEqual([...harness.commands.keys()], ["vers"]);
  assert.deepEqual([...harness.shortcuts.keys()], ["ctrl+alt+p"]);
  assert.deepEqual([...harness.flags.keys()], ["plan", "timeout", "url"]);
  assert.ok(harness.tools.has("echo") && harness.tools.has("bash"));
});

test("the host hears hello, then how the session is, then that it starts", async (t) => {
  const { frames } = await bench(t, { before: (harness) => (harness.commandLine = { timeout: "30", plan: true }) });
  const [hello, context, start] = await frames();
  assert.deepEqual(hello, {
    t: "hello",
    v: 1,
    cwd: process.cwd(),
    harness: { kind: "pi", version: "0.73.1" },
    builtIns: ["bash", "read", "grep"],
  });
  assert.equal(context?.["t"], "context");
  assert.equal(context?.["sessionId"], "session-1");
  assert.equal(context?.["interactive"], true);
  assert.deepEqual(context?.["flags"], { plan: true, timeout: 30, url: "" });
  assert.equal(start?.["t"], "start");
  assert.equal(start?.["reason"], "startup");
});

test("a session that starts twice, as in RPC mode, starts once", async (t) => {
  const { harness, frames } = await bench(t);
  await harness.start("startup");
  assert.equal((await frames("start")).length, 1);
});

test("a snapshot is sent when it has changed, and only then", async (t) => {
  const { harness, frames } = await bench(t);
  await harness.call("echo", {});
  harness.active = ["read"];
  await harness.call("echo", {});
  await harness.call("echo", {});
  const told = (await frames("context")).map((frame) => (frame["activeTools"] as string[]).length);
  assert.equal(told.length, 2);
  assert.equal(told[1], 1);
});

test("a tool's result, its details and its lines", async (t) => {
  const { harness } = await bench(t);
  const { text, details, isError } = await harness.call("echo", { a: 1 });
  assert.deepEqual([text, isError], ['echo {"a":1}', false]);
  assert.deepEqual(details, { lines: [[{ text: "echoed", role: "accent" }]] });
  const tool = harness.tools.get("echo");
  const theme = harness.context().ui.theme;
  assert.ok(tool?.renderResult !== undefined && theme !== undefined);
  const shown = (details: unknown) =>
    tool.renderResult?.({ content: [{ type: "text", text: "\u001b[31mplain\u001b[0m" }], details }, { expanded: false, isPartial: false }, theme);
  assert.deepEqual(shown(details)?.render(80), ["<accent>echoed</>"]);
  assert.deepEqual(shown({})?.render(80), ["plain"]);
  assert.equal(harness.tools.get("bash")?.renderResult, undefined);
  assert.equal(harness.tools.get("bash")?.promptSnippet, "The tool bash");
  assert.equal(tool.promptSnippet, undefined);
});

for (const kind of ["pi-0.73", "pi-0.87", "punkin-pi"] as const) {
  test(`${kind}: a failed tool is a failed call`, async (t) => {
    const { harness } = await bench(t, { kind });
    assert.deepEqual(await harness.call("fail", {}), { text: "it did not work", isError: true });
  });
}

test("news of a running tool, and its progress where it shows nothing", async (t) => {
  const { harness } = await bench(t);
  const seen: unknown[] = [];
  await harness.call("stream", {}, { onUpdate: ({ content }) => seen.push(content[0]) });
  assert.deepEqual(seen, [
    { type: "text", text: "one" },
    { type: "text", text: "one two" },
    { type: "text", text: "copying (25 %)" },
  ]);
});

test("an aborted call is cancelled there, and ends with what the host says", async (t) => {
  const { harness, frames } = await bench(t);
  const abort = new AbortController();
  const call = harness.call("slow", {}, { signal: abort.signal, onUpdate: () => abort.abort() });
  assert.deepEqual(await call, { text: "stopped there, too", isError: true });
  assert.equal((await frames("cancel")).length, 1);
});

test("a host that does not confirm a cancellation does not hold the harness up", async (t) => {
  const { harness } = await bench(t, { limits: { grace: 20 } });
  const abort = new AbortController();
  const call = harness.call("deaf", {}, { signal: abort.signal });
  await harness.call("echo", {});
  abort.abort();
  assert.match((await call).text, /has not said that it stopped/);
});

test("calls run beside each other", async (t) => {
  const { harness } = await bench(t);
  const abort = new AbortController();
  const slow = harness.call("slow", {}, { signal: abort.signal, id: "a" });
  assert.equal((await harness.call("echo", {}, { id: "b" })).text, "echo {}");
  abort.abort();
  await slow;
});

test("a host that dies ends what is under way, is named, and starts again with the next use", async (t) => {
  const marks = marksFile(t);
  const { harness } = await bench(t, { script: { marks: marks.path } });
  const slow = harness.call("slow", {}, { id: "a" });
  assert.match((await harness.call("die", {})).text, /pi-vers ended \(exit code 3\)/);
  assert.match((await slow).text, /pi-vers ended/);
  assert.match(harness.notices[0] ?? "", /error: pi-vers ended \(exit code 3\). It is started again/);
  assert.equal((await harness.call("echo", {})).isError, false);
  assert.deepEqual(marks.read(), ["start startup", "start resume"]);
});

test("a host that keeps dying is started three times a minute and no more", async (t) => {
  const { harness } = await bench(t);
  for (let n = 0; n < 4; n++) assert.match((await harness.call("die", {})).text, /exit code 3/);
  const refused = await harness.call("echo", {});
  // The tool that nobody could be asked about does not run.
  assert.match(refused.text, /started 3 times within a minute/);
  assert.equal(refused.blocked, true);
});

test("calls at the same time start one host", async (t) => {
  const marks = marksFile(t);
  const { harness } = await bench(t, { script: { marks: marks.path } });
  await harness.call("die", {});
  await Promise.all([1, 2, 3].map((n) => harness.call("echo", {}, { id: `${n}` })));
  assert.equal(marks.read().length, 2);
});

test("what is no JSON ends the host", async (t) => {
  const { harness } = await bench(t);
  assert.match((await harness.call("babble", {})).text, /wrote what is no JSON: this is no JSON/);
  assert.equal((await harness.call("echo", {})).isError, false);
});

test("what the host showed is taken away when it dies", async (t) => {
  const first = [
    { t: "notice", method: "ui.status", params: { key: "vm", line: [{ text: "VM 1f2e", role: "accent" }] } },
    { t: "notice", method: "ui.widget", params: { key: "todo", lines: [[{ text: "a" }], [{ text: "b" }]] } },
  ];
  const { harness } = await bench(t, { script: { first } });
  await harness.call("echo", {});
  assert.equal(harness.statuses.get("vm"), "VM 1f2e");
  assert.deepEqual(harness.widgets.get("todo"), ["a", "b"]);
  await harness.call("die", {});
  assert.equal(harness.statuses.get("vm"), undefined);
  assert.equal(harness.widgets.get("todo"), undefined);
});

test("colours are for terminals: an RPC client gets plain text", async (t) => {
  const first = [{ t: "notice", method: "ui.status", params: { key: "vm", line: [{ text: "VM", role: "accent" }] } }];
  const { harness } = await bench(t, { script: { first }, terminal: true });
  await harness.call("echo", {});
  assert.equal(harness.statuses.get("vm"), "<accent>VM</>");
});

test("without a binary the harness works, and the user is told what to do", async (t) => {
  const { harness } = await bench(t, { program: "/nowhere/pi-vers" });
  assert.equal(harness.tools.size, 0);
  assert.match(harness.notices[0] ?? "", /pi-vers is not available: \/nowhere\/pi-vers can't be started: [^.]*$/);
  assert.equal(harness.notices.length, 1);
});

test("a host that can serve nothing is shown as it says", async (t) => {
  const { harness } = await bench(t, { script: { fatal: "the policy has no section" } });
  assert.deepEqual(harness.notices, ["error: pi-vers is not available: the policy has no section"]);
});

test("a host of another version, and one that says nothing", async (t) => {
  const other = await bench(t, { script: { ready: { v: 2 } } });
  assert.match(other.harness.notices[0] ?? "", /speaks version 2 of the bridge, this package 1/);
  const mute = await bench(t, { script: { mute: true }, limits: { handshake: 50 } });
  assert.match(mute.harness.notices[0] ?? "", /has not said ready in 0.05 s/);
});

test("the end of the session is the end of the host, which is killed when it stays", async (t) => {
  const marks = marksFile(t);
  const { harness } = await bench(t, { script: { marks: marks.path, stays: true }, limits: { shutdown: 300 } });
  await harness.emit("session_shutdown", { reason: "quit" });
  assert.deepEqual(marks.read(), ["start startup", "end"]);
  assert.match((await harness.call("echo", {})).text, /the session has ended/);
});

for (const kind of ["pi-0.73", "pi-0.87", "punkin-pi"] as const) {
  test(`${kind}: a reload is another host, and nothing of the first one is left on the bus`, async (t) => {
    const marks = marksFile(t);
    const { harness, environment, frames } = await bench(t, { kind, script: { marks: marks.path } });
    await harness.unload("reload");
    assert.deepEqual(marks.read(), ["start startup", "end"]);
    await harness.load("pi-vers", (api) => load(api, environment));
    await harness.start("reload");
    harness.bus.emit("t.in", { n: 1 });
    assert.equal((await frames("bus")).length, 1);
    assert.equal(marks.read()[2], "start reload");
  });
}

for (const kind of ["pi-0.73", "pi-0.87", "punkin-pi"] as const) {
  test(`${kind}: a package that is named twice is loaded once, and clashes with nobody`, async (t) => {
    const { harness, environment } = await bench(t, { kind });
    await harness.load("pi-vers again", (api) => load(api, environment));
    assert.deepEqual(harness.errors, []);
    assert.equal((await harness.call("echo", {})).isError, false);
  });
}

test("built-ins that pi does not offer by itself are replaced but not switched on", async (t) => {
  const { harness, frames } = await bench(t);
  assert.ok(harness.tools.has("grep"));
  assert.ok(!harness.active.includes("grep"));
  assert.ok(harness.active.includes("bash") && harness.active.includes("echo"));
  const [context] = await frames("context");
  assert.ok(!(context?.["activeTools"] as string[]).includes("grep"));
});

test("the bus carries both ways, and nobody hears himself", async (t) => {
  const { harness, frames } = await bench(t, {
    script: { first: [{ t: "notice", method: "bus", params: { topic: "t.in", data: { from: "host" } } }] },
  });
  const heard: unknown[] = [];
  harness.bus.on("t.in", (data) => heard.push(data));
  harness.bus.emit("t.in", { from: "pi" });
  harness.bus.emit("other", 1);
  const told = (await frames("bus")).map((frame) => frame["data"]);
  assert.deepEqual(told, [{ from: "pi" }]);
  assert.deepEqual(heard, [{ from: "pi" }]);
});

test("commands, what they end with, and completions", async (t) => {
  const { harness, frames } = await bench(t);
  const vers = harness.commands.get("vers");
  await vers?.handler("use 1f2e", harness.context());
  await vers?.handler("bad", harness.context());
  assert.deepEqual(harness.notices, ["error: /vers: no such VM"]);
  harness.hasUI = false;
  await assert.rejects(async () => vers?.handler("bad", harness.context()), /no such VM/);
  harness.hasUI = true;
  assert.deepEqual(await vers?.getArgumentCompletions?.("a"), [{ value: "alpha", label: "the first" }]);
  await harness.shortcuts.get("ctrl+alt+p")?.handler(harness.context());
  assert.deepEqual((await frames("command")).map((frame) => [frame["name"], frame["arguments"]]).at(-1), ["vers", ""]);
});

test("a flag that is no number is named, and its default is used", async (t) => {
  const { harness, frames } = await bench(t, { before: (harness) => (harness.commandLine = { timeout: "soon" }) });
  assert.deepEqual(harness.notices, ["warning: --timeout soon is no number: 120 is used"]);
  assert.equal(((await frames("context"))[0]?.["flags"] as Record<string, unknown>)["timeout"], 120);
});

test("the shutdown of a host that starts again waits for it", async (t) => {
  const marks = marksFile(t);
  const { harness } = await bench(t, { script: { marks: marks.path } });
  await harness.call("die", {});
  const again = harness.call("echo", {});
  await harness.emit("session_shutdown", { reason: "quit" });
  await again;
  await eventually("both hosts are gone", () => marks.read().includes("end"));
});
