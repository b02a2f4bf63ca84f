/**
 * What the user sees besides messages: notices, status entries, widgets.
 *
 * The host may speak before the session has started, when there is nobody to show it to: it is kept until then. When the
 * host dies, what it showed is taken away.
 */
import type { Context, Theme, Ui } from "./pi.mjs";
import type { Line, Severity } from "./protocol.mjs";
import { paint, visibleText } from "./styled.mjs";

/** Notices that are kept until somebody can see them. */
const KEPT = 20;

export class Screen {
  readonly #terminal: boolean;
  #ui: Ui | undefined;
  #tui = false;
  #shown = false;
  #kept: { message: string; severity: Severity }[] = [];
  readonly #statuses = new Map<string, Line>();
  readonly #widgets = new Map<string, Line[]>();

  /** `terminal`: whether standard output is one. Without it, texts go to a program, as they are. */
  constructor(terminal: boolean) {
    this.#terminal = terminal;
  }

  /** Looks through this context from now on. */
  use(context: Context): void {
    this.#ui = context.ui;
    this.#shown = context.hasUI;
    this.#tui = context.hasUI && (context.mode === undefined ? this.#terminal : context.mode === "tui");
    const kept = this.#kept;
    this.#kept = [];
    for (const { message, severity } of kept) this.notify(message, severity);
  }

  /** Shows all status entries and widgets again: the session has a new screen. */
  restore(): void {
    for (const [key, line] of this.#statuses) this.#ui?.setStatus(key, paint(line, this.#theme()));
    for (const [key, lines] of this.#widgets) this.#ui?.setWidget(key, this.#paint(lines));
  }

  /** A short notice; on standard error where there is no screen. */
  notify(message: string, severity: Severity): void {
    if (this.#ui === undefined) {
      this.#kept.push({ message, severity });
      if (this.#kept.length > KEPT) this.#kept.shift();
    } else if (this.#shown) {
      this.#ui.notify(visibleText(message), severity);
    } else if (severity !== "info") {
      console.error(`pi-vers: ${visibleText(message)}`);
    }
  }

  status(key: string, line: Line | undefined): void {
    if (line === undefined) this.#statuses.delete(key);
    else this.#statuses.set(key, line);
    this.#ui?.setStatus(key, line === undefined ? undefined : paint(line, this.#theme()));
  }

  widget(key: string, lines: Line[] | undefined): void {
    if (lines === undefined) this.#widgets.delete(key);
    else this.#widgets.set(key, lines);
    this.#ui?.setWidget(key, lines === undefined ? undefined : this.#paint(lines));
  }

  /** Takes away what the host showed. */
  clear(): void {
    for (const key of [...this.#statuses.keys()]) this.status(key, undefined);
    for (const key of [...this.#widgets.keys()]) this.widget(key, undefined);
  }

  #paint(lines: Line[]): string[] {
    const theme = this.#theme();
    return lines.map((line) => paint(line, theme));
  }

  /** Only a terminal understands colours: a client in RPC mode would get escape sequences. */
  #theme(): Theme | undefined {
    return this.#tui ? this.#ui?.theme : undefined;
  }
}
