/**
 * Stand-ins for the harnesses: what the shim uses of them, behaving as each does.
 *
 * `punkin-pi` can't be installed, so its ways are all here: answers of `read` and of a `bash` that only reads from a cache,
 * even for replaced tools; tools that come late are ignored; observers are not waited for, and what is stored comes in the order in
 * which they are done; a number flag's value is ignored; the second extension with a name that is taken is dropped.
 */
import type { Api, Command, Component, Context, Entry, Event, Message, Tool, ToolOutput } from "../src/pi.mjs";

export type Kind = "punkin-pi" | "pi-0.73" | "pi-0.87";

export interface Dialog {
  method: string;
  title: string;
  options?: string[];
  signal?: AbortSignal | undefined;
}

type Handler = (event: Event, context: Context) => unknown;

const BUILT_IN = ["read", "bash", "edit", "write", "grep", "find", "ls"];

/** One load of the harness; what extensions have registered, and what came of it. */
export class StandIn {
  readonly kind: Kind;
  readonly handlers = new Map<string, Handler[]>();
  readonly tools = new Map<string, Tool>();
  readonly commands = new Map<string, Command>();
  readonly shortcuts = new Map<string, { handler(context: Context): Promise<void> | void }>();
  readonly flags = new Map<string, { type: string; default?: unknown }>();
  readonly renderers = new Map<string, (message: { content: unknown; details?: unknown }) => Component | undefined>();
  readonly notices: string[] = [];
  readonly statuses = new Map<string, string | undefined>();
  readonly widgets = new Map<string, string[] | undefined>();
  readonly dialogs: Dialog[] = [];
  readonly sent: { message: Message; options: unknown }[] = [];
  readonly said: { content: unknown; options: unknown }[] = [];
  readonly entries: Entry[] = [];
  readonly stored: string[] = [];
  readonly cache = new Map<string, ToolOutput>();
  readonly loaded = new Map<string, { tools: string[] }>();
  readonly errors: string[] = [];
  /** Answers dialogs; without it they stay open. */
  answer: ((dialog: Dialog) => unknown) | undefined;
  sessionId = "session-1";
  hasUI = true;
  idle = true;
  active: string[];
  commandLine: Record<string, string | boolean> = {};
  #loading = false;
  #bus = new Map<string, Set<(data: unknown) => void>>();
  readonly bus = {
    emit: (channel: string, data: unknown) => this.#bus.get(channel)?.forEach((handler) => handler(data)),
    on: (channel: string, handler: (data: unknown) => void) => {
      const handlers = this.#bus.get(channel) ?? new Set();
      this.#bus.set(channel, handlers.add(handler));
      return () => handlers.delete(handler);
    },
  };

  constructor(kind: Kind) {
    this.kind = kind;
    this.active = kind === "punkin-pi" ? [...BUILT_IN] : ["read", "bash", "edit", "write"];
  }

  /** Loads an extension, as each harness does it. */
  async load(path: string, factory: (api: Api) => Promise<void>): Promise<void> {
    const offered = new StandIn(this.kind);
    this.#loading = true;
    const api = this.#api(offered);
    await factory(api);
    this.#loading = false;
    const taken = [...offered.tools.keys()].find((name) => this.tools.has(name));
    const flag = [...offered.flags.keys()].find((name) => this.flags.has(name));
    if (taken !== undefined || flag !== undefined) {
      this.errors.push(`${path}: ${taken ?? flag} is taken`);
      if (this.kind !== "punkin-pi") throw new Error(`the harness exits: ${this.errors.at(-1)}`);
      return;
    }
    this.loaded.set(path, { tools: [...offered.tools.keys()] });
    for (const [name, tool] of offered.tools) {
      this.tools.set(name, tool);
      if (!this.active.includes(name)) this.active.push(name);
    }
    for (const [name, command] of offered.commands) this.commands.set(name, command);
    for (const [key, shortcut] of offered.shortcuts) this.shortcuts.set(key, shortcut);
    for (const [name, flag] of offered.flags) this.flags.set(name, flag);
    for (const [event, handlers] of offered.handlers) {
      this.handlers.set(event, [...(this.handlers.get(event) ?? []), ...handlers]);
    }
  }

  /** Forgets what was loaded, as a reload does, after the shutdown event. */
  async unload(reason: string): Promise<void> {
    await this.emit("session_shutdown", { reason });
    for (const registered of [this.handlers, this.tools, this.commands, this.shortcuts, this.flags, this.loaded]) {
      registered.clear();
    }
  }

  /** Emits an event that is answered: one handler after the other; the last answer counts. */
  async emit(event: string, fields: Event = {}): Promise<unknown> {
    let answer: unknown;
    for (const handler of this.handlers.get(event) ?? []) {
      answer = (await handler({ type: event, ...fields }, this.context())) ?? answer;
    }
    return answer;
  }

  /** Emits an event that is only observed, and stores it when its handlers are done. */
  observe(event: string, fields: Event = {}): Promise<void> {
    const handlers = (this.handlers.get(event) ?? []).map((handler) =>
      handler({ type: event, ...fields }, this.context()),
    );
    // No handler's promise: nothing to wait for.
    if (!handlers.some((outcome) => outcome instanceof Promise)) {
      this.stored.push(event);
      return Promise.resolve();
    }
    return Promise.all(handlers).then(() => {
      this.stored.push(event);
    });
  }

