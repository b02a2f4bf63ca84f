/**
 * The extension: one `pi-vers bridge` process behind one extension of the harness.
 *
 * To the harness all extensions of pi-vers are one, because it takes two that offer the same name for a fatal error. All is
 * registered before the factory returns: punkin-pi ignores tools that come later.
 */
import { BuiltIns } from "./builtins.mjs";
import { registerCommands, registerShortcuts } from "./commands.mjs";
import { Connection, type Handlers, LIMITS, type Launch, type Limits } from "./connection.mjs";
import { registerEvents } from "./events.mjs";
import { messageOf } from "./failure.mjs";
import { Flags } from "./flags.mjs";
import type { Harness } from "./harness.mjs";
import { Host } from "./host.mjs";
import { Messages } from "./messages.mjs";
import type { Api, Context } from "./pi.mjs";
import type { Ready, StartReason } from "./protocol.mjs";
import { Requests } from "./requests.mjs";
import { Screen } from "./screen.mjs";
import { Session } from "./session.mjs";
import { registerTools } from "./tools.mjs";
import { isObject } from "./wire.mjs";

/** What the harness offers to the model when nobody has chosen. */
const OFFERED = new Set(["bash", "read", "edit", "write"]);

/** For all extensions to start: components that are new are compiled. */
const START = 60_000;

export interface Environment {
  harness: Harness;
  /** Says how the process is started. Throws when it can't be. */
  launch: () => Launch;
  /** Whether standard output is a terminal. */
  terminal: boolean;
  log: (level: string, message: string) => void;
  builtIns?: BuiltIns;
  limits?: Limits;
}

/** Asked on the bus that all extensions of one load share; a bridge that is loaded answers by setting `there`. */
const ROLL_CALL = "pi-vers.roll-call";

/** Set when a bridge has ended in this process: one that is loaded later is reloaded. It outlives the module. */
const ENDED = Symbol.for("pi-vers.ended");
const memory = globalThis as { [ENDED]?: boolean };

/** Loads the extension into the harness. Never throws: a harness that can't have pi-vers works without it. */
export async function load(api: Api, environment: Environment): Promise<void> {
  const call = { there: false };
  api.events?.emit(ROLL_CALL, call);
  if (call.there) {
    // A package may be named twice, in the settings and with -e: the second would clash with the first.
    environment.log("info", "pi-vers is loaded already");
    return;
  }
  const bridge = new Bridge(api, environment, memory[ENDED] === true);
  try {
    await bridge.start();
  } catch (why) {
    bridge.unavailable(messageOf(why));
  }
}

class Bridge {
  readonly #api: Api;
  readonly #environment: Environment;
  readonly #reloaded: boolean;
  readonly #screen: Screen;
  readonly #flags: Flags;
  readonly #session: Session;
  readonly #messages: Messages;
  readonly #builtIns: BuiltIns;
  readonly #requests: Requests;
  readonly #host: Host;
  readonly #subscriptions: (() => void)[] = [];
  readonly #topics = new Set<string>();
  readonly #tools = new Map<string, { replaces: boolean }>();
  #registered = false;
  #emitting = 0;
  #started: { sessionId: string; done: Promise<void> } | undefined;

