import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { BuiltIns } from "../src/builtins.mjs";
import { harnessOf } from "../src/harness.mjs";
import { type Options, bench, eventually, marksFile } from "./bench.mjs";

/** What the harness answers to a request that the host makes for a tool call. */
async function asked(t: TestContext, method: string, params: unknown, options: Options & { answer?: unknown } = {}) {
  const made = await bench(t, options);
  if ("answer" in options) made.harness.answer = () => options.answer;
  const { text } = await made.harness.call("ask", { method, params });
  return { ...made, answer: JSON.parse(text) as { value?: unknown; code?: string; message?: string } };
}

test("a choice is told by its index, also among options that look alike", async (t) => {
  const options = ["a", "b", "b", "b (2)"];
  const { answer, harness } = await asked(t, "ui.select", { title: "Which?", options }, { answer: "b (3)" });
  assert.deepEqual(harness.dialogs[0]?.options, ["a", "b", "b (3)", "b (2)"]);
  assert.equal(answer.value, 2);
});

test("a dialog that is dismissed is null", async (t) => {
  for (const method of ["ui.select", "ui.input", "ui.edit"]) {
    const { answer } = await asked(t, method, { title: "?", options: ["a"] }, { answer: undefined });
    assert.deepEqual(answer, { value: null }, method);
  }
});

test("texts and confirmations come as they are", async (t) => {
  assert.equal((await asked(t, "ui.input", { title: "?", placeholder: "" }, { answer: "text" })).answer.value, "text");
  assert.equal((await asked(t, "ui.edit", { title: "?", prefill: "" }, { answer: "long" })).answer.value, "long");
  assert.equal((await asked(t, "ui.confirm", { title: "?", message: "" }, { answer: true })).answer.value, true);
});

test("without a screen nobody has said no", async (t) => {
  const before: Options["before"] = (harness) => (harness.hasUI = false);
  for (const method of ["ui.select", "ui.confirm", "ui.input", "ui.edit"]) {
    const { answer, harness } = await asked(t, method, { title: "?", options: [] }, { before });
    assert.deepEqual(answer, { value: null }, method);
    assert.deepEqual(harness.dialogs, []);
  }
});

test("aborting a call dismisses its dialog, the editor too", async (t) => {
  for (const method of ["ui.select", "ui.edit"]) {
    const { harness } = await bench(t);
    const abort = new AbortController();
    harness.answer = (dialog) => {
      queueMicrotask(() => abort.abort());
      return new Promise((dismissed) => dialog.signal?.addEventListener("abort", () => dismissed(undefined)));
    };
    const { text } = await harness.call("ask", { method, params: { title: "?", options: ["a"] } }, { signal: abort.signal });
    assert.equal(text, '{"value":null}', method);
  }
});

test("a message of an extension, and how it is shown", async (t) => {
  const details = { lines: [[{ text: "done", role: "success" }]] };
  const { harness, answer } = await asked(t, "session.sendMessage", {
    kind: "bg",
    content: [{ type: "text", text: "it is done" }],
    display: true,
    details,
    delivery: "follow-up",
    triggerTurn: true,
  });
  assert.deepEqual(answer, { value: null });
  assert.deepEqual(harness.sent, [
    {
      message: { customType: "bg", content: "it is done", display: true, details },
      options: { deliverAs: "followUp", triggerTurn: true },
    },
  ]);
  const render = harness.renderers.get("bg");
  assert.deepEqual(render?.({ content: "", details })?.render(80), ["<success>done</>"]);
  assert.equal(render?.({ content: "", details: {} }), undefined);
});

test("messages that an earlier run has left are shown alike", async (t) => {
  const entry = { type: "custom_message", customType: "old", details: { lines: [[{ text: "x" }]] } };
  const { harness } = await bench(t, { before: (harness) => harness.entries.push(entry) });
  assert.deepEqual(harness.renderers.get("old")?.({ content: "", details: entry.details })?.render(9), ["x"]);
});

test("words in the user's place", async (t) => {
  for (const [delivery, deliverAs] of [["steer", "steer"], ["follow-up", "followUp"], ["next-turn", "followUp"]]) {
    const content = [{ type: "text", text: "go on" }];
    const { harness } = await asked(t, "session.sendUserMessage", { content, delivery });
    assert.deepEqual(harness.said, [{ content: "go on", options: { deliverAs } }]);
  }
});

test("entries are each extension's own", async (t) => {
  const { harness } = await bench(t);
  const ask = async (method: string, params: unknown) =>
    JSON.parse((await harness.call("ask", { method, params })).text) as { value: unknown };
  await ask("session.appendEntry", { extension: "plan-mode", kind: "state", data: { n: 1 } });
  await ask("session.appendEntry", { extension: "plan-mode", kind: "todo", data: [2] });
  await ask("session.appendEntry", { extension: "plan", kind: "state", data: 3 });
  assert.deepEqual(await ask("session.entries", { extension: "plan-mode" }), { value: [{ n: 1 }, [2]] });
  assert.deepEqual(await ask("session.entries", { extension: "plan-mode", kind: "todo" }), { value: [[2]] });
  assert.deepEqual(await ask("session.entries", { extension: "plan", kind: null }), { value: [3] });
});

