/** A harness that ends when its event loop is empty, and tells nobody: as punkin-pi does at the end of its input. */
import { load } from "../src/bridge.mjs";
import { LIMITS } from "../src/connection.mjs";
import { FAKE_HOST, harnessFor } from "./bench.mjs";
import { StandIn } from "./stand-in.mjs";

const harness = new StandIn("punkin-pi");
await harness.load("pi-vers", (api) =>
  load(api, {
    harness: harnessFor("punkin-pi"),
    terminal: false,
    log: () => {},
    limits: LIMITS,
    launch: () => ({
      program: process.execPath,
      args: [FAKE_HOST, JSON.stringify({ marks: process.argv[2] })],
      cwd: process.cwd(),
      environment: process.env,
      stderr: "inherit",
    }),
  }),
);
await harness.start();
console.log((await harness.call("echo", {})).text);
