/** The real pi as a worker: installed in a golden image of the local platform, spawned by the swarm, its connections cut while it works. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { type Harness, PI_073, PI_087 } from "./lab.mjs";

/** A line of `pi-vers demo --json`. */
interface Step {
  step?: string;
  ok: boolean;
  text?: string[];
}

/** Runs the demo with this pi; returns its lines, and what it left in its temporary directory. */
async function demo(harness: Harness): Promise<{ steps: Step[]; code: number; left: string[]; errors: string }> {
  const binary = process.env["PI_VERS_BIN"];
  assert.ok(binary !== undefined, "PI_VERS_BIN is not set: the binary to test");
  const [node = "", cli = ""] = harness.command;
  const directory = mkdtempSync(join(tmpdir(), "pv-swarm-"));
  const temporary = join(directory, "tmp");
  mkdirSync(temporary);
  const env = {
    PATH: `${dirname(node)}:${process.env["PATH"] ?? "/usr/bin:/bin"}`,
    HOME: directory,
    TMPDIR: temporary,
    XDG_CACHE_HOME: process.env["PI_VERS_TEST_CACHE"] ?? join(directory, "cache"),
    PI_PATH: cli,
  };
  try {
    return await new Promise((done) => {
      const args = ["--quiet", "demo", "--swarm", "2", "--agent", "pi", "--json"];
      execFile(binary, args, { env, cwd: directory }, (why, stdout, errors) => {
        const steps = stdout.trim().split("\n").map((line) => JSON.parse(line) as Step);
        const code = typeof why?.code === "number" ? why.code : why === null ? 0 : -1;
        done({ steps, code, left: readdirSync(temporary), errors });
      });
    });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

for (const harness of [PI_073, PI_087]) {
  test(`${harness.name} works in a swarm, each line once across cuts, and nothing is left`, async () => {
    const { steps, code, left, errors } = await demo(harness);
    const failed = steps.filter((step) => !step.ok);
    assert.deepEqual([code, failed], [0, []], errors);
    const told = steps.flatMap((step) => step.text ?? []);
    for (const part of ["each of them there exactly once", "all with the workers' key", "connections cut"]) {
      assert.ok(told.some((line) => line.includes(part)), `${part}: ${told.join("\n")}`);
    }
    assert.deepEqual(left, []);
  });
}