test("entries that the TypeScript extension of the same name has left are its own", async (t) => {
  const { harness } = await bench(t);
  harness.entries.push({ type: "custom", customType: "plan-mode", data: { enabled: true } });
  harness.entries.push({ type: "custom", customType: "state", data: "of another extension" });
  const entries = async (params: unknown) =>
    JSON.parse((await harness.call("ask", { method: "session.entries", params })).text) as { value: unknown };
  assert.deepEqual(await entries({ extension: "plan-mode", kind: "plan-mode" }), { value: [{ enabled: true }] });
  assert.deepEqual(await entries({ extension: "plan-mode" }), { value: [{ enabled: true }] });
  assert.deepEqual(await entries({ extension: "plan-mode", kind: "state" }), { value: [] });
  assert.deepEqual(await entries({ extension: "plan" }), { value: [] });
});

test("active tools, and what is unknown or malformed", async (t) => {
  const { harness, answer } = await asked(t, "session.setActiveTools", { names: ["read", "echo"] });
  assert.deepEqual(answer, { value: ["read", "echo"] });
  assert.deepEqual(harness.active, ["read", "echo"]);
  assert.equal((await asked(t, "session.fly", {})).answer.code, "not-found");
  assert.equal((await asked(t, "session.setActiveTools", {})).answer.code, "invalid");
});

test("a request before the session starts is refused, not lost", async (t) => {
  const marks = marksFile(t);
  const first = [{ t: "request", id: 7, method: "session.entries", params: { extension: "x" } }];
  await bench(t, { started: false, script: { first, marks: marks.path } });
  await eventually("it is refused", () => marks.read().includes("error unavailable"));
});

test("a built-in is the harness's own code: result, news, failure, abort", async (t) => {
  const modules = {
    createBashTool: (cwd: string) => ({
      execute: (
        _id: string,
        params: { command: string },
        signal: AbortSignal,
        onUpdate: (partial: unknown) => void,
      ): Promise<unknown> => {
        onUpdate({ content: [{ type: "text", text: "half" }], details: undefined });
        if (params.command === "false") return Promise.reject(new Error("exit code 1"));
        if (params.command !== "sleep") return Promise.resolve({ content: [{ type: "text", text: cwd }] });
        return new Promise((_, stopped) => signal.addEventListener("abort", () => stopped(new Error("aborted"))));
      },
    }),
  };
  const { harness, frames } = await bench(t, { modules });
  const run = (command: string, signal?: AbortSignal) =>
    harness.call("ask", { method: "builtIn", params: { tool: "bash", arguments: { command } } }, signal ? { signal } : {});
  assert.deepEqual(JSON.parse((await run("pwd")).text), {
    value: { content: [{ type: "text", text: "/home/user/project" }], details: null, isError: false },
  });
  assert.deepEqual(JSON.parse((await run("false")).text), {
    value: { content: [{ type: "text", text: "exit code 1" }], isError: true },
  });
  const abort = new AbortController();
  setTimeout(() => abort.abort(), 50);
  assert.deepEqual(JSON.parse((await run("sleep", abort.signal)).text), { code: "cancelled", message: "aborted" });
  assert.equal((await frames("update")).length, 3);
});

test("a harness without the tool, or without files, says so", async () => {
  const context = { cwd: "/" } as never;
  const run = (builtIns: BuiltIns, tool: string) => builtIns.run(tool, {}, new AbortController().signal, () => {}, context);
  const compiled = new BuiltIns(harnessOf("other", "1"));
  await assert.rejects(run(compiled, "bash"), { code: "unavailable", message: /compiled into one binary/ });
  assert.ok((await compiled.names()).includes("bash"));
  const poor = new BuiltIns(harnessOf("pi", "1", "file:///x"), () => Promise.resolve({ createBashTool: () => ({}) }));
  assert.deepEqual(await poor.names(), ["bash"]);
  await assert.rejects(run(poor, "read"), { code: "not-found" });
  await assert.rejects(run(poor, "constructor"), { code: "not-found" });
});

test("an edit is handed over as the harness's own tool takes it", async () => {
  const made = (parts: object) =>
    new BuiltIns(harnessOf("punkin-pi", "1", "file:///x"), () =>
      Promise.resolve({
        createEditTool: () => ({
          ...parts,
          execute: (_id: string, params: unknown) =>
            Promise.resolve({ content: [{ type: "text", text: JSON.stringify(params) }] }),
        }),
      }),
    );
  const edit = async (parts: object, params: unknown) => {
    const { content } = await made(parts).run("edit", params, new AbortController().signal, () => {}, { cwd: "/" } as never);
    return content[0]?.type === "text" ? content[0].text : "";
  };
  const old = { parameters: { properties: { path: {}, oldText: {}, newText: {} } } };
  const one = { path: "f", edits: [{ oldText: "a", newText: "b" }] };
  assert.equal(await edit(old, one), '{"path":"f","oldText":"a","newText":"b"}');
  assert.equal(await edit(old, { path: "f", oldText: "a", newText: "b" }), '{"path":"f","oldText":"a","newText":"b"}');
  assert.match(await edit(old, { path: "f", edits: [...one.edits, ...one.edits] }), /one replacement at a time/);
  assert.equal(await edit({ parameters: { properties: { path: {}, edits: {} } } }, one), JSON.stringify(one));
  assert.equal(await edit({ prepareArguments: () => "prepared" }, one), '"prepared"');
});
