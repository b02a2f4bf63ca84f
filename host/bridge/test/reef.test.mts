/**
 * What reef and vers-fleets import, with the signatures that they use: a name or a type that is missing does not compile. That it
 * works is shown against the local platform, in `tests/pi`.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as core from "../src/core/index.mjs";
import type {
  ExecResult,
  NewVmResponse,
  ResolveGoldenCommitResult,
  Vm,
  VmCommitResponse,
  VmConfig,
  VmDeleteResponse,
  VmSSHKeyResponse,
  VersClientOptions,
} from "../src/core/index.mjs";

/** The same type, not merely one that fits. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Same<A, B>) => undefined;

/** Never called: it is there to be compiled. */
export async function uses(client: core.VersClient, signal: AbortSignal): Promise<void> {
  const config: VmConfig = { vcpu_count: 2, mem_size_mib: 4096, fs_size_mib: 8192 };
  const made: NewVmResponse = await client.createRoot(config, true);
  const vm: string = made.vm_id;
  await client.uploadDirectory(vm, "dir", "/root/reef");
  const ran: ExecResult = await client.execScript(vm, "true");
  same<ExecResult, { stdout: string; stderr: string; exitCode: number }>(true);
  const done: ExecResult = await client.exec(vm, ran.stdout);
  const snapshot: VmCommitResponse = await client.commit(vm, true);
  const restored: NewVmResponse = await client.restoreFromCommit(snapshot.commit_id);
  const key: string = await client.ensureKeyFile(restored.vm_id);
  const args: string[] = [...(await client.sshArgs(vm)), key, done.stderr];
  await client.updateState(vm, "Paused");
  await client.updateState(vm, "Running");
  const state: string = await client.getState(vm);
  await client.resizeDisk(vm, 16_384);
  await client.setCommitPublic(snapshot.commit_id, true);
  const commits = [await client.listCommits({ limit: 10, offset: 0 }), await client.listPublicCommits({ limit: 10 })];
  const vms: Vm[] = await client.list();
  const branched: NewVmResponse = await client.branch(vm);
  await client.execStreaming(vm, "true", { onData: (data: Buffer) => args.push(data.toString()), signal, timeout: 5 });
  const gone: VmDeleteResponse = await client.delete(vm);
  const golden: ResolveGoldenCommitResult = await core.resolveGoldenCommit({ commitId: snapshot.commit_id, ensure: true });
  const options: VersClientOptions = { apiKey: core.loadVersKeyFromDisk(), baseURL: "https://api.vers.sh" };
  const checked: string = await core.ensureVersApiKey(options);
  const ssh: VmSSHKeyResponse = { ssh_port: 443, ssh_private_key: key };
  const words: string[] = [golden.commitId, golden.source, core.resolveAgentBinary(), core.shellEscape(state), checked];
  args.push(...words, branched.vm_id, gone.vm_id, ssh.ssh_private_key, String(commits.length + vms.length));
}

/** Never called either: the swarm, as the MCP server of old used it. */
export async function swarms(manager: core.SwarmManager, signal: AbortSignal): Promise<void> {
  const made: core.SwarmSpawnResult = await manager.spawn({ count: 2, labels: ["a"], llmProxyKey: "k", model: "m", commitId: "c" });
  const [first] = made.agents;
  await manager.sendTask(first?.id ?? "", made.messages.join());
  const waited: core.SwarmWaitResult = await manager.wait(["a"], 300, signal);
  same<core.SwarmWaitResult["agents"][number]["output"], string>(true);
  const texts: string[] = [...(await manager.teardown()), manager.agentSummary(), ...manager.getAgentIds()];
  const agents: (core.SwarmAgent | undefined)[] = [...manager.getAgents(), manager.getAgent(String(waited.elapsed + texts.length))];
  await manager.shutdown();
  assert.ok(agents);
}

test("each name is there at run time, too", () => {
  for (const name of [
    "SwarmManager",
    "VersClient",
    "ensureVersApiKey",
    "loadVersKeyFromDisk",
    "resolveAgentBinary",
    "resolveGoldenCommit",
    "shellEscape",
  ] as const) {
    assert.equal(typeof core[name], "function", name);
  }
  const methods = new Set(Object.getOwnPropertyNames(core.VersClient.prototype));
  const managers = new Set(Object.getOwnPropertyNames(core.SwarmManager.prototype));
  for (const [, name = ""] of swarms.toString().matchAll(/manager\.(\w+)\(/g)) assert.ok(managers.has(name), name);
  for (const [, name = ""] of uses.toString().matchAll(/client\.(\w+)\(/g)) assert.ok(methods.has(name), name);
});
