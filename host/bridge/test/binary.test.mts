import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { bridgeArguments, findBinary } from "../src/binary.mjs";
import { detectHarness } from "../src/harness.mjs";

function directory(t: TestContext): string {
  const made = mkdtempSync(join(tmpdir(), "pi-vers-test-"));
  t.after(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

function program(path: string): string {
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, "");
  chmodSync(path, 0o755);
  return path;
}

test("the binary: named, built in the package, on the PATH; otherwise what to do", (t) => {
  const root = directory(t);
  assert.throws(() => findBinary({}, root), /no pi-vers binary: run "cargo install/);
  const onPath = program(join(root, "bin", "pi-vers"));
  assert.equal(findBinary({ PATH: `:bin:/nowhere:${join(root, "bin")}` }, root), onPath);
  const built = program(join(root, "target", "release", "pi-vers"));
  assert.equal(findBinary({ PATH: join(root, "bin") }, root), built);
  assert.equal(findBinary({ PI_VERS_BIN: onPath }, root), onPath);
  assert.throws(() => findBinary({ PI_VERS_BIN: join(root, "none") }, root), /PI_VERS_BIN is .* no program/);
});

test("the harness is told by the package of the program, through links", (t) => {
  const root = directory(t);
  const installed = (name: string) => {
    const home = join(root, name);
    const path = program(join(home, "dist", "bundle", "cli.js"));
    writeFileSync(join(home, "package.json"), JSON.stringify({ name, version: "1.2.3" }));
    return path;
  };
  const pi = installed("@earendil-works/pi-coding-agent");
  const link = join(root, "pi");
  symlinkSync(pi, link);
  const found = detectHarness(link);
  assert.deepEqual([found.kind, found.version, found.cachesReads], ["pi", "1.2.3", false]);
  assert.match(found.entry ?? "", /dist\/bundle\/index\.js$/);
  assert.equal(detectHarness(installed("@punkin-pi/coding-agent")).kind, "punkin-pi");
  const other = detectHarness(installed("my-agent"));
  assert.deepEqual([other.kind, other.cachesReads, other.lateTools, other.entry], ["other", true, false, undefined]);
  assert.equal(detectHarness(join(root, "none")).kind, "other");
});

test("what the user adds to the arguments: words, or a list", () => {
  const of = (added?: string) => bridgeArguments(added === undefined ? {} : { PI_VERS_BRIDGE_ARGS: added });
  assert.deepEqual(of(), ["bridge"]);
  assert.deepEqual(of(" --local  -e a.wasm "), ["bridge", "--local", "-e", "a.wasm"]);
  assert.deepEqual(of('["-e", "a b.wasm"]'), ["bridge", "-e", "a b.wasm"]);
  for (const wrong of ["[", "[1]"]) assert.throws(() => of(wrong), /no JSON list of texts/);
});
