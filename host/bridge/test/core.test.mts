import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { type IncomingMessage, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import {
  SwarmManager,
  VersClient,
  ensureVersApiKey,
  loadVersKeyFromDisk,
  resolveAgentBinary,
  resolveGoldenCommit,
  shellEscape,
} from "../src/core/index.mjs";

/** A `pi-vers core` that says what it was asked, and does what a command says. */
const FAKE = `#!${process.execPath}
const { createInterface } = require("node:readline");
const write = (answer) => process.stdout.write(JSON.stringify(answer) + "\\n");
const running = new Map();
createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method, params, cancel } = JSON.parse(line);
  if (cancel !== undefined) return write({ id: cancel, error: { kind: "cancelled", message: "cancelled" } });
  const error = (kind, message, status) => write({ id, error: { kind, message, status } });
  switch (params.command) {
    case "sleep": return;
    case "late": return error("timed-out", "stopped after its time");
    case "signal": return write({ id, result: { stdout: "é", stderr: "", exitCode: null, signal: "TERM" } });
    case "die": return process.exit(9);
    case "babble": return process.stdout.write("babble\\n");
    case "stream":
      for (const stream of ["stdout", "stderr"]) write({ id, stream, data: Buffer.from(stream).toString("base64") });
      return write({ id, result: { exitCode: 4 } });
  }
  if (method === "tool") return tool(params, (answer) => write({ id, ...answer }));
  if (params.vmId === "none") return error("not-found", "there is no such VM", 404);
  if (method === "ensureVersApiKey") return write({ id, result: process.env.VERS_API_KEY });
  write({ id, result: { asked: method, params, pid: process.pid } });
}).on("close", () => process.exit(0));
const agents = new Map();
const tool = ({ name, arguments: given, session }, answer) => {
  const result = (text, details) => answer({ result: { text, details } });
  const all = (more) => ({ agents: [...agents.values()].map((agent) => ({ ...agent, ...more })) });
  switch (name) {
    case "vers_swarm_spawn":
      for (const id of given.labels) agents.set(id, { id, vmId: "vm-" + id, status: "idle" });
      return result("Spawned " + given.count + " agent(s):\\na: VM vm-a — ready\\n\\nSwarm (1 agents):", { ...all(), asked: [given, session] });
    case "vers_swarm_task":
      if (!agents.has(given.agentId)) return answer({ error: { kind: "failed", message: "Agent 'x' not found. Available: a" } });
      agents.set(given.agentId, { ...agents.get(given.agentId), status: "done", task: given.task });
      return result("sent", {});
    case "vers_swarm_status": return result("", all());
    case "vers_swarm_wait":
      if (given.timeoutSeconds === 7) return;
      return result("All", { elapsed: 1.5, timedOut: false, ...all({ output: "said" }) });
    case "vers_swarm_read": return result("read " + (given.tail ?? "all"), {});
    case "vers_swarm_teardown":
      if (given.force !== true) return answer({ error: { kind: "failed", message: "Nothing was torn down: 1 agent(s)" } });
      agents.clear();
      return result("Swarm torn down:\\na: VM vm-a deleted", {});
  }
};
`;

function fake(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "pi-vers-test-"));
  const program = join(directory, "pi-vers");
  writeFileSync(program, FAKE);
  chmodSync(program, 0o755);
  const before = process.env["PI_VERS_BIN"];
  process.env["PI_VERS_BIN"] = program;
  t.after(() => {
    if (before === undefined) delete process.env["PI_VERS_BIN"];
    else process.env["PI_VERS_BIN"] = before;
    rmSync(directory, { recursive: true, force: true });
  });
  return directory;
}

test("each method asks for what it says", async (t) => {
  fake(t);
  const client = new VersClient({ apiKey: "a" });
  const asked = async (answer: Promise<unknown>) => {
    const { asked, params } = (await answer) as { asked: string; params: unknown };
    return [asked, params];
  };
  assert.deepEqual(await asked(client.createRoot({ vcpu_count: 2 }, true)), [
    "createRoot",
    { config: { vcpu_count: 2 }, waitBoot: true },
  ]);
  assert.deepEqual(await asked(client.restoreFromCommit("c")), ["restoreFromCommit", { commitId: "c" }]);
  assert.deepEqual(await asked(client.branch("v")), ["branch", { vmId: "v" }]);
  assert.deepEqual(await asked(client.commit("v", true)), ["commit", { vmId: "v", keepPaused: true }]);
  assert.deepEqual(await asked(client.delete("v")), ["delete", { vmId: "v" }]);
  assert.deepEqual(await asked(client.list()), ["listVms", {}]);
  assert.deepEqual(await asked(client.listCommits({ limit: 3 })), ["listCommits", { limit: 3 }]);
  assert.deepEqual(await asked(client.sshArgs("v")), ["sshArgs", { vmId: "v" }]);
});

