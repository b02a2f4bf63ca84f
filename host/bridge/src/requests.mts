/**
 * What the host asks of the harness, and tells it.
 *
 * Which extension may ask for what is the host's business (its policy); here is only how it is done.
 */
import type { BuiltIns } from "./builtins.mjs";
import type { Scope } from "./connection.mjs";
import { Failure, messageOf } from "./failure.mjs";
import { type CustomMessage, type Messages, plain } from "./messages.mjs";
import type { Api, Context, DeliverAs, DialogOptions, OnUpdate } from "./pi.mjs";
import type { Content, Delivery, Line, Severity } from "./protocol.mjs";
import type { Screen } from "./screen.mjs";
import type { Session } from "./session.mjs";

type Params = Record<string, unknown>;

const DELIVERIES: Record<Delivery, DeliverAs> = {
  steer: "steer",
  "follow-up": "followUp",
  "next-turn": "nextTurn",
};

export class Requests {
  readonly #api: Api;
  readonly #session: Session;
  readonly #screen: Screen;
  readonly #messages: Messages;
  readonly #builtIns: BuiltIns;
  readonly #emit: (topic: string, data: unknown) => void;
  readonly #log: (level: string, message: string) => void;

  constructor(parts: {
    api: Api;
    session: Session;
    screen: Screen;
    messages: Messages;
    builtIns: BuiltIns;
    emit: (topic: string, data: unknown) => void;
    log: (level: string, message: string) => void;
  }) {
    this.#api = parts.api;
    this.#session = parts.session;
    this.#screen = parts.screen;
    this.#messages = parts.messages;
    this.#builtIns = parts.builtIns;
    this.#emit = parts.emit;
    this.#log = parts.log;
  }

  /** Answers a request; `onUpdate` is for news of a built-in. */
  async answer(method: string, params: Params, scope: Scope, onUpdate: OnUpdate): Promise<unknown> {
    const context = scope.context ?? this.#session.context;
    if (context === undefined) throw new Failure("unavailable", "the session has not started, or has ended");
    if (method.startsWith("ui.")) return this.#dialog(method, params, context, scope.signal);
    switch (method) {
      case "session.sendMessage":
        this.#api.sendMessage(this.#messages.made(params as unknown as CustomMessage), {
          deliverAs: deliveryOf(params),
          triggerTurn: params["triggerTurn"] === true,
        });
        return null;
      case "session.sendUserMessage": {
        const deliverAs = deliveryOf(params);
        // The harness has no "with the next turn" for words of the user: they are the next turn.
        this.#api.sendUserMessage(plain(contentOf(params)), {
          deliverAs: deliverAs === "steer" ? "steer" : "followUp",
        });
        return null;
      }
      case "session.appendEntry":
        this.#api.appendEntry(kindOf(textOf(params, "extension"), textOf(params, "kind")), params["data"]);
        return null;
      case "session.entries":
        return entries(context, textOf(params, "extension"), params["kind"]);
      case "session.setActiveTools": {
        const names = params["names"];
        if (!Array.isArray(names)) throw missing("names");
        this.#api.setActiveTools(names.map(String));
        return this.#api.getActiveTools();
      }
      case "builtIn":
        return this.#builtIns.run(
          textOf(params, "tool"),
          params["arguments"],
          scope.signal ?? new AbortController().signal,
          onUpdate,
          context,
        );
      default:
        throw new Failure("not-found", `this shim has no ${method}: it is older than the host`);
    }
  }

  /** Does what nobody waits for. */
  notice(method: string, params: Params): void {
    switch (method) {
      case "ui.notify":
        this.#screen.notify(textOf(params, "message"), (params["severity"] as Severity | undefined) ?? "info");
        return;
      case "ui.status":
        this.#screen.status(textOf(params, "key"), (params["line"] as Line | null | undefined) ?? undefined);
        return;
      case "ui.widget":
        this.#screen.widget(textOf(params, "key"), (params["lines"] as Line[] | null | undefined) ?? undefined);
        return;
      case "bus":
        this.#emit(textOf(params, "topic"), params["data"]);
        return;
      case "log":
        this.#log(String(params["level"] ?? "info"), textOf(params, "message"));
        return;
    }
  }

  async #dialog(method: string, params: Params, context: Context, signal: AbortSignal | undefined): Promise<unknown> {
    const title = textOf(params, "title");
    // In print mode the harness answers every dialog itself, a confirmation with "no": nobody has said that.
    if (!context.hasUI) return null;
    const ui = context.ui;
    const dialog: DialogOptions = {};
    if (signal !== undefined) dialog.signal = signal;
    const limit = params["timeoutMs"];
    if (typeof limit === "number") dialog.timeout = limit;
    switch (method) {
      case "ui.select": {
        const options = params["options"];
        if (!Array.isArray(options)) throw missing("options");
        const labels = distinct(options.map(String));
        const chosen = await ui.select(title, labels, dialog);
        const index = chosen === undefined ? -1 : labels.indexOf(chosen);
        return index < 0 ? null : index;
      }
      case "ui.confirm":
        return ui.confirm(title, String(params["message"] ?? ""), dialog);
      case "ui.input":
        return (await ui.input(title, String(params["placeholder"] ?? ""), dialog)) ?? null;
      case "ui.edit":
        // The harness's editor knows neither a signal nor a time limit: it stays open, and its text is not used.
        return withinLimits(ui.editor(title, String(params["prefill"] ?? "")), dialog);
      default:
        throw new Failure("not-found", `this shim has no ${method}: it is older than the host`);
    }
  }
}

