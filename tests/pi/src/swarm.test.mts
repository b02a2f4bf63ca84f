/** `SwarmManager` of `@hdresearch/pi-v/core`, as a program that depends on the package has it, with the scripted agent on real VMs. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, renameSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { Lab, PI_073 } from "./lab.mjs";

/** The program: it says what it found as JSON. */
const PROGRAM = `
import { SwarmManager, VersClient } from "@hdresearch/pi-v/core";
const client = new VersClient();
const { vm_id } = await client.createRoot({}, true);
await client.uploadDirectory(vm_id, process.argv[2], "/usr/local/lib/pi-vers");
await client.execScript(vm_id, "cd /usr/local/lib/pi-vers && chmod 755 pi pi-vers && mv pi /usr/local/bin/pi");
const { commit_id: commitId } = await client.commit(vm_id);
await client.delete(vm_id);

const swarm = new SwarmManager(client, { session: "program" });
const found = {};
found.none = [swarm.agentSummary(), swarm.getAgents()];
found.keyless = await swarm.spawn({ commitId, count: 1 }).catch((why) => why.message);
const llmProxyKey = "sk-test";
found.spawned = await swarm.spawn({ commitId, count: 2, labels: ["a"], llmProxyKey, model: "scripted/scripted-1" });
found.twice = await swarm.spawn({ commitId, count: 1, labels: ["a"], llmProxyKey }).catch((why) => [why.kind, why.message]);
await swarm.sendTask("a", "run echo from the VM");
await swarm.sendTask("agent-1", "sleep 600000");
found.busy = await swarm.sendTask("agent-1", "say x").catch((why) => why.message);
found.waited = await swarm.wait(["a", "nobody"]);
found.late = await swarm.wait(undefined, 0.2);
const abort = new AbortController();
setTimeout(() => abort.abort(), 100);
found.aborted = await swarm.wait(["agent-1"], 300, abort.signal).catch((why) => why.kind);
found.read = await swarm.read("a", 3);
found.other = await new SwarmManager(client).refresh();
// Let go, and found again by the session's name.
await swarm.shutdown();
const again = new SwarmManager(client, { session: "program" });
for (let n = 0; n < 200; n++) {
  const agents = await again.refresh();
  if (agents.length === 2 && agents.every((agent) => agent.status !== "starting")) break;
  await new Promise((done) => setTimeout(done, 50));
}
found.again = again.getAgents().map(({ id, status }) => [id, status]);
found.refused = await again.teardown().catch((why) => why.message);
found.gone = await again.teardown({ force: true });
found.left = [await client.list(), again.getAgents()];
console.log(JSON.stringify(found));
`;

const AGENT = '#!/bin/sh\nexec /usr/local/lib/pi-vers/pi-vers scripted-agent "$@"\n';

test("a program with a swarm", { timeout: 150_000 }, async (t) => {
  const lab = await Lab.open(PI_073);
  t.after(() => lab.end());
  lab.pack();
  mkdirSync(lab.path("work/node_modules/@hdresearch"), { recursive: true });
  renameSync(lab.path("tmp/package"), lab.path("work/node_modules/@hdresearch/pi-v"));
  writeFileSync(lab.path("work/program.mjs"), PROGRAM);
  mkdirSync(lab.path("home/agent"), { recursive: true });
  copyFileSync(process.env["PI_VERS_BIN"] ?? "", lab.path("home/agent/pi-vers"));
  writeFileSync(lab.path("home/agent/pi"), AGENT);
  const said = execFileSync(process.execPath, ["program.mjs", lab.path("home/agent")], {
    cwd: lab.path("work"),
    env: { ...lab.env, ...lab.platform },
    encoding: "utf8",
    timeout: 130_000,
  });
  const found = JSON.parse(said) as Record<string, unknown>;
  assert.deepEqual(found["none"], ["No agents in swarm.", []]);
  assert.equal(found["keyless"], "LLM_PROXY_KEY is required to spawn swarm agents.");
  const { agents, messages } = found["spawned"] as { agents: { id: string; vmId: string; status: string }[]; messages: string[] };
  assert.deepEqual(
    agents.map(({ id, status }) => [id, status]),
    [
      ["a", "idle"],
      ["agent-1", "idle"],
    ],
  );
  assert.deepEqual(
    messages,
    agents.map(({ id, vmId }) => `${id}: VM ${vmId} — ready`),
  );
  assert.equal((found["twice"] as string[])[0], "failed");
  assert.match((found["twice"] as string[])[1] ?? "", /^Agent 'a' is in the swarm already/);
  assert.match(found["busy"] as string, /^Agent 'agent-1' is busy/);
  const waited = found["waited"] as { timedOut: boolean; agents: { id: string; status: string; output: string }[] };
  assert.equal(waited.timedOut, false);
  assert.deepEqual(
    waited.agents.map(({ id, status }) => [id, status]),
    [
      ["a", "done"],
      ["nobody", "unknown"],
    ],
  );
  assert.match(waited.agents[0]?.output ?? "", /from the VM/);
  assert.equal((found["late"] as { timedOut: boolean }).timedOut, true);
  assert.equal(found["aborted"], "cancelled");
  assert.match(found["read"] as string, /^\[a\] \(done\):\n\n\.\.\./);
  assert.deepEqual(found["other"], []);
  assert.deepEqual(found["again"], [
    ["a", "done"],
    ["agent-1", "working"],
  ]);
  assert.match(found["refused"] as string, /^Nothing was torn down: 1 agent\(s\)/);
  assert.deepEqual(
    found["gone"],
    agents.map(({ id, vmId }) => `${id}: VM ${vmId} deleted`),
  );
  assert.deepEqual(found["left"], [[], []]);
});