test("errors have the platform's status; a program without a binary is told what to do", async (t) => {
  fake(t);
  const client = new VersClient({ apiKey: "b" });
  await assert.rejects(client.getState("none"), {
    kind: "not-found",
    status: 404,
    message: "Vers API GET /vm/none/status failed (404): there is no such VM",
  });
  process.env["PI_VERS_BIN"] = "/nowhere";
  await assert.rejects(new VersClient({ apiKey: "b2" }).list(), /PI_VERS_BIN is \/nowhere/);
});

test("outputs come as they are written; abort and time limit reject as they did", async (t) => {
  fake(t);
  const client = new VersClient({ apiKey: "c" });
  const seen: string[] = [];
  const onData = (data: Buffer) => seen.push(data.toString());
  assert.deepEqual(await client.execStreaming("v", "stream", { onData }), { exitCode: 4 });
  assert.deepEqual(seen, ["stdout", "stderr"]);
  const abort = new AbortController();
  const sleep = client.execStreaming("v", "sleep", { onData, signal: abort.signal });
  abort.abort();
  await assert.rejects(sleep, { message: "aborted" });
  await assert.rejects(client.execStreaming("v", "sleep", { onData, signal: AbortSignal.abort() }), { message: "aborted" });
  await assert.rejects(client.execStreaming("v", "late", { onData, timeout: 3 }), { message: "timeout:3" });
  assert.deepEqual(await client.execStreaming("v", "signal", { onData }), { exitCode: null });
  assert.deepEqual(await client.exec("v", "signal"), { stdout: "é", stderr: "", exitCode: 143 });
});

test("a process that dies fails what is open, and the next request starts another", async (t) => {
  fake(t);
  const client = new VersClient({ apiKey: "d" });
  const open = client.exec("v", "sleep");
  await assert.rejects(client.exec("v", "die"), { kind: "unavailable", message: /exit code 9/ });
  await assert.rejects(open, { kind: "unavailable" });
  await assert.rejects(client.exec("v", "babble"), { kind: "unavailable", message: /no answer/ });
  assert.equal(((await client.getState("v")) as unknown as { asked: string }).asked, "getState");
});

test("clients with the same settings share a process, others have their own", async (t) => {
  fake(t);
  const pid = async (apiKey: string) =>
    ((await new VersClient({ apiKey }).getState("v")) as unknown as { pid: number }).pid;
  const first = await pid("e");
  assert.equal(await pid("e"), first);
  assert.notEqual(await pid("f"), first);
  assert.equal(await pid("e"), first);
  assert.equal(await ensureVersApiKey({ apiKey: "f" }), "f");
});