  start(reason?: string): Promise<unknown> {
    return this.emit("session_start", this.kind === "punkin-pi" || reason === undefined ? {} : { reason });
  }

  /** A tool call of the model. */
  async call(
    name: string,
    input: Record<string, unknown>,
    options: { signal?: AbortSignal; onUpdate?: (partial: ToolOutput) => void; id?: string } = {},
  ): Promise<{ text: string; isError: boolean; details?: unknown; blocked?: boolean }> {
    const toolCallId = options.id ?? "call-1";
    const verdict = (await this.emit("tool_call", { toolCallId, toolName: name, input })) as
      | { block?: boolean; reason?: string }
      | undefined;
    if (verdict?.block === true) return { text: verdict.reason ?? "", isError: true, blocked: true };
    const tool = this.tools.get(name);
    if (tool === undefined) return { text: `no tool ${name}`, isError: true };
    const pure = name === "read" || (name === "bash" && /^(cat|ls|echo) /.test(String(input["command"])));
    const key = this.kind === "punkin-pi" && pure ? `${name} ${JSON.stringify(input)}` : undefined;
    const cached = key === undefined ? undefined : this.cache.get(key);
    if (cached !== undefined) return { text: `cached: ${text(cached)}`, isError: false };
    try {
      const output = await tool.execute(toolCallId, input, options.signal, options.onUpdate, this.context());
      if (key !== undefined) this.cache.set(key, output);
      // 0.73 and punkin-pi ignore `isError` of what is returned: only a tool that throws has failed.
      await this.emit("tool_result", { toolCallId, toolName: name, input, ...output, isError: false });
      return { text: text(output), isError: false, details: output.details };
    } catch (why) {
      return { text: (why as Error).message, isError: true };
    }
  }

  context(): Context {
    const dialog = (method: string, title: string, more: Partial<Dialog>, dismissed: unknown) =>
      new Promise<never>((done) => {
        const open = { method, title, ...more };
        this.dialogs.push(open);
        open.signal?.addEventListener("abort", () => done(dismissed as never), { once: true });
        if (this.answer !== undefined) done(this.answer(open) as never);
      });
    return {
      hasUI: this.hasUI,
      cwd: "/home/user/project",
      isIdle: () => this.idle,
      sessionManager: { getSessionId: () => this.sessionId, getBranch: () => [...this.entries] },
      ui: {
        select: (title, options, { signal } = {}) => dialog("select", title, { options, signal }, undefined),
        confirm: (title, _message, { signal } = {}) => dialog("confirm", title, { signal }, false),
        input: (title, _placeholder, { signal } = {}) => dialog("input", title, { signal }, undefined),
        editor: (title) => dialog("editor", title, {}, undefined),
        notify: (message, type) => this.notices.push(`${type}: ${message}`),
        setStatus: (key, text) => this.statuses.set(key, text),
        setWidget: (key, lines) => this.widgets.set(key, lines),
        theme: {
          fg: (color, text) => `<${color}>${text}</>`,
          bold: (text) => `<b>${text}</>`,
          strikethrough: (text) => `<s>${text}</>`,
        },
      },
    };
  }

  /** The API of one extension: what it registers is its own until it has loaded. */
  #api(offered: StandIn): Api {
    const late = () => !this.#loading;
    const action = <T,>(done: () => T): T => {
      if (this.#loading) throw new Error("Extension runtime not initialized");
      return done();
    };
    return {
      on: (event, handler) => {
        const handlers = (late() ? this : offered).handlers;
        handlers.set(event, [...(handlers.get(event) ?? []), handler]);
      },
      registerTool: (tool) => {
        if (!late()) offered.tools.set(tool.name, tool);
        else if (this.kind !== "punkin-pi") {
          this.tools.set(tool.name, tool);
          this.active.push(tool.name);
        }
      },
      registerCommand: (name, command) => offered.commands.set(name, command),
      registerShortcut: (key, shortcut) => offered.shortcuts.set(key, shortcut),
      registerFlag: (name, flag) => offered.flags.set(name, flag),
      registerMessageRenderer: (kind, renderer) => {
        const theme = this.context().ui.theme;
        if (theme !== undefined) {
          this.renderers.set(kind, (message) => renderer(message, { expanded: false }, theme));
        }
      },
      getFlag: (name) => {
        const flag = this.flags.get(name) ?? offered.flags.get(name);
        const given = this.commandLine[name];
        if (flag?.type === "number" && this.kind === "punkin-pi") return flag.default;
        return given ?? flag?.default;
      },
      getActiveTools: () => action(() => [...this.active]),
      getAllTools: () => action(() => [...new Set([...BUILT_IN, ...this.tools.keys()])].map((name) => ({ name }))),
      setActiveTools: (names) => action(() => (this.active = [...names])) && undefined,
      sendMessage: (message, options) => action(() => this.sent.push({ message, options })),
      sendUserMessage: (content, options) => action(() => this.said.push({ content, options })),
      appendEntry: (customType, data) => action(() => this.entries.push({ type: "custom", customType, data })) && undefined,
      // Each extension of the newer pi has an object of its own for the bus.
      events: this.kind === "pi-0.87" ? { ...this.bus } : this.bus,
    };
  }
}

function text(output: ToolOutput): string {
  return output.content.map((block) => (block.type === "text" ? block.text : `[${block.mimeType}]`)).join("\n");
}
