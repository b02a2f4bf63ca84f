/** The key of the Vers tools: where it is kept, and where a program gets it from. */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { isObject } from "../wire.mjs";
import { type VersClientOptions, request } from "./client.mjs";

/** The key in the files of the Vers tools, or an empty text. Read anew each time. */
export function loadVersKeyFromDisk(environment: NodeJS.ProcessEnv = process.env): string {
  const home = environment["HOME"] || environment["USERPROFILE"] || homedir();
  const named = environment["VERS_HOME"];
  const versHome =
    named === undefined || named === "" ? join(home, ".pi", "vers") : resolve(named.replace(/^~(?=\/|$)/, home));
  for (const directory of [versHome, join(home, ".vers")]) {
    const { keys } = read(join(directory, "keys.json"));
    const config = read(join(directory, "config.json"));
    const found = [isObject(keys) ? keys["VERS_API_KEY"] : undefined, config["versApiKey"], config["api_key"]];
    const key = found.find((key) => typeof key === "string" && key.trim() !== "");
    if (typeof key === "string") return key.trim();
  }
  return "";
}

/** The key that requests are made with. Rejects with what to do when there is none. */
export async function ensureVersApiKey(options: VersClientOptions = {}): Promise<string> {
  return (await request(options, "ensureVersApiKey")) as string;
}

function read(path: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(readFileSync(path, "utf8"));
    return isObject(value) ? value : {};
  } catch {
    return {};
  }
}
