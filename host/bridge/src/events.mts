/**
 * The harness's events, for extensions that want them.
 *
 * An event that can be answered is awaited. All others must not be: in punkin-pi a handler that takes its time reorders
 * the session's events and what is stored of them, and in pi it holds up the agent.
 *
 * `tool-call` is how an extension blocks a tool, so it fails closed: when the host can't be asked, the tool does not
 * run. Everything else goes on as if nobody had answered.
 */
import type { Connection } from "./connection.mjs";
import { messageOf } from "./failure.mjs";
import type { CustomMessage, Messages } from "./messages.mjs";
import type { Api, Context, Event } from "./pi.mjs";
import type { Content, ToolResult } from "./protocol.mjs";
import { type Connect, UNCACHED, uncache } from "./tools.mjs";
import { isObject } from "./wire.mjs";

/** For an answer: the host gives each extension ten seconds. */
const LIMIT = 60_000;

type Reaction = Record<string, unknown>;

export interface EventParts {
  connect: Connect;
  live: () => Connection | undefined;
  messages: Messages;
  /** How many messages may be wanted before the agent starts. */
  extensions: number;
  /** The host's tools whose calls the harness would answer from its cache. */
  uncached: (tool: string) => boolean;
  log: (level: string, message: string) => void;
}

/** How one event is told, and what is made of the reaction. */
interface Answered {
  event: string;
  data: (event: Event) => unknown;
  react: (reaction: Reaction, event: Event) => unknown;
}

interface Observed {
  event: string;
  data: (event: Event) => unknown;
}

const ANSWERED: Record<string, Answered> = {
  "tool-result": {
    event: "tool_result",
    data: (event) => ({
      callId: event["toolCallId"],
      tool: event["toolName"],
      arguments: event["input"],
      result: { content: event["content"], details: event["details"] ?? null, isError: event["isError"] === true },
    }),
    react: ({ result }) => {
      if (!isObject(result)) return undefined;
      const { content, details, isError } = result as unknown as ToolResult;
      return { content, details: details ?? {}, isError };
    },
  },
  input: {
    event: "input",
    data: (event) => ({ text: event["text"] }),
    react: ({ text, handled }, event) => {
      if (handled === true) return { action: "handled" };
      return typeof text === "string" ? { action: "transform", text, images: event["images"] } : { action: "continue" };
    },
  },
  "user-bash": {
    event: "user_bash",
    data: (event) => ({ command: event["command"] }),
    react: ({ bash }) => {
      if (!isObject(bash)) return undefined;
      return {
        result: {
          output: String(bash["output"] ?? ""),
          exitCode: bash["exitCode"] ?? undefined,
          cancelled: false,
          truncated: bash["truncated"] === true,
        },
      };
    },
  },
  context: {
    event: "context",
    data: (event) => ({ messages: event["messages"] }),
    react: ({ messages }) => (Array.isArray(messages) ? { messages } : undefined),
  },
};

const OBSERVED: Record<string, Observed> = {
  "agent-start": { event: "agent_start", data: () => null },
  "agent-end": { event: "agent_end", data: (event) => ({ messages: event["messages"] }) },
  "turn-start": { event: "turn_start", data: (event) => ({ index: event["turnIndex"] }) },
  "turn-end": { event: "turn_end", data: (event) => ({ message: event["message"] }) },
  "model-select": { event: "model_select", data: (event) => modelOf(event["model"]) },
};

/** Events of the harness that this module or the session's life deals with. */
const OWN = new Set(["tool_call", "before_agent_start", "session_start", "session_shutdown"]);

/** Subscribes to what the host wants of the harness's events. */
export function registerEvents(api: Api, wanted: string[], parts: EventParts): void {
  const names = new Set(wanted);
  registerToolCall(api, names.has("tool-call"), parts);
  if (names.has("before-agent-start")) registerBeforeAgentStart(api, parts);
  for (const name of names) {
    const answered = ANSWERED[name];
    const observed = OBSERVED[name];
    if (answered !== undefined) {
      api.on(answered.event, async (event, context) => {
        const reaction = await ask(parts, name, answered.data(event), event, context);
        return reaction === undefined ? undefined : answered.react(reaction, event);
      });
    } else if (observed !== undefined) {
      api.on(observed.event, (event) => {
        tell(parts, name, observed.data(event));
      });
    } else if (name !== "tool-call" && name !== "before-agent-start") {
      registerOther(api, name, parts);
    }
  }
}

