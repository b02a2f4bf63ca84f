/**
 * The frames of docs/bridge.md, as they are on the wire.
 *
 * Types only: what comes from the host is the word of a process that we started, so it is read by its type's
 * name and each use looks at what it needs; what a use can't bear ends as an error of that request alone.
 */

export const PROTOCOL = 1;

/** Longest line either side may write, in bytes, without its LF. */
export const MAX_LINE = 16 * 1024 * 1024;

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export type Content = { type: "text"; text: string } | { type: "image"; mimeType: string; data: string };

export interface ToolResult {
  content: Content[];
  details?: unknown;
  structured?: unknown;
  isError: boolean;
}

export type Role = "normal" | "accent" | "muted" | "dim" | "success" | "warning" | "error";

export interface Span {
  text: string;
  role?: Role;
  bold?: boolean;
  strikethrough?: boolean;
}

export type Line = Span[];

export type ErrorCode =
  | "denied"
  | "invalid"
  | "not-found"
  | "conflict"
  | "timed-out"
  | "cancelled"
  | "unavailable"
  | "limit"
  | "trap"
  | "other";

export type Severity = "info" | "warning" | "error";

export type Delivery = "steer" | "follow-up" | "next-turn";

export interface ToolDeclaration {
  name: string;
  label: string;
  description: string;
  parameters: Record<string, unknown>;
  extension: string;
  replaces: boolean;
}

export interface CommandDeclaration {
  name: string;
  description: string;
  arguments?: string | null;
  extension: string;
}

export interface ShortcutDeclaration {
  key: string;
  description: string;
  command: string;
  extension: string;
}

export interface FlagDeclaration {
  name: string;
  description: string;
  type: "boolean" | "string" | "number";
  default: boolean | string | number;
  extension: string;
}

/** What the host offers. */
export interface Ready {
  t: "ready";
  v: number;
  host: { version: string };
  extensions: { name: string; version: string; summary: string }[];
  tools: ToolDeclaration[];
  commands: CommandDeclaration[];
  shortcuts: ShortcutDeclaration[];
  flags: FlagDeclaration[];
  events: string[];
  topics: string[];
}

export interface Completion {
  value: string;
  label: string;
  description?: string | null;
}

export interface Update {
  t: "update";
  id: number;
  content: Content[];
  details?: unknown;
  progress?: { done: number; total?: number | null; caption: string } | null;
}

export interface Request {
  t: "request";
  id: number;
  method: string;
  params: Record<string, unknown>;
  call?: number | null;
}

export type HostFrame =
  | Ready
  | { t: "fatal"; message: string }
  | Update
  | { t: "result"; id: number; value: unknown }
  | { t: "error"; id: number; code: ErrorCode; message: string }
  | Request
  | { t: "cancel"; id: number }
  | { t: "notice"; method: string; params: Record<string, unknown> };

export interface Snapshot {
  sessionId: string;
  cwd: string;
  interactive: boolean;
  idle: boolean;
  activeTools: string[];
  allTools: string[];
  flags: Record<string, boolean | string | number>;
}

/** What the shim asks the host; `id` is added when it is sent. */
export type Question =
  | { t: "start"; reason: StartReason }
  | { t: "call"; tool: string; callId: string; arguments: unknown }
  | { t: "command"; name: string; arguments: string }
  | { t: "complete"; name: string; prefix: string }
  | { t: "event"; name: string; data: unknown };

export type StartReason = "startup" | "reload" | "resume" | "fork";

/** What the shim tells the host without waiting for anything. */
export type Telling =
  | { t: "hello"; v: number; cwd: string; harness: { kind: string; version: string }; builtIns: string[] }
  | ({ t: "context" } & Snapshot)
  | { t: "event"; name: string; data: unknown }
  | { t: "bus"; topic: string; data: unknown }
  | { t: "cancel"; id: number }
  | { t: "result"; id: number; value: unknown }
  | { t: "update"; id: number; content: Content[]; details?: unknown }
  | { t: "error"; id: number; code: ErrorCode; message: string }
  | { t: "shutdown"; reason: string };