  constructor(api: Api, environment: Environment, reloaded: boolean) {
    this.#api = api;
    this.#environment = environment;
    this.#reloaded = reloaded;
    this.#screen = new Screen(environment.terminal);
    this.#flags = new Flags(api, (message) => this.#screen.notify(message, "warning"));
    this.#session = new Session(api, this.#flags, this.#screen);
    this.#messages = new Messages(api);
    this.#builtIns = environment.builtIns ?? new BuiltIns(environment.harness);
    this.#requests = new Requests({
      api,
      session: this.#session,
      screen: this.#screen,
      messages: this.#messages,
      builtIns: this.#builtIns,
      emit: (topic, data) => this.#emit(topic, data),
      log: environment.log,
    });
    this.#host = new Host(
      () => this.#open(),
      (connection) => this.#tellStart(connection, "resume"),
    );
  }

  /** Starts the host, and registers what it offers. */
  async start(): Promise<void> {
    const answer = this.#api.events?.on(ROLL_CALL, (call) => {
      if (isObject(call)) call["there"] = true;
    });
    if (answer !== undefined) this.#subscriptions.push(answer);
    await this.#host.start();
    this.#registerLife();
  }

  /** What the user hears when there is no host. */
  unavailable(why: string): void {
    const message = `pi-vers is not available: ${why}`;
    if (this.#environment.terminal) this.#environment.log("error", message);
    this.#screen.notify(message, "error");
    this.#api.on("session_start", (_event, context) => this.#screen.use(context));
    this.#unsubscribe();
  }

  async #open(): Promise<Connection> {
    const { harness, launch, limits } = this.#environment;
    const handlers: Handlers = {
      request: (request, scope, connection) =>
        this.#requests.answer(request.method, request.params, scope, (partial) => {
          connection.tell({ t: "update", id: request.id, content: partial.content, details: partial.details ?? null });
        }),
      notice: (method, params) => this.#requests.notice(method, params),
      died: (why) => this.#died(why.message),
    };
    const starting = launch();
    const hello = {
      cwd: starting.cwd,
      harness: { kind: harness.kind, version: harness.version },
      builtIns: await this.#builtIns.names(),
    };
    const { connection, ready } = await Connection.open(starting, hello, handlers, limits ?? LIMITS);
    this.#register(ready);
    return connection;
  }

  #died(why: string): void {
    this.#screen.clear();
    this.#screen.notify(`${why}. It is started again when it is next used; an active VM stays chosen.`, "error");
  }

  /** Registers what is new: all of it at first, and what a host of another version adds when it takes the place of a dead one. */
  #register(ready: Ready): void {
    const first = !this.#registered;
    const tools = ready.tools.filter((tool) => !this.#tools.has(tool.name));
    const connect = (context: Context) => this.#connect(context);
    if (!first && (tools.length === 0 || !this.#environment.harness.lateTools)) {
      if (tools.length > 0) this.#screen.notify("pi-vers has new tools: say /reload to have them", "info");
      return;
    }
    for (const tool of tools) this.#tools.set(tool.name, { replaces: tool.replaces });
    registerTools(this.#api, tools, connect);
    if (!first) return;
    this.#registered = true;
    const live = () => this.#host.live;
    const { asyncCompletions, cachesReads } = this.#environment.harness;
    this.#flags.register(ready.flags);
    registerCommands(this.#api, ready.commands, { connect, live, asyncCompletions });
    registerShortcuts(this.#api, ready.shortcuts, connect);
    registerEvents(this.#api, ready.events, {
      connect,
      live: () => this.#synced(),
      messages: this.#messages,
      extensions: ready.extensions.length,
      uncached: (tool) => cachesReads && this.#tools.get(tool)?.replaces === true,
      log: this.#environment.log,
    });
    for (const topic of ready.topics) this.#subscribe(topic);
  }

  /** The connection, which knows how the session is. */
  async #connect(context: Context): Promise<Connection> {
    this.#session.saw(context);
    const connection = this.#host.live ?? (await this.#host.connected());
    this.#session.sync(connection);
    return connection;
  }

  #synced(): Connection | undefined {
    const connection = this.#host.live;
    if (connection !== undefined) this.#session.sync(connection);
    return connection;
  }

  #registerLife(): void {
    const api = this.#api;
    api.on("session_start", (event, context) => this.#begin(reasonOf(event["reason"], this.#reloaded), context));
    // punkin-pi goes on with the same extension when the user changes the session.
    api.on("session_switch", (event, context) =>
      this.#begin(event["reason"] === "resume" ? "resume" : "startup", context),
    );
    api.on("session_fork", (_event, context) => this.#begin("fork", context));
    api.on("session_shutdown", (event) => this.#end(String(event["reason"] ?? "quit")));
    for (const event of ["agent_start", "agent_end", "agent_settled", "model_select", "session_tree"]) {
      api.on(event, (_event, context) => {
        this.#session.saw(context);
        this.#synced();
        // The harness counts as busy until the handlers of its last event have returned.
        if (event === "agent_end") setTimeout(() => this.#synced(), 0).unref();
      });
    }
  }

  /** Starts the session's extensions; once, though in RPC mode the harness says twice that it starts. */
  #begin(reason: StartReason, context: Context): Promise<void> {
    this.#session.saw(context);
    const sessionId = context.sessionManager.getSessionId();
    if (this.#started?.sessionId === sessionId) return this.#started.done;
    const done = this.#startSession(reason, context);
    this.#started = { sessionId, done };
    return done;
  }

  async #startSession(reason: StartReason, context: Context): Promise<void> {
    this.#offer();
    this.#messages.remember(context);
    this.#screen.restore();
    try {
      const live = this.#host.live;
      if (live !== undefined) await this.#tellStart(live, reason);
      // One that replaces a dead one is told that the session goes on.
      else await this.#host.connected();
    } catch (why) {
      this.#screen.notify(`pi-vers: ${messageOf(why)}`, "error");
    }
  }

  async #tellStart(connection: Connection, reason: StartReason): Promise<void> {
    this.#session.sync(connection);
    if (this.#session.context === undefined) return;
    try {
      await connection.ask({ t: "start", reason }, { context: this.#session.context, limit: START });
    } catch (why) {
      if (!connection.alive) throw why;
      this.#screen.notify(`pi-vers: ${messageOf(why)}`, "error");
    }
  }

  /**
   * pi offers the model every tool that an extension registers, so replacing `grep` would also switch it on. Those that pi does not
   * offer by itself are switched off again, unless the user has said which tools there are.
   */
  #offer(): void {
    if (!this.#environment.harness.activatesReplacements) return;
    const all = new Set(this.#api.getAllTools().map((tool) => tool.name));
    if ([...this.#tools.keys()].some((name) => !all.has(name))) return;
    const active = this.#api.getActiveTools();
    const wanted = active.filter((name) => this.#tools.get(name)?.replaces !== true || OFFERED.has(name));
    if (wanted.length < active.length) this.#api.setActiveTools(wanted);
  }

  async #end(reason: string): Promise<void> {
    this.#unsubscribe();
    await this.#host.close(reason);
    memory[ENDED] = true;
    this.#session.forget();
  }

  #unsubscribe(): void {
    for (const unsubscribe of this.#subscriptions.splice(0)) unsubscribe();
  }

  #subscribe(topic: string): void {
    const bus = this.#api.events;
    if (bus === undefined || this.#topics.has(topic)) return;
    this.#topics.add(topic);
    this.#subscriptions.push(
      bus.on(topic, (data) => {
        // What the host itself has said it need not hear.
        if (this.#emitting > 0) return;
        try {
          this.#synced()?.tell({ t: "bus", topic, data: data ?? null });
        } catch (why) {
          this.#environment.log("warning", `${topic}: ${messageOf(why)}`);
        }
      }),
    );
  }

  #emit(topic: string, data: unknown): void {
    this.#emitting++;
    try {
      this.#api.events?.emit(topic, data);
    } finally {
      this.#emitting--;
    }
  }
}

/** The protocol has fewer reasons: a new session starts like the first. */
function reasonOf(reason: unknown, reloaded: boolean): StartReason {
  if (reason === "reload" || reason === "resume" || reason === "fork") return reason;
  return reason === undefined && reloaded ? "reload" : "startup";
}
