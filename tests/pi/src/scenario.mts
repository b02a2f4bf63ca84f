/**
 * What a user of pi does with pi-vers, with the real pi, the real host and the local platform; only the model is ours.
 *
 * The steps build on each other: the first that fails ends the scenario.
 */
import assert from "node:assert/strict";
import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { type TestContext, test } from "node:test";
import { type Harness, Lab } from "./lab.mjs";
import type { Step } from "./model.mjs";
import { type Message, type Rpc, commandOf } from "./rpc.mjs";

const TOOLS = [
  ...["bash", "read", "edit", "write"],
  ...["vers_vms", "vers_vm_create", "vers_vm_delete", "vers_vm_branch", "vers_vm_commit", "vers_vm_restore"],
  ...["vers_lt_create", "vers_lt_send", "vers_lt_read", "vers_lt_status", "vers_lt_pause", "vers_lt_resume"],
  ...["vers_lt_destroy", "vers_lt_discover"],
  ...["vers_swarm_spawn", "vers_swarm_task", "vers_swarm_message", "vers_swarm_wait", "vers_swarm_status"],
  ...["vers_swarm_read", "vers_swarm_teardown", "vers_swarm_discover"],
  ...["vers_vm_state", "vers_vm_use", "vers_vm_local", "vers_vm_copy", "bg_start", "bg_stop", "bg_list", "bg_logs"],
  "alarm_set",
];

/** A user's command that reloads: RPC mode has none of its own. */
const RELOADER = `export default (pi) => pi.registerCommand("again", { handler: (_args, ctx) => ctx.reload() });`;

interface Outcome {
  text: string;
  isError: boolean;
  details: Record<string, unknown>;
  updates: string[];
}

export function scenario(harness: Harness): void {
  test(harness.name, { timeout: 200_000 }, async (t) => {
    const lab = await Lab.open(harness);
    const running: Rpc[] = [];
    let failed = false;
    const step = async (name: string, run: () => Promise<void>) => {
      if (failed) return;
      failed = !(await ended(t, name, run));
    };
    try {
      await steps(lab, (pi) => running.push(pi), step);
    } finally {
      for (const pi of running) pi.kill();
      await lab.end();
    }
  });
}

/** Runs a step, and says whether it passed. */
async function ended(t: TestContext, name: string, run: () => Promise<void>): Promise<boolean> {
  let passed = false;
  await t.test(name, async () => {
    await run();
    passed = true;
  });
  return passed;
}

