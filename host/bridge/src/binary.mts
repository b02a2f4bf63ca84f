/** Where the `pi-vers` binary is: named, built in this package, or installed. */
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Failure } from "./failure.mjs";

const NAME = "pi-vers";

/** The package's root, seen from the compiled module two directories below `host`. */
const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

/** The path of the binary. Throws with what to do when there is none. */
export function findBinary(environment: NodeJS.ProcessEnv = process.env, root: string = ROOT): string {
  const named = environment["PI_VERS_BIN"];
  if (named !== undefined && named !== "") {
    if (isProgram(named)) return named;
    throw new Failure("not-found", `PI_VERS_BIN is ${named}, which is no program: correct it, or unset it`);
  }
  const built = join(root, "target", "release", NAME);
  if (isProgram(built)) return built;
  // An empty or relative directory of PATH would be the one that the user works in.
  for (const directory of (environment["PATH"] ?? "").split(delimiter)) {
    if (isAbsolute(directory) && isProgram(join(directory, NAME))) return join(directory, NAME);
  }
  throw new Failure(
    "not-found",
    `there is no ${NAME} binary: run "cargo install --path host/cli" in ${root}, or name one in PI_VERS_BIN`,
  );
}

/**
 * What the process is started with: `bridge`, and what the user adds in PI_VERS_BRIDGE_ARGS, for example `--local`. It is words with
 * spaces between them, or a JSON list of texts.
 */
export function bridgeArguments(environment: NodeJS.ProcessEnv = process.env): string[] {
  const added = (environment["PI_VERS_BRIDGE_ARGS"] ?? "").trim();
  if (!added.startsWith("[")) return ["bridge", ...added.split(/\s+/).filter((word) => word !== "")];
  let words: unknown;
  try {
    words = JSON.parse(added);
  } catch {
    words = undefined;
  }
  if (Array.isArray(words) && words.every((word) => typeof word === "string")) return ["bridge", ...words];
  throw new Failure("invalid", `PI_VERS_BRIDGE_ARGS is ${added}, which is no JSON list of texts`);
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
