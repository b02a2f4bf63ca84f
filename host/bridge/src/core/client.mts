/** The client of the Vers platform that the TypeScript pi-vers had, over `pi-vers core`. */
import { constants } from "node:os";
import { findBinary } from "../binary.mjs";
import { Channel, type RequestOptions, VersError } from "./channel.mjs";

export interface VersClientOptions {
  /** Otherwise VERS_API_KEY, otherwise the files of the Vers tools. */
  apiKey?: string;
  /** Otherwise VERS_BASE_URL, otherwise the cloud's; with or without `/api/v1`. */
  baseURL?: string;
}

export interface VmConfig {
  vcpu_count?: number;
  mem_size_mib?: number;
  fs_size_mib?: number;
  labels?: Record<string, string>;
}

export interface Vm {
  vm_id: string;
  owner_id: string;
  state: string;
  created_at: string;
  labels?: Record<string, string>;
}

export interface NewVmResponse {
  vm_id: string;
}

export interface VmDeleteResponse {
  vm_id: string;
}

export interface VmCommitResponse {
  commit_id: string;
}

/** What the platform gives for a VM; here the key stays in the host, see {@link VersClient.ensureKeyFile}. */
export interface VmSSHKeyResponse {
  ssh_port: number;
  ssh_private_key: string;
}

export interface ExecResult {
  stdout: string;
  stderr: string;
  exitCode: number;
}

export interface ExecStreamingOptions {
  onData: (data: Buffer) => void;
  signal?: AbortSignal;
  /** Seconds; none: as long as it takes. */
  timeout?: number;
}

export interface Page {
  limit?: number;
  offset?: number;
}

export interface Commits {
  commits: Record<string, unknown>[];
  total: number;
}

/** What a process is started with; a change of it needs another process. */
const VARIABLES = ["VERS_API_KEY", "VERS_BASE_URL", "VERS_HOME", "HOME"] as const;

/** At most so many, for so many settings; the oldest ends when it has answered. */
const PROCESSES = 4;

const channels = new Map<string, Channel>();

/** The process for these settings: one for all clients that have them. */
function channel(options: VersClientOptions): Channel {
  const environment: NodeJS.ProcessEnv = { ...process.env };
  if (options.apiKey !== undefined && options.apiKey !== "") environment["VERS_API_KEY"] = options.apiKey;
  if (options.baseURL !== undefined && options.baseURL !== "") environment["VERS_BASE_URL"] = options.baseURL;
  const settings = JSON.stringify(VARIABLES.map((name) => environment[name] ?? null));
  const there = channels.get(settings);
  if (there?.alive === true) return there;
  channels.delete(settings);
  const made = new Channel(findBinary(), environment);
  for (const [oldest, channel] of channels) {
    if (channels.size < PROCESSES) break;
    channels.delete(oldest);
    void channel.finish();
  }
  channels.set(settings, made);
  return made;
}

/** Asks `pi-vers core`. */
export function request(
  options: VersClientOptions,
  method: string,
  params: Record<string, unknown> = {},
  more: RequestOptions = {},
): Promise<unknown> {
  const given = Object.entries(params).filter(([, value]) => value !== undefined);
  try {
    return channel(options).request(method, Object.fromEntries(given), more);
  } catch (why) {
    return Promise.reject(why instanceof Error ? why : new Error(String(why)));
  }
}

export class VersClient {
  readonly #options: VersClientOptions;

  constructor(options: VersClientOptions = {}) {
    this.#options = options;
  }

  /** What it was made with. */
  get options(): VersClientOptions {
    return this.#options;
  }

