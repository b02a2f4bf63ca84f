/**
 * Where the host's standard error goes: to the harness's own, except on a terminal, which the harness draws on. There it is a file.
 */
import { fstatSync, ftruncateSync, mkdirSync, openSync, writeSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

/** A file that is longer begins anew. */
const LIMIT = 1024 * 1024;

export interface ErrorLog {
  /** What `spawn` is given. */
  target: number | "inherit" | "ignore";
  write(level: string, message: string): void;
}

export function errorLog(terminal: boolean, environment: NodeJS.ProcessEnv = process.env): ErrorLog {
  if (!terminal) {
    return {
      target: "inherit",
      write: (level, message) => {
        if (level !== "debug" && level !== "trace") console.error(`pi-vers: ${level}: ${message}`);
      },
    };
  }
  const state = environment["XDG_STATE_HOME"] || join(homedir(), ".local", "state");
  const directory = join(state, "pi-vers");
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const file = openSync(join(directory, "bridge.log"), "a", 0o600);
    if (fstatSync(file).size > LIMIT) ftruncateSync(file);
    return {
      target: file,
      write: (level, message) => {
        writeSync(file, `${new Date().toISOString()} ${level} ${message}\n`);
      },
    };
  } catch {
    // No place to write: the messages that matter are shown anyway.
    return { target: "ignore", write: () => {} };
  }
}
