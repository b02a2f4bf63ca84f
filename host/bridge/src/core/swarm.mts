/**
 * Swarms of agents for programs: the tools of the extension `vers-swarm`, over `pi-vers core`.
 *
 * Each manager is a session of its own, and sees its own agents alone. What `getAgents` and its like say is what the last answer said:
 * `refresh` asks again. Nothing here ends an agent but `teardown`.
 */
import { randomUUID } from "node:crypto";
import { isObject } from "../wire.mjs";
import { VersError } from "./channel.mjs";
import { VersClient, request } from "./client.mjs";

export type SwarmAgentStatus = "starting" | "idle" | "working" | "done" | "error" | "ended" | "lost" | "unknown";

export interface SwarmAgent {
  id: string;
  vmId: string;
  status: SwarmAgentStatus;
  task?: string;
}

export interface SwarmSpawnOptions {
  /** Otherwise the golden commit; it is built if there is none. */
  commitId?: string | undefined;
  count: number;
  labels?: string[] | undefined;
  llmProxyKey?: string | undefined;
  model?: string | undefined;
}

export interface SwarmSpawnResult {
  agents: { id: string; vmId: string; status: string }[];
  /** A line for each agent: ready, or why it is not. */
  messages: string[];
}

export interface SwarmWaitResult {
  /** Seconds. */
  elapsed: number;
  timedOut: boolean;
  agents: { id: string; status: SwarmAgentStatus; output: string }[];
}

export interface SwarmManagerOptions {
  /** The session: one of the same name finds the agents of the last time again. */
  session?: string;
}

interface Answer {
  text: string;
  details: Record<string, unknown>;
}

export class SwarmManager {
  readonly session: string;
  readonly #client: VersClient;
  #agents = new Map<string, SwarmAgent>();

  constructor(client: VersClient = new VersClient(), options: SwarmManagerOptions = {}) {
    this.#client = client;
    this.session = options.session ?? randomUUID();
  }

  getAgents(): SwarmAgent[] {
    return [...this.#agents.values()];
  }

  getAgent(id: string): SwarmAgent | undefined {
    return this.#agents.get(id);
  }

  getAgentIds(): string[] {
    return [...this.#agents.keys()];
  }

  agentSummary(): string {
    if (this.#agents.size === 0) return "No agents in swarm.";
    const line = ({ id, status, vmId, task }: SwarmAgent) =>
      `  ${id} [${status}] (${vmId})${task === undefined ? "" : ` — ${task.slice(0, 60)}`}`;
    return [`Swarm (${this.#agents.size} agents):`, ...this.getAgents().map(line)].join("\n");
  }

  /** Asks how the agents are. */
  async refresh(): Promise<SwarmAgent[]> {
    const { details } = await this.#tool("status", {});
    this.#agents = new Map();
    for (const agent of objects(details["agents"])) this.#take(agent);
    return this.getAgents();
  }

  /** Makes agents, side by side. Resolves when each is ready or has failed; rejects when none is ready. */
  async spawn(options: SwarmSpawnOptions, signal?: AbortSignal): Promise<SwarmSpawnResult> {
    const { commitId, count, labels, llmProxyKey, model } = options;
    const key = [llmProxyKey, process.env["LLM_PROXY_KEY"], process.env["ANTHROPIC_API_KEY"]];
    if (!key.some((value) => value !== undefined && value.trim() !== "")) {
      throw new Error("LLM_PROXY_KEY is required to spawn swarm agents.");
    }
    const { text, details } = await this.#tool("spawn", { commitId, count, labels, llmProxyKey, model }, signal);
    const agents = objects(details["agents"]).map((agent) => this.#take(agent));
    const [said = ""] = text.split("\n\n");
    return {
      agents: agents.map(({ id, vmId, status }) => ({ id, vmId, status })),
      messages: said.split("\n").slice(1),
    };
  }

  /** Resolves when the agent has taken the task. */
  async sendTask(id: string, task: string): Promise<void> {
    await this.#tool("task", { agentId: id, task });
    const agent = this.#agents.get(id);
    if (agent !== undefined) this.#agents.set(id, { ...agent, status: "working", task });
  }

  /** Tells a working agent something. */
  async sendMessage(id: string, message: string): Promise<void> {
    await this.#tool("message", { agentId: id, message });
  }

  /**
   * Waits until agents have done what they were told: all, or these. Of each output the last 16 KiB come, of all together 48 KiB;
   * {@link read} has more. An id that there is not has the status `unknown`.
   */
  async wait(agentIds?: string[], timeoutSeconds = 300, signal?: AbortSignal): Promise<SwarmWaitResult> {
    await this.refresh();
    const known = agentIds?.filter((id) => this.#agents.has(id));
    const nobody = known?.length === 0 || this.#agents.size === 0;
    const details = nobody
      ? {}
      : (await this.#tool("wait", { agentIds: known, timeoutSeconds }, signal)).details;
    const agents = objects(details["agents"]).map((agent) => {
      const { id, status } = this.#take(agent);
      return { id, status, output: String(agent["output"] ?? "") };
    });
    const missing = (agentIds ?? []).filter((id) => !this.#agents.has(id));
    for (const id of missing) agents.push({ id, status: "unknown", output: "" });
    return { elapsed: Number(details["elapsed"] ?? 0), timedOut: details["timedOut"] === true, agents };
  }

  /** What an agent said last: all that fits, or the last characters of it. */
  async read(id: string, tail?: number): Promise<string> {
    return (await this.#tool("read", { agentId: id, tail })).text;
  }

  /** Deletes the VMs, a line for each. Rejects while something would be lost that nobody has read, unless it is forced. */
  async teardown(options: { force?: boolean; collect?: Record<string, unknown> } = {}): Promise<string[]> {
    try {
      const { text } = await this.#tool("teardown", { ...options });
      return text.split("\n").slice(1);
    } finally {
      await this.refresh().catch(() => undefined);
    }
  }

  /** Lets go: agents and VMs run on, and a manager of the same session finds them again. */
  async shutdown(): Promise<void> {
    await request(this.#client.options, "endSession", { session: this.session });
    this.#agents = new Map();
  }

  #take(agent: Record<string, unknown>): SwarmAgent {
    const id = String(agent["id"]);
    const before = this.#agents.get(id);
    const task = typeof agent["task"] === "string" ? agent["task"] : before?.task;
    const taken: SwarmAgent = {
      id,
      vmId: String(agent["vmId"] ?? before?.vmId ?? ""),
      status: String(agent["status"] ?? "unknown") as SwarmAgentStatus,
      ...(task === undefined ? {} : { task }),
    };
    this.#agents.set(id, taken);
    return taken;
  }

  async #tool(name: string, given: Record<string, unknown>, signal?: AbortSignal): Promise<Answer> {
    const present = Object.entries(given).filter(([, value]) => value !== undefined);
    const params = { name: `vers_swarm_${name}`, arguments: Object.fromEntries(present), session: this.session };
    const answer = await request(this.#client.options, "tool", params, { signal });
    if (!isObject(answer)) throw new VersError("other", "pi-vers core answered a tool with nothing");
    const details = isObject(answer["details"]) ? answer["details"] : {};
    return { text: String(answer["text"] ?? ""), details };
  }
}

function objects(value: unknown): Record<string, unknown>[] {
  return Array.isArray(value) ? value.filter(isObject) : [];
}