test("a swarm is the extension's tools, in a session of its own", async (t) => {
  fake(t);
  const before = process.env["LLM_PROXY_KEY"];
  delete process.env["LLM_PROXY_KEY"];
  delete process.env["ANTHROPIC_API_KEY"];
  t.after(() => {
    if (before !== undefined) process.env["LLM_PROXY_KEY"] = before;
  });
  const swarm = new SwarmManager(new VersClient({ apiKey: "g" }));
  assert.equal(swarm.agentSummary(), "No agents in swarm.");
  await assert.rejects(swarm.spawn({ count: 1 }), { message: "LLM_PROXY_KEY is required to spawn swarm agents." });
  const made = await swarm.spawn({ count: 1, labels: ["a"], llmProxyKey: "k" });
  assert.deepEqual(made, { agents: [{ id: "a", vmId: "vm-a", status: "idle" }], messages: ["a: VM vm-a — ready"] });
  await swarm.sendTask("a", "look");
  assert.equal(swarm.agentSummary(), "Swarm (1 agents):\n  a [working] (vm-a) — look");
  await assert.rejects(swarm.sendTask("x", "look"), { kind: "failed", message: /not found/ });
  assert.deepEqual(await swarm.wait(["a", "x"]), {
    elapsed: 1.5,
    timedOut: false,
    agents: [
      { id: "a", status: "done", output: "said" },
      { id: "x", status: "unknown", output: "" },
    ],
  });
  assert.deepEqual(await swarm.wait(["x"]), {
    elapsed: 0,
    timedOut: false,
    agents: [{ id: "x", status: "unknown", output: "" }],
  });
  const abort = new AbortController();
  const waiting = swarm.wait(undefined, 7, abort.signal);
  setTimeout(() => abort.abort(), 20);
  await assert.rejects(waiting, { kind: "cancelled" });
  assert.equal(await swarm.read("a", 3), "read 3");
  await assert.rejects(swarm.teardown(), /Nothing was torn down/);
  assert.deepEqual(swarm.getAgentIds(), ["a"]);
  assert.deepEqual(await swarm.teardown({ force: true }), ["a: VM vm-a deleted"]);
  assert.deepEqual([swarm.getAgents(), swarm.getAgent("a")], [[], undefined]);
  await swarm.shutdown();
  assert.notEqual(new SwarmManager().session, swarm.session);
});

test("the key on disk, in the order of the files", (t) => {
  const home = fake(t);
  const of = (more = {}) => loadVersKeyFromDisk({ HOME: home, ...more });
  assert.equal(of(), "");
  mkdirSync(join(home, ".vers"));
  writeFileSync(join(home, ".vers/config.json"), '{"api_key":" old "}');
  assert.equal(of(), "old");
  writeFileSync(join(home, ".vers/keys.json"), '{"keys":{"VERS_API_KEY":"k"}}');
  assert.equal(of(), "k");
  mkdirSync(join(home, "named"));
  writeFileSync(join(home, "named/keys.json"), '{"keys":{"VERS_API_KEY":"n"}}');
  assert.equal(of({ VERS_HOME: "~/named" }), "n");
  writeFileSync(join(home, "named/keys.json"), "broken");
  assert.equal(of({ VERS_HOME: "~/named" }), "k");
});

test("the golden commit, in the order of its sources", async (t) => {
  const asked: string[] = [];
  const answers = new Map<string, unknown>();
  const server = createServer((request: IncomingMessage, response) => {
    asked.push(`${request.method} ${request.url} ${request.headers.authorization ?? "-"}`);
    const answer = answers.get(request.url ?? "");
    response.writeHead(answer === undefined ? 404 : 200).end(JSON.stringify(answer ?? {}));
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  t.after(() => server.close());
  const infraUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const resolve = (more = {}) => resolveGoldenCommit({ infraUrl, authToken: "t", env: {}, ...more });
  assert.deepEqual(await resolve({ commitId: "x" }), { commitId: "x", source: "explicit" });
  assert.deepEqual(await resolve({ env: { VERS_COMMIT_ID: "y" } }), { commitId: "y", source: "env" });
  assert.deepEqual(asked, []);
  await assert.rejects(resolve(), /No golden commit available[^]*golden: 404/);
  assert.deepEqual(asked, ["GET /commits/current/golden Bearer t", "GET /registry/vms?role=golden Bearer t"]);
  answers.set("/commits/ensure-golden", { commitId: "e" });
  assert.deepEqual(await resolve({ ensure: true }), { commitId: "e", source: "reef-ensure" });
  answers.set("/registry/vms?role=golden", { vms: [{ metadata: { commitId: "r" } }] });
  assert.deepEqual(await resolve({ ensure: true }), { commitId: "r", source: "reef-registry" });
  answers.set("/commits/current/golden", { commitId: "g" });
  assert.deepEqual(await resolve(), { commitId: "g", source: "reef-commits" });
});

test("the agent's binary, and a word of a shell", () => {
  assert.equal(resolveAgentBinary({}), "pi");
  assert.equal(resolveAgentBinary({ PUNKIN_BIN: " punkin " }), "punkin");
  assert.equal(resolveAgentBinary({ PI_PATH: "/p", PUNKIN_BIN: "punkin" }), "/p");
  assert.equal(shellEscape("it's $HOME"), `'it'\\''s $HOME'`);
});
