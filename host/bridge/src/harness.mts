/**
 * Which harness runs us, and in what it differs.
 *
 * It is told by the package.json above the program that Node was started with. A harness that is none of the known ones,
 * or that was compiled into one binary, gets the careful choice everywhere.
 */
import { readFileSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { isObject } from "./wire.mjs";

export interface Harness {
  kind: "pi" | "punkin-pi" | "other";
  version: string;
  /** Where its own modules can be imported from; none in a compiled binary. */
  entry: string | undefined;
  /** Answers a repeated `read`, or `bash` that only reads, from a cache, even for tools that an extension replaced. */
  cachesReads: boolean;
  /** Tools that are registered after loading reach the model. */
  lateTools: boolean;
  /** A completion of a command's arguments may be a promise. */
  asyncCompletions: boolean;
  /** A tool that an extension registers is offered to the model, though the built-in that it replaces was not. */
  activatesReplacements: boolean;
}

const KINDS: Record<string, Harness["kind"]> = {
  "@mariozechner/pi-coding-agent": "pi",
  "@earendil-works/pi-coding-agent": "pi",
  "@punkin-pi/coding-agent": "punkin-pi",
};

/** Looks at the running program. */
export function detectHarness(program: string | undefined = process.argv[1]): Harness {
  let path: string | undefined;
  try {
    path = program === undefined ? undefined : realpathSync(program);
  } catch {
    path = undefined;
  }
  const found = path === undefined ? undefined : packageAbove(path);
  const kind = (found === undefined ? undefined : KINDS[found.name]) ?? "other";
  const entry =
    path === undefined || kind === "other" ? undefined : pathToFileURL(join(dirname(path), "index.js")).href;
  return harnessOf(kind, found?.version ?? "unknown", entry);
}

/** The harness of this kind, with what it is known for. */
export function harnessOf(kind: Harness["kind"], version: string, entry?: string): Harness {
  const pi = kind === "pi";
  return {
    kind,
    version,
    entry,
    cachesReads: !pi,
    lateTools: pi,
    asyncCompletions: pi,
    activatesReplacements: pi,
  };
}

/** The nearest package.json that has a name. */
function packageAbove(path: string): { name: string; version: string } | undefined {
  for (let at = dirname(path); ; at = dirname(at)) {
    try {
      const found: unknown = JSON.parse(readFileSync(join(at, "package.json"), "utf8"));
      if (isObject(found) && typeof found["name"] === "string") {
        return { name: found["name"], version: String(found["version"] ?? "unknown") };
      }
    } catch {
      // None here, or none that can be read: the next one above.
    }
    if (at === dirname(at)) return undefined;
  }
}
