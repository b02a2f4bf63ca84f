/** `@hdresearch/pi-v/core` and the package's commands, as a program that depends on the package has them. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, renameSync, statSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { Lab, PI_073 } from "./lab.mjs";

/** The program: it says what it found as JSON. */
const PROGRAM = `
import { VersClient, ensureVersApiKey, resolveAgentBinary } from "@hdresearch/pi-v/core";
import extension from "@hdresearch/pi-v/extensions/vers-vm";
const client = new VersClient();
const { vm_id } = await client.createRoot({ vcpu_count: 1 }, true);
const found = { vm_id, extension: typeof extension, agent: resolveAgentBinary(), key: (await ensureVersApiKey()) !== "" };
found.exec = await client.exec(vm_id, "echo out; echo err >&2; exit 3");
found.script = await client.execScript(vm_id, "x=1\\necho script $((x + 1))");
found.failing = await client.execScript(vm_id, "exit 5").catch((why) => [why.kind, why.message]);
await client.uploadDirectory(vm_id, process.argv[2], "/root/copy");
found.copied = (await client.exec(vm_id, "cd copy && find . -type f | sort")).stdout;
const streamed = [];
found.ended = await client.execStreaming(vm_id, "echo one; sleep 0.2; echo two", { onData: (data) => streamed.push(String(data)) });
found.streamed = streamed.join("");
found.aborted = await client
  .execStreaming(vm_id, "echo up; sleep 987", { onData: () => abort.abort(), signal: (globalThis.abort = new AbortController()).signal })
  .catch((why) => why.message);
found.sleeps = (await client.exec(vm_id, "pgrep -x sleep")).exitCode;
found.late = await client.execStreaming(vm_id, "sleep 987", { onData() {}, timeout: 0.3 }).catch((why) => why.message);
found.ssh = await client.sshArgs(vm_id);
found.keyFile = await client.ensureKeyFile(vm_id);
const { commit_id } = await client.commit(vm_id);
const restored = (await client.restoreFromCommit(commit_id)).vm_id;
found.states = [await client.getState(vm_id)];
await client.updateState(vm_id, "Paused");
found.states.push(await client.getState(vm_id));
found.commits = (await client.listCommits()).total;
await client.delete(restored);
found.vms = (await client.list()).map((vm) => vm.vm_id);
await client.updateState(vm_id, "Running");
found.none = await client.getState("ffffffff-0000-4000-8000-000000000000").catch((why) => why.kind);
console.log(JSON.stringify(found));
`;

test("a program that depends on the package", { timeout: 100_000 }, async (t) => {
  const lab = await Lab.open(PI_073);
  t.after(() => lab.end());
  lab.pack();
  mkdirSync(lab.path("work/node_modules/@hdresearch"), { recursive: true });
  renameSync(lab.path("tmp/package"), lab.path("work/node_modules/@hdresearch/pi-v"));
  writeFileSync(lab.path("work/program.mjs"), PROGRAM);
  mkdirSync(lab.path("home/tree/node_modules"), { recursive: true });
  writeFileSync(lab.path("home/tree/a.txt"), "a");
  writeFileSync(lab.path("home/tree/node_modules/b.txt"), "b");
  const env = { ...lab.env, ...lab.platform };
  const said = execFileSync(process.execPath, ["program.mjs", lab.path("home/tree")], {
    cwd: lab.path("work"),
    env,
    encoding: "utf8",
    timeout: 80_000,
  });
  const found = JSON.parse(said) as Record<string, unknown> & { ssh: string[]; keyFile: string; vm_id: string };

  assert.equal(found["extension"], "function");
  assert.equal(found["agent"], "pi");
  assert.equal(found["key"], true);
  assert.deepEqual(found["exec"], { stdout: "out\n", stderr: "err\n", exitCode: 3 });
  assert.equal((found["script"] as { stdout: string }).stdout, "script 2\n");
  assert.equal((found["failing"] as string[])[0], "failed");
  assert.equal(found["copied"], "./a.txt\n");
  assert.deepEqual(found["ended"], { exitCode: 0 });
  assert.equal(found["streamed"], "one\ntwo\n");
  assert.equal(found["aborted"], "aborted");
  assert.equal(found["sleeps"], 1, "what was aborted is gone");
  assert.equal(found["late"], "timeout:0.3");
  assert.deepEqual((found["states"] as string[]).map((state) => state.toLowerCase()), ["running", "paused"]);
  assert.equal(found["commits"], 1);
  assert.deepEqual(found["vms"], [found.vm_id]);
  assert.equal(found["none"], "not-found");
  assert.equal(statSync(found.keyFile).mode & 0o777, 0o600);
  assert.match(found.ssh.at(-1) ?? "", new RegExp(`^root@${found.vm_id}`));
  // As reef does it: the ssh program, with a command behind these arguments.
  const ssh = execFileSync("ssh", [...found.ssh, "echo over ssh"], { env, encoding: "utf8", timeout: 30_000, stdio: "pipe" });
  assert.equal(ssh, "over ssh\n");

  for (const name of ["vers-mcp", "vers-mcp-setup"]) {
    const bin = lab.path(`work/node_modules/@hdresearch/pi-v/host/bridge/bin/${name}.mjs`);
    const { status, stderr } = spawnSync(process.execPath, [bin, "--help"], { env, encoding: "utf8", timeout: 30_000 });
    // The binary's own help.
    assert.equal(status, 0, `${name}: ${stderr}`);
  }
});