function registerToolCall(api: Api, wanted: boolean, parts: EventParts): void {
  let calls = 0;
  api.on("tool_call", async (event, context) => {
    const tool = String(event["toolName"]);
    const input = event["input"];
    if (wanted) {
      let reaction: Reaction;
      try {
        const data = { callId: event["toolCallId"], tool, arguments: input };
        reaction = await answer(parts, "tool-call", data, event, context);
      } catch (why) {
        return { block: true, reason: `pi-vers can't say whether ${tool} may run: ${messageOf(why)}` };
      }
      if (typeof reaction["block"] === "string") return { block: true, reason: reaction["block"] };
      const rewritten = reaction["arguments"];
      if (isObject(rewritten) && isObject(input)) {
        for (const key of Object.keys(input)) delete input[key];
        Object.assign(input, rewritten);
      }
    }
    // The harness looks into its cache after this hook, so a call with a number of its own is always new to it.
    if (isObject(input) && parts.uncached(tool)) input[UNCACHED] = ++calls;
    return undefined;
  });
  // The arguments are the conversation's: no trace stays of the key where the tool did not get to run.
  api.on("tool_result", (event) => uncache(event["input"]));
}

/**
 * The harness takes one message from each handler, and there may be one for each extension: so there are as many handlers.
 * The first asks; each hands over one message, and the last all that are left, joined.
 */
function registerBeforeAgentStart(api: Api, parts: EventParts): void {
  let left: CustomMessage[] = [];
  const handlers = Math.max(1, parts.extensions);
  for (let n = 0; n < handlers; n++) {
    api.on("before_agent_start", async (event, context) => {
      if (n === 0) {
        const reaction = await ask(parts, "before-agent-start", { prompt: event["prompt"] }, event, context);
        const messages = reaction?.["messages"];
        left = Array.isArray(messages) ? (messages as CustomMessage[]) : [];
      }
      const now = n === handlers - 1 ? left : left.slice(0, 1);
      left = left.slice(now.length);
      const [first, ...more] = now;
      if (first === undefined) return undefined;
      const content: Content[] = [...first.content, ...more.flatMap((message) => message.content)];
      return { message: parts.messages.made({ ...first, content }) };
    });
  }
}

/** An event that the protocol has no words for: it goes as the harness has it. */
function registerOther(api: Api, name: string, parts: EventParts): void {
  const event = name.replaceAll("-", "_");
  if (OWN.has(event)) return;
  if (!event.startsWith("session_before_") && event !== "resources_discover") {
    api.on(event, (happened) => {
      tell(parts, name, bare(happened));
    });
    return;
  }
  api.on(event, async (happened, context) => {
    const reaction = await ask(parts, name, bare(happened), happened, context);
    const answers: unknown = reaction?.["other"];
    return Array.isArray(answers) && answers.length > 0 ? Object.assign({}, ...answers.filter(isObject)) : undefined;
  });
}

/** The reaction; none when the host can't be asked. */
async function ask(
  parts: EventParts,
  name: string,
  data: unknown,
  event: Event,
  context: Context,
): Promise<Reaction | undefined> {
  try {
    return await answer(parts, name, data, event, context);
  } catch (why) {
    parts.log("warning", `${name}: ${messageOf(why)}`);
    return undefined;
  }
}

async function answer(
  parts: EventParts,
  name: string,
  data: unknown,
  event: Event,
  context: Context,
): Promise<Reaction> {
  const connection = await parts.connect(context);
  const signal = event["signal"] instanceof AbortSignal ? event["signal"] : undefined;
  const reaction = await connection.ask({ t: "event", name, data }, { context, signal, limit: LIMIT });
  return isObject(reaction) ? reaction : {};
}

/** Tells a host that lives; none is started to be told. */
function tell(parts: EventParts, name: string, data: unknown): void {
  try {
    parts.live()?.tell({ t: "event", name, data });
  } catch (why) {
    parts.log("warning", `${name}: ${messageOf(why)}`);
  }
}

/** What of a model an extension may know: no address, no header, no key. */
function modelOf(model: unknown): Record<string, unknown> | null {
  if (!isObject(model)) return null;
  const { provider, id, name, api, reasoning, input, contextWindow, maxTokens } = model;
  return { provider, id, name, api, reasoning, input, contextWindow, maxTokens };
}

/** The event without what can't be written: signals and functions go, sets become lists. */
function bare(event: Event): unknown {
  const { type: _type, ...fields } = event;
  const text = JSON.stringify(fields, (_key, value: unknown) => {
    if (value instanceof AbortSignal || typeof value === "function") return undefined;
    if (value instanceof Set) return [...value];
    if (value instanceof Map) return Object.fromEntries(value);
    return typeof value === "bigint" ? value.toString() : value;
  });
  return JSON.parse(text);
}
