/**
 * Messages that extensions put into the conversation, and how they look.
 *
 * A message whose details have `lines` is shown as these. The harness wants a renderer for each kind by name: it is registered
 * when the first such message of a kind is made, or found in a session that is resumed.
 */
import type { Api, Context, Message } from "./pi.mjs";
import type { Content } from "./protocol.mjs";
import { linesComponent, linesOf } from "./styled.mjs";

/** A message as the protocol has it. */
export interface CustomMessage {
  kind: string;
  content: Content[];
  display: boolean;
  details?: unknown;
}

export class Messages {
  readonly #api: Api;
  readonly #kinds = new Set<string>();

  constructor(api: Api) {
    this.#api = api;
  }

  /** The message as the harness has it. */
  made(message: CustomMessage): Message {
    this.#render(message.kind, message.details);
    return {
      customType: message.kind,
      content: plain(message.content),
      display: message.display,
      ...(message.details == null ? {} : { details: message.details }),
    };
  }

  /** Looks at what an earlier run of the session has left. */
  remember(context: Context): void {
    for (const entry of context.sessionManager.getBranch()) {
      if (entry.type === "custom_message" && entry.customType !== undefined) {
        this.#render(entry.customType, entry.details);
      }
    }
  }

  #render(kind: string, details: unknown): void {
    if (this.#kinds.has(kind) || linesOf(details) === undefined) return;
    this.#kinds.add(kind);
    this.#api.registerMessageRenderer(kind, (message, _options, theme) => {
      const lines = linesOf(message.details);
      return lines === undefined ? undefined : linesComponent(lines, theme);
    });
  }
}

/** One text is stored as such, which is what the harness's own messages are. */
export function plain(content: Content[]): string | Content[] {
  const [only] = content;
  return content.length === 1 && only?.type === "text" ? only.text : content;
}
