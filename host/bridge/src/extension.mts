/** The extension's entry, as pi and punkin-pi load it. It imports nothing of theirs. */
import { bridgeArguments, findBinary } from "./binary.mjs";
import { load } from "./bridge.mjs";
import { detectHarness } from "./harness.mjs";
import type { Api } from "./pi.mjs";
import { errorLog } from "./stderr.mjs";

export default async function piVers(api: Api): Promise<void> {
  const terminal = process.stdout.isTTY === true;
  const errors = errorLog(terminal);
  await load(api, {
    harness: detectHarness(),
    terminal,
    log: errors.write,
    launch: () => ({
      program: findBinary(),
      args: bridgeArguments(),
      cwd: process.cwd(),
      environment: process.env,
      stderr: errors.target,
    }),
  });
}