async function steps(
  lab: Lab,
  started: (pi: Rpc) => void,
  step: (name: string, run: () => Promise<void>) => Promise<void>,
): Promise<void> {
  const { model } = lab;
  let pi: Rpc;
  let vm = "";
  const start = (...args: string[]) => {
    pi = lab.start(...args);
    started(pi);
  };

  /** One turn in which the model calls this tool. */
  const call = async (name: string, args: Record<string, unknown>): Promise<Outcome> => {
    const events = await turn({ tools: [{ name, args }] }, { text: "It is done." });
    const outcome = outcomeOf(events, name);
    // What the user sees is what the model gets.
    const told = model.last.messages.findLast((message) => message.role === "tool");
    assert.ok(JSON.stringify(told).includes(JSON.stringify(outcome.text).slice(1, -1).slice(0, 40)), "the model is told");
    return outcome;
  };
  const turn = async (...answers: Step[]): Promise<Message[]> => {
    model.play(...answers);
    return pi.prompt("Go on.");
  };
  /** The position in the log after which the newest of this many questions of plan mode stands. */
  const questions = async (count: number): Promise<number> => {
    let from = pi.log.findLastIndex((message) => message.type === "response" && message["command"] === "get_commands");
    for (let n = 1; n < count; n++) {
      const asked = await pi.find((message) => message["method"] === "select", from);
      from = pi.log.indexOf(asked) + 1;
    }
    return from;
  };
  const works = async (name: string, args: Record<string, unknown>): Promise<Outcome> => {
    const outcome = await call(name, args);
    assert.equal(outcome.isError, false, `${name}: ${outcome.text}`);
    return outcome;
  };
  const text = async (name: string, args: Record<string, unknown>) => (await works(name, args)).text;

  await step("the package is installed as a user does it, and its tools are offered", async () => {
    lab.install();
    writeFileSync(lab.path("work/reloader.mjs"), RELOADER);
    start("-e", lab.path("work/reloader.mjs"));
    await turn({ text: "Hello." });
    const offered = (model.last.tools ?? []).map((tool) => tool.function.name);
    assert.deepEqual(offered.toSorted(), TOOLS.toSorted());
    const { commands } = await pi.command("get_commands");
    const names = (commands as { name: string }[]).map((command) => command.name);
    assert.ok(names.includes("vers"), names.join());
    assert.equal(pi.bridges().length, 1, "one process serves all extensions");
  });

  await step("without an active VM the built-ins are the harness's own", async () => {
    writeFileSync(lab.path("work/here.txt"), "a file of this machine\n");
    assert.match(await text("read", { path: "here.txt" }), /a file of this machine/);
    const { text: said, updates } = await works("bash", { command: "pwd; cat here.txt; sleep 0.2; echo end" });
    assert.match(said, new RegExp(`${lab.path("work")}\na file of this machine\nend`));
    assert.ok(updates.some((update) => update.includes("this machine") && !update.includes("end")), "it is streamed");
    await works("write", { path: "new.txt", content: "new\n" });
    await works("edit", { path: "new.txt", oldText: "new", newText: "old" });
    await works("edit", { path: "new.txt", edits: [{ oldText: "old", newText: "changed" }] });
    assert.equal(readFileSync(lab.path("work/new.txt"), "utf8"), "changed\n");
    assert.match((await call("bash", { command: "exit 3" })).text, /code 3/);
  });

  await step("vers_vm_create, vers_vm_use", async () => {
    vm = /[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/.exec(await text("vers_vm_create", { wait_boot: true }))?.[0] ?? "";
    assert.notEqual(vm, "");
    await works("vers_vm_use", { vmId: vm });
    const status = pi.log.findLast((message) => message["method"] === "setStatus");
    assert.match(String(status?.["statusText"]), new RegExp(vm.slice(0, 8)));
    assert.doesNotMatch(String(status?.["statusText"]), /\u001b/, "an RPC client gets no escape sequences");
  });

  await step("bash is on the VM now, and streams", async () => {
    const command = "echo one; sleep 0.3; echo two; sleep 0.3; echo three; touch ~/proof";
    const { text: said, updates } = await works("bash", { command });
    assert.match(said, /one\ntwo\nthree/);
    assert.ok(updates.some((update) => update.includes("one") && !update.includes("three")), updates.join("|"));
    assert.match(await text("bash", { command: "ls -a ~" }), /proof/);
    assert.equal(existsSync(lab.path("home/proof")), false);
    const failure = await call("bash", { command: "echo out; exit 3" });
    assert.equal(failure.isError, true);
    assert.match(failure.text, /out[\s\S]*3/);
  });

  await step("an aborted command is stopped on the VM", async () => {
    model.play({ tools: [{ name: "bash", args: { command: "echo started; sleep 987" } }] });
    const from = pi.log.length;
    await pi.command("prompt", { message: "Go on." });
    await pi.find((message) => message.type === "tool_execution_update" && JSON.stringify(message).includes("started"), from);
    await pi.command("abort");
    const end = await pi.find((message) => message.type === "tool_execution_end", from);
    assert.equal(end["isError"], true);
    await pi.settled(from);
    assert.match(await text("bash", { command: "pgrep -x sleep || echo no sleep" }), /^no sleep/);
  });

  await step("write, read, edit on the VM", async () => {
    await works("write", { path: "notes/a.txt", content: "first\nsecond é\n" });
    assert.match(await text("read", { path: "notes/a.txt" }), /first\nsecond é/);
    await works("edit", { path: "notes/a.txt", edits: [{ oldText: "first", newText: "1st" }] });
    assert.match(await text("bash", { command: "cat notes/a.txt" }), /^1st\nsecond é/);
    assert.equal(existsSync(lab.path("work/notes")), false);
    assert.equal((await call("read", { path: "nowhere.txt" })).isError, true);
  });

  await step("vers_vm_copy", async () => {
    const home = (await text("bash", { command: "pwd" })).trim();
    await works("vers_vm_copy", { src: `vm:${vm}:${home}/notes/a.txt`, dst: "copy.txt" });
    assert.equal(readFileSync(lab.path("work/copy.txt"), "utf8"), "1st\nsecond é\n");
  });

  await step("bg_start", async () => {
    const said = await text("bg_start", { id: "ticker", command: "echo up; echo on $HOME; sleep 600", waitFor: "on " });
    assert.match(said, /started \(running, ready\)/);
    assert.match(await text("bg_logs", { id: "ticker" }), /up/);
    assert.match(await text("bash", { command: "pgrep -x sleep && echo it runs here" }), /it runs here/);
    await works("bg_stop", { id: "ticker" });
  });

  await step("calls of one answer, each with its own result", async () => {
    const tools = ["a", "b", "c"].map((word) => ({ name: "bash", args: { command: `sleep 0.1; echo ${word}` } }));
    const events = await turn({ tools }, { text: "Done." });
    const ends = events.filter((event) => event.type === "tool_execution_end");
    assert.deepEqual(ends.map((end) => resultOf(end["result"]).text.trim()).toSorted(), ["a", "b", "c"]);
  });

  await step("a background task wakes the idle conversation", async () => {
    model.play({ tools: [{ name: "alarm_set", args: { millis: 1500, text: "The alarm rings." } }] }, { text: "It is set." });
    await pi.prompt("Go on.");
    assert.equal((await pi.command("get_state"))["isStreaming"], false);
    const from = pi.log.length;
    model.play({ text: "I am awake." });
    await pi.settled(from);
    assert.match(JSON.stringify(model.last.messages.at(-1)), /The alarm rings/);
    assert.match(JSON.stringify(pi.log.slice(from)), /I am awake/);
  });

  await step("plan mode blocks what changes something, asks, and carries the plan out", async () => {
    const { commands } = await pi.command("get_commands");
    assert.ok((commands as { name: string }[]).some((command) => command.name === "plan"), "there is /plan");
    await pi.command("prompt", { message: "/plan" });
    const blocked = await call("bash", { command: "rm -rf notes" });
    assert.equal(blocked.isError, true);
    assert.match(blocked.text, /plan mode/i);
    assert.match(await text("bash", { command: "ls notes" }), /a\.txt/);
    const offered = (model.last.tools ?? []).map((tool) => tool.function.name);
    assert.ok(offered.includes("read") && !offered.includes("write"), offered.join());
    // It has asked at the end of each turn; nobody has answered.
    await pi.find((message) => message["method"] === "select", await questions(2));
    const dialogs: Message[] = [];
    pi.answer = (dialog) => {
      dialogs.push(dialog);
      return { value: (dialog["options"] as string[])[0] };
    };
    const from = pi.log.length;
    model.play(
      { text: "Plan:\n1. Read the notes with care\n2. Change the notes as asked" },
      { text: "The first is done. [DONE:1]" },
    );
    await pi.command("prompt", { message: "Make a plan." });
    await pi.find((message) => JSON.stringify(message).includes("The first is done") && message.type === "message_end", from);
    pi.answer = undefined;
    assert.equal(dialogs.length, 1);
    assert.equal(dialogs[0]?.["method"], "select");
    await pi.find((message) => message["method"] === "setWidget" && JSON.stringify(message).includes("the notes"), from);
  });

  await step("a reload is another process, and the VM stays chosen", async () => {
    const [before] = pi.bridges();
    await pi.command("prompt", { message: "/again" });
    const [after, ...more] = pi.bridges();
    assert.deepEqual(more, []);
    assert.notEqual(after, before);
    assert.equal(commandOf(before ?? 0), "");
    assert.match(await text("bash", { command: "ls -a ~" }), /proof/);
  });

  await step("a host that dies is replaced by the next call, and the VM stays chosen", async () => {
    const [before] = pi.bridges();
    process.kill(before ?? 0, "SIGKILL");
    await pi.find((message) => message["method"] === "notify" && /pi-vers ended/.test(String(message["message"])));
    assert.match(await text("bash", { command: "ls -a ~" }), /proof/);
    assert.notEqual(pi.bridges()[0], before);
  });

  await step("the end of the input ends pi and the host", async () => {
    await pi.command("prompt", { message: "/plan" });
    const [bridge] = pi.bridges();
    assert.equal(await pi.close(), 0, pi.stderr);
    assert.equal(commandOf(bridge ?? 0), "");
    assert.deepEqual(pi.stray, [], "nothing but the protocol on standard output");
  });

  await step("a session that is resumed has its active VM and its plan mode", async () => {
    start("--continue");
    assert.match(await text("bash", { command: "ls -a ~" }), /proof/);
    const blocked = await call("bash", { command: "rm -rf notes" });
    assert.equal(blocked.isError, true);
    assert.match(blocked.text, /plan mode/i);
    await pi.command("prompt", { message: "/plan" });
  });

  await step("the model creates a lieutenant, goes on, is woken by its completion, and reads it", async () => {
    // An image for agents: the scripted one is its pi.
    copyFileSync(lab.path("bin/pi-vers"), lab.path("work/agent"));
    await works("vers_vm_copy", { src: "agent", dst: `vm:${vm}:/usr/local/lib/pi-vers/pi-vers` });
    const wrapper = "exec /usr/local/lib/pi-vers/pi-vers scripted-agent \"$@\"";
    await works("bash", { command: `printf '#!/bin/sh\\n%s\\n' '${wrapper}' >/usr/local/bin/pi; chmod 755 /usr/local/bin/pi /usr/local/lib/pi-vers/pi-vers; pi --version` });
    const committed = await works("vers_vm_commit", { vmId: vm });
    const commitId = committed.text.match(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g)?.find((id) => id !== vm);
    const created = await text("vers_lt_create", { name: "infra", role: "it's the tester", commitId, model: "scripted/scripted-1" });
    assert.match(created, /^Lieutenant "infra" is ready\.\n {2}VM: [0-9a-f-]{36}\n {2}Role: it's the tester\n/);
    assert.match(await text("vers_lt_send", { name: "infra", message: "sleep 2500\nsay the tests pass" }), /^Sent to infra \(prompt\)/);
    assert.match(await text("bash", { command: "echo I go on" }), /I go on/);
    const from = pi.log.length;
    model.play({ text: "I have heard." });
    await pi.settled(from);
    assert.match(JSON.stringify(model.last.messages.at(-1)), /\[infra completed\] ✅\\nthe tests pass/);
    assert.match(await text("vers_lt_read", { name: "infra" }), /^\[infra\] \(idle, 1 tasks\):\n\nthe tests pass/);
    const widget = pi.log.findLast((message) => message["method"] === "setWidget" && JSON.stringify(message).includes("Lieutenants"));
    assert.match(JSON.stringify(widget), /● infra: idle \(1 tasks\)/);
  });

  await step("a killed harness that is resumed has its lieutenant, with all it said meanwhile", async () => {
    await works("vers_lt_send", { name: "infra", message: "sleep 2000\nsay said meanwhile" });
    pi.kill();
    await pi.exit;
    await new Promise((later) => setTimeout(later, 3_000));
    model.play({ text: "I have heard that, too." });
    start("--continue");
    await pi.settled(0);
    assert.match(JSON.stringify(model.last.messages.at(-1)), /\[infra completed\] ✅[^"]*said meanwhile/);
    const read = await text("vers_lt_read", { name: "infra", history: 20 });
    assert.match(read, /the tests pass[\s\S]*said meanwhile/);
    assert.match(await text("vers_lt_destroy", { name: "*" }), /^infra: destroyed \(VM [0-9a-f-]{36}, 2 tasks completed\)/);
  });

  await step("pi -p ends with the host, and flags of extensions reach it", async () => {
    model.play({ tools: [{ name: "vers_vms", args: {} }] }, { text: "That is all." });
    const { stdout } = await lab.print(["--no-session", "Go on."]);
    assert.match(stdout, /That is all\./);
    assert.match(JSON.stringify(model.last.messages.at(-1)), new RegExp(vm));
    model.play({ tools: [{ name: "vers_vms", args: {} }] }, { text: "That is all." });
    const elsewhere = { PI_VERS_BRIDGE_ARGS: "", VERS_BASE_URL: "http://127.0.0.1:7", VERS_API_KEY: "none" };
    await lab.print(["--no-session", "--vers-base-url", "http://127.0.0.2:9/api/v1", "Go on."], elsewhere);
    assert.match(JSON.stringify(model.last.messages.at(-1)), /127\.0\.0\.2/);
  });

  await step("a second copy of the package does not clash, and pi works without the binary", async () => {
    lab.run(["cp", "-r", lab.path("tmp/package"), lab.path("tmp/second")]);
    model.play({ text: "That is all." });
    const second = lab.path("tmp/second/host/bridge/dist/extension.mjs");
    assert.match((await lab.print(["--no-session", "-e", second, "Go on."])).stdout, /That is all\./);
    model.play({ text: "That is all." });
    const { stdout, stderr } = await lab.print(["--no-session", "Go on."], { PI_VERS_BIN: "/nowhere" });
    assert.match(stdout, /That is all\./);
    assert.match(stderr, /pi-vers is not available: PI_VERS_BIN is \/nowhere/);
  });

  await step("a new session has neither", async () => {
    await pi.command("new_session");
    assert.equal(pi.bridges().length, 1);
    const said = await text("bash", { command: "pwd" });
    assert.match(said, new RegExp(lab.path("work")));
    await works("vers_vm_delete", { vmId: vm });
    assert.equal(await pi.close(), 0, pi.stderr);
  });
}

function outcomeOf(events: Message[], tool: string): Outcome {
  const end = events.find((event) => event.type === "tool_execution_end" && event["toolName"] === tool);
  assert.ok(end !== undefined, `${tool} did not run: ${JSON.stringify(events).slice(0, 2_000)}`);
  const updates = events.filter((event) => event.type === "tool_execution_update" && event["toolName"] === tool);
  return {
    ...resultOf(end["result"]),
    isError: end["isError"] === true,
    updates: updates.map((update) => resultOf(update["partialResult"]).text),
  };
}

function resultOf(result: unknown): { text: string; details: Record<string, unknown> } {
  const { content, details } = result as { content: { type: string; text?: string }[]; details?: Record<string, unknown> };
  return { text: content.map((block) => block.text ?? "").join("\n"), details: details ?? {} };
}