/** The custom type of an extension's entries of one kind. */
export function kindOf(extension: string, kind: string): string {
  return `pi-vers/${extension}/${kind}`;
}

/** The TypeScript extensions wrote theirs under their own name; a session of then goes on. */
function entries(context: Context, extension: string, kind: unknown): unknown[] {
  const wanted = kindOf(extension, typeof kind === "string" ? kind : "");
  const fits = (type: string | undefined) => {
    if (type === undefined) return false;
    if (type === extension && (kind === extension || typeof kind !== "string")) return true;
    return typeof kind === "string" ? type === wanted : type.startsWith(wanted);
  };
  return context.sessionManager
    .getBranch()
    .filter((entry) => entry.type === "custom" && fits(entry.customType))
    .map((entry) => entry.data ?? null);
}

/** The harness tells a choice by its text, so no two may be alike. */
function distinct(options: string[]): string[] {
  const taken = new Set(options);
  const seen = new Set<string>();
  return options.map((option) => {
    let label = option;
    for (let n = 2; seen.has(label); n++) {
      const next = `${option} (${n})`;
      if (!taken.has(next)) label = next;
    }
    seen.add(label);
    return label;
  });
}

async function withinLimits(answer: Promise<string | undefined>, dialog: DialogOptions): Promise<string | null> {
  let timer: NodeJS.Timeout | undefined;
  let onAbort: (() => void) | undefined;
  const dismissed = new Promise<undefined>((dismiss) => {
    onAbort = () => dismiss(undefined);
    if (dialog.signal?.aborted === true) dismiss(undefined);
    dialog.signal?.addEventListener("abort", onAbort, { once: true });
    if (dialog.timeout !== undefined) timer = setTimeout(onAbort, dialog.timeout);
  });
  try {
    return (await Promise.race([answer, dismissed])) ?? null;
  } catch (why) {
    throw new Failure("other", messageOf(why));
  } finally {
    clearTimeout(timer);
    if (onAbort !== undefined) dialog.signal?.removeEventListener("abort", onAbort);
  }
}

function deliveryOf(params: Params): DeliverAs {
  return DELIVERIES[params["delivery"] as Delivery] ?? "followUp";
}

function contentOf(params: Params): Content[] {
  if (!Array.isArray(params["content"])) throw missing("content");
  return params["content"] as Content[];
}

function textOf(params: Params, name: string): string {
  const value = params[name];
  if (typeof value !== "string") throw missing(name);
  return value;
}

function missing(name: string): Failure {
  return new Failure("invalid", `${name} is missing, or is of another type`);
}
