/** Runs the binary in the place of this process: the package's own commands are names for it. */
import { spawn } from "node:child_process";
import { constants } from "node:os";
import { findBinary } from "./binary.mjs";
import { messageOf } from "./failure.mjs";

/** Signals that a user or a supervisor ends a program with; the binary gets them in our place. */
const SIGNALS: NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP"];

/** Runs `pi-vers` with these arguments and what the user adds; ends as it ends. */
export function launch(...args: string[]): void {
  let program: string;
  try {
    program = findBinary();
  } catch (why) {
    console.error(messageOf(why));
    process.exitCode = 1;
    return;
  }
  const child = spawn(program, [...args, ...process.argv.slice(2)], { stdio: "inherit" });
  for (const signal of SIGNALS) process.on(signal, () => child.kill(signal));
  child.once("error", (why) => {
    console.error(`${program} can't be started: ${why.message}`);
    process.exitCode = 1;
  });
  child.once("exit", (code, signal) => {
    process.exit(code ?? 128 + (signal === null ? 0 : constants.signals[signal]));
  });
}