  async list(): Promise<Vm[]> {
    return (await this.#ask("listVms")) as Vm[];
  }

  async createRoot(config: VmConfig = {}, waitBoot = false): Promise<NewVmResponse> {
    return (await this.#ask("createRoot", { config, waitBoot })) as NewVmResponse;
  }

  async restoreFromCommit(commitId: string): Promise<NewVmResponse> {
    return (await this.#ask("restoreFromCommit", { commitId })) as NewVmResponse;
  }

  async branch(vmId: string, count?: number): Promise<NewVmResponse & { vms: NewVmResponse[] }> {
    return (await this.#ask("branch", { vmId, count })) as NewVmResponse & { vms: NewVmResponse[] };
  }

  async commit(vmId: string, keepPaused = false): Promise<VmCommitResponse> {
    return (await this.#ask("commit", { vmId, keepPaused })) as VmCommitResponse;
  }

  async delete(vmId: string): Promise<VmDeleteResponse> {
    return (await this.#ask("delete", { vmId })) as VmDeleteResponse;
  }

  /** For example `running`. */
  async getState(vmId: string): Promise<string> {
    return (await this.#ask("getState", { vmId })) as string;
  }

  async updateState(vmId: string, state: "Paused" | "Running"): Promise<void> {
    await this.#ask("updateState", { vmId, state });
  }

  async resizeDisk(vmId: string, fsSizeMib: number): Promise<void> {
    await this.#ask("resizeDisk", { vmId, fsSizeMib });
  }

  async listCommits(page: Page = {}): Promise<Commits> {
    return (await this.#ask("listCommits", { ...page })) as Commits;
  }

  async listPublicCommits(page: Page = {}): Promise<Commits> {
    return (await this.#ask("listPublicCommits", { ...page })) as Commits;
  }

  async setCommitPublic(commitId: string, isPublic: boolean): Promise<void> {
    await this.#ask("setCommitPublic", { commitId, isPublic });
  }

  /** Runs a command; a command that fails is a result. At most 300 s, each output at most 10 MiB. */
  async exec(vmId: string, command: string): Promise<ExecResult> {
    return result(await this.#ask("exec", { vmId, command }));
  }

  /** Runs a script with bash. Rejects when it fails. */
  async execScript(vmId: string, script: string): Promise<ExecResult> {
    return result(await this.#ask("execScript", { vmId, script }));
  }

  /**
   * Runs a command and hands over both outputs as they come. Rejects with `aborted`, or `timeout:` and the seconds, when the
   * command has been stopped; without an exit code a signal has ended it.
   */
  async execStreaming(
    vmId: string,
    command: string,
    options: ExecStreamingOptions,
  ): Promise<{ exitCode: number | null }> {
    const timeoutMs = options.timeout === undefined || options.timeout <= 0 ? undefined : options.timeout * 1000;
    const more = { signal: options.signal, onData: (_stream: string, data: Buffer) => options.onData(data) };
    try {
      const ended = (await this.#ask("execStreaming", { vmId, command, timeoutMs }, more)) as Partial<ExecResult>;
      return { exitCode: ended.exitCode ?? null };
    } catch (why) {
      if (why instanceof VersError && options.signal?.aborted === true && why.kind === "cancelled") {
        throw new Error("aborted");
      }
      if (why instanceof VersError && timeoutMs !== undefined && why.kind === "timed-out") {
        throw new Error(`timeout:${options.timeout}`);
      }
      throw why;
    }
  }

  /** Copies a directory, without what is built or fetched: `.git`, `node_modules`, `dist`, `out`, `coverage`, `data`. */
  async uploadDirectory(vmId: string, localDir: string, remoteDir: string): Promise<void> {
    await this.#ask("uploadDirectory", { vmId, localDir, remoteDir });
  }

  /** The path of a file with the VM's key, readable by its owner alone. */
  async ensureKeyFile(vmId: string): Promise<string> {
    return (await this.#ask("ensureKeyFile", { vmId })) as string;
  }

  /** What `ssh` is given before the command; the last one is `root@` and the host. */
  async sshArgs(vmId: string): Promise<string[]> {
    return (await this.#ask("sshArgs", { vmId })) as string[];
  }

  async #ask(method: string, params?: Record<string, unknown>, more?: RequestOptions): Promise<unknown> {
    try {
      return await request(this.#options, method, params, more);
    } catch (why) {
      throw asBefore(why, method, params);
    }
  }
}

/** What the platform is asked for a method. Programs have read this in the texts of errors. */
const ENDPOINTS: Record<string, string> = {
  listVms: "GET /vms",
  createRoot: "POST /vm/new_root",
  restoreFromCommit: "POST /vm/from_commit",
  branch: "POST /vm/{vmId}/branch",
  commit: "POST /vm/{vmId}/commit",
  delete: "DELETE /vm/{vmId}",
  getState: "GET /vm/{vmId}/status",
  updateState: "PATCH /vm/{vmId}/state",
  resizeDisk: "PATCH /vm/{vmId}/disk",
  listCommits: "GET /commits",
  listPublicCommits: "GET /commits/public",
  setCommitPublic: "PATCH /commits/{commitId}",
};

/** The text that an answer of the platform had as an error: `Vers API GET /vms failed (500): …`. */
function asBefore(why: unknown, method: string, params: Record<string, unknown> = {}): unknown {
  const endpoint = ENDPOINTS[method];
  if (!(why instanceof VersError) || why.status === undefined || endpoint === undefined) return why;
  const asked = endpoint.replace(/\{(\w+)\}/, (_, name: string) => String(params[name]));
  return new VersError(why.kind, `Vers API ${asked} failed (${why.status}): ${why.message}`, why.status);
}

/** A command that a signal has ended has no exit code; what shells make of that is what callers compare with. */
function result(ended: unknown): ExecResult {
  const { stdout, stderr, exitCode, signal } = ended as Partial<ExecResult> & { signal?: string };
  const number = constants.signals[`SIG${(signal ?? "KILL").replace(/^SIG/, "")}` as NodeJS.Signals];
  return { stdout: stdout ?? "", stderr: stderr ?? "", exitCode: exitCode ?? 128 + (number ?? 0) };
}
