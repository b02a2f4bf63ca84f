/**
 * The harness's session, as the host is told of it.
 *
 * The host gets a whole snapshot before each frame that may depend on a change: it is made each time, and sent when it
 * differs from the one the host has.
 */
import type { Connection } from "./connection.mjs";
import type { Flags } from "./flags.mjs";
import type { Api, Context } from "./pi.mjs";
import type { Snapshot } from "./protocol.mjs";
import type { Screen } from "./screen.mjs";

export class Session {
  readonly #api: Api;
  readonly #flags: Flags;
  readonly #screen: Screen;
  #context: Context | undefined;

  constructor(api: Api, flags: Flags, screen: Screen) {
    this.#api = api;
    this.#flags = flags;
    this.#screen = screen;
  }

  /** The newest context: for what the host does on its own. */
  get context(): Context | undefined {
    return this.#context;
  }

  /** The harness has called us with this context. */
  saw(context: Context | undefined): void {
    if (context === undefined) return;
    this.#context = context;
    this.#screen.use(context);
  }

  /** Nothing of the harness may be used any more. */
  forget(): void {
    this.#context = undefined;
  }

  /** Tells the host how the session is, if it does not know. */
  sync(connection: Connection): void {
    const snapshot = this.#snapshot();
    if (snapshot === undefined) return;
    const text = JSON.stringify(snapshot);
    if (text === connection.snapshot) return;
    connection.tell({ t: "context", ...snapshot });
    connection.snapshot = text;
  }

  #snapshot(): Snapshot | undefined {
    const context = this.#context;
    if (context === undefined) return undefined;
    try {
      return {
        sessionId: context.sessionManager.getSessionId(),
        cwd: context.cwd,
        interactive: context.hasUI,
        idle: context.isIdle(),
        activeTools: this.#api.getActiveTools(),
        allTools: this.#api.getAllTools().map((tool) => tool.name),
        flags: this.#flags.values(),
      };
    } catch {
      // The session is being replaced, and the harness refuses what belongs to the old one.
      return undefined;
    }
  }
}
