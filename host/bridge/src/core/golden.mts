/** Which commit new agents' VMs are made from. */
import { messageOf } from "../failure.mjs";
import { isObject } from "../wire.mjs";

export interface ResolveGoldenCommitOptions {
  commitId?: string | undefined;
  env?: NodeJS.ProcessEnv;
  infraUrl?: string | undefined;
  authToken?: string | undefined;
  fetchImpl?: typeof fetch;
  /** Builds one where there is none. That takes minutes. */
  ensure?: boolean;
}

export interface ResolveGoldenCommitResult {
  commitId: string;
  source: "explicit" | "env" | "reef-commits" | "reef-registry" | "reef-ensure";
}

/** For a look-up. */
const LOOK_UP = 10_000;
/** For building an image. */
const BUILD = 30 * 60_000;

/** Looks where the options, the environment and reef say it is, in this order. Rejects when it is nowhere. */
export async function resolveGoldenCommit(
  options: ResolveGoldenCommitOptions = {},
): Promise<ResolveGoldenCommitResult> {
  const env = options.env ?? process.env;
  const explicit = options.commitId?.trim();
  if (explicit !== undefined && explicit !== "") return { commitId: explicit, source: "explicit" };
  const named = env["VERS_GOLDEN_COMMIT_ID"]?.trim() || env["VERS_COMMIT_ID"]?.trim();
  if (named !== undefined && named !== "") return { commitId: named, source: "env" };

  const reef = new Reef(options, env);
  const current = commitOf(await reef.ask("GET", "/commits/current/golden", LOOK_UP));
  if (current !== undefined) return { commitId: current, source: "reef-commits" };
  const registry = await reef.ask("GET", "/registry/vms?role=golden", LOOK_UP);
  const vms = isObject(registry) && Array.isArray(registry["vms"]) ? (registry["vms"] as unknown[]) : [];
  const [first] = vms;
  const registered = isObject(first) ? commitOf(first["metadata"]) : undefined;
  if (registered !== undefined) return { commitId: registered, source: "reef-registry" };
  if (options.ensure === true) {
    const built = commitOf(await reef.ask("POST", "/commits/ensure-golden", BUILD));
    if (built !== undefined) return { commitId: built, source: "reef-ensure" };
  }
  const why = reef.refusals.length === 0 ? "" : ` (${reef.refusals.join("; ")})`;
  throw new Error(
    "No golden commit available. Pass commitId explicitly, set VERS_GOLDEN_COMMIT_ID/VERS_COMMIT_ID, or configure a Reef root with /commits/ensure-golden." +
      why,
  );
}

/** The binary of the agent: PI_PATH, PUNKIN_BIN, or `pi`. */
export function resolveAgentBinary(env: NodeJS.ProcessEnv = process.env): string {
  return env["PI_PATH"]?.trim() || env["PUNKIN_BIN"]?.trim() || "pi";
}

class Reef {
  /** What went wrong, a line each. */
  readonly refusals: string[] = [];
  readonly #url: string;
  readonly #headers: Record<string, string>;
  readonly #fetch: typeof fetch;

  constructor(options: ResolveGoldenCommitOptions, env: NodeJS.ProcessEnv) {
    const port = env["PORT"]?.trim() || "3000";
    const vm = env["VERS_VM_ID"]?.trim();
    const derived = vm === undefined || vm === "" ? `http://127.0.0.1:${port}` : `https://${vm}.vm.vers.sh:${port}`;
    this.#url = (options.infraUrl?.trim() || env["VERS_INFRA_URL"]?.trim() || derived).replace(/\/+$/, "");
    const token = options.authToken?.trim() || env["VERS_AUTH_TOKEN"]?.trim();
    this.#headers = token === undefined || token === "" ? {} : { authorization: `Bearer ${token}` };
    this.#fetch = options.fetchImpl ?? fetch;
  }

  /** The JSON of the answer; none when reef has none. */
  async ask(method: "GET" | "POST", path: string, limit: number): Promise<unknown> {
    try {
      const response = await this.#fetch(`${this.#url}${path}`, {
        method,
        headers: method === "POST" ? { ...this.#headers, "content-type": "application/json" } : this.#headers,
        signal: AbortSignal.timeout(limit),
        ...(method === "POST" ? { body: "{}" } : {}),
      });
      if (response.ok) return await response.json();
      this.refusals.push(`${path}: ${response.status}`);
    } catch (why) {
      this.refusals.push(`${path}: ${messageOf(why)}`);
    }
    return undefined;
  }
}

function commitOf(value: unknown): string | undefined {
  const id = isObject(value) ? value["commitId"] : undefined;
  return typeof id === "string" && id !== "" ? id : undefined;
}
