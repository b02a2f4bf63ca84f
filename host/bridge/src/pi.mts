/**
 * What we use of the harness, by structure: pi 0.73, pi 0.87 and later, and punkin-pi all fit, and none is imported.
 *
 * What only some of them have is optional or wide here, and the traits of harness.mts say who behaves how.
 */
import type { Content } from "./protocol.mjs";

export interface Theme {
  fg(color: string, text: string): string;
  bold(text: string): string;
  strikethrough?(text: string): string;
}

export interface Component {
  render(width: number): string[];
  invalidate(): void;
}

export interface DialogOptions {
  signal?: AbortSignal;
  timeout?: number;
}

export interface Ui {
  select(title: string, options: string[], dialog?: DialogOptions): Promise<string | undefined>;
  confirm(title: string, message: string, dialog?: DialogOptions): Promise<boolean>;
  input(title: string, placeholder?: string, dialog?: DialogOptions): Promise<string | undefined>;
  editor(title: string, prefill?: string): Promise<string | undefined>;
  notify(message: string, type?: "info" | "warning" | "error"): void;
  setStatus(key: string, text: string | undefined): void;
  setWidget(key: string, lines: string[] | undefined): void;
  readonly theme?: Theme;
}

/** An entry of the session's file. */
export interface Entry {
  type: string;
  customType?: string;
  data?: unknown;
  details?: unknown;
}

export interface Context {
  readonly ui: Ui;
  readonly hasUI: boolean;
  readonly mode?: string;
  readonly cwd: string;
  readonly sessionManager: {
    getSessionId(): string;
    getBranch(): Entry[];
  };
  isIdle(): boolean;
}

export interface ToolOutput {
  content: Content[];
  details: unknown;
}

export type OnUpdate = (partial: ToolOutput) => void;

export interface Tool {
  name: string;
  label: string;
  description: string;
  parameters: Record<string, unknown>;
  promptSnippet?: string;
  execute(
    callId: string,
    params: unknown,
    signal: AbortSignal | undefined,
    onUpdate: OnUpdate | undefined,
    context: Context,
  ): Promise<ToolOutput>;
  renderResult?(result: ToolOutput, options: { expanded: boolean; isPartial: boolean }, theme: Theme): Component;
}

export interface AutocompleteItem {
  value: string;
  label: string;
  description?: string;
}

export interface Command {
  description?: string;
  getArgumentCompletions?(prefix: string): AutocompleteItem[] | null | Promise<AutocompleteItem[] | null>;
  handler(args: string, context: Context): Promise<void>;
}

export interface Message {
  customType: string;
  content: string | Content[];
  display: boolean;
  details?: unknown;
}

export type DeliverAs = "steer" | "followUp" | "nextTurn";

/** An event; which fields it has depends on its type. */
export type Event = Record<string, unknown>;

export type MessageRenderer = (
  message: { content: unknown; details?: unknown },
  options: { expanded: boolean },
  theme: Theme,
) => Component | undefined;

export interface Bus {
  emit(channel: string, data: unknown): void;
  on(channel: string, handler: (data: unknown) => void): () => void;
}

export interface Api {
  on(event: string, handler: (event: Event, context: Context) => unknown): void;
  registerTool(tool: Tool): void;
  registerCommand(name: string, command: Command): void;
  registerShortcut(
    key: string,
    shortcut: { description?: string; handler(context: Context): Promise<void> | void },
  ): void;
  registerFlag(
    name: string,
    flag: { description?: string; type: "boolean" | "string"; default?: boolean | string },
  ): void;
  registerMessageRenderer(kind: string, renderer: MessageRenderer): void;
  getFlag(name: string): unknown;
  getActiveTools(): string[];
  getAllTools(): { name: string }[];
  setActiveTools(names: string[]): void;
  sendMessage(message: Message, options?: { triggerTurn?: boolean; deliverAs?: DeliverAs }): unknown;
  sendUserMessage(content: string | Content[], options?: { deliverAs?: "steer" | "followUp" }): unknown;
  appendEntry(kind: string, data?: unknown): void;
  readonly events?: Bus;
}
