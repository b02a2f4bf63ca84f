/**
 * The host's tools as tools of the harness.
 *
 * A failed tool throws here: that is the one way all harnesses know. A tool that replaces one of the harness's is shown
 * by the harness as its own; the others show their `lines`, or their text.
 */
import { stripVTControlCharacters } from "node:util";
import type { Connection } from "./connection.mjs";
import type { Api, Context, ToolOutput } from "./pi.mjs";
import type { Content, Line, ToolDeclaration, ToolResult, Update } from "./protocol.mjs";
import { linesComponent, linesOf } from "./styled.mjs";
import { isObject } from "./wire.mjs";

/** Makes a connection ready for a call that the harness makes with this context. */
export type Connect = (context: Context) => Promise<Connection>;

/**
 * A key that is put into the arguments of calls where the harness would answer a repeated one from its cache. It is taken out
 * again before the arguments go anywhere.
 */
export const UNCACHED = "__piVersCall";

/** The longest line that the system prompt has of a tool. */
const SNIPPET = 160;

export function registerTools(api: Api, tools: ToolDeclaration[], connect: Connect): void {
  for (const tool of tools) {
    api.registerTool({
      name: tool.name,
      label: tool.label,
      description: tool.description,
      parameters: tool.parameters,
      execute: async (callId, params, signal, onUpdate, context) => {
        signal?.throwIfAborted();
        uncache(params);
        const connection = await connect(context);
        const question = { t: "call", tool: tool.name, callId, arguments: params ?? {} } as const;
        const result = await connection.ask(question, {
          signal,
          context,
          onUpdate: onUpdate && ((update) => onUpdate(progressOf(update))),
        });
        return outputOf(result as ToolResult);
      },
      // The system prompt goes on naming the tools that it names by itself.
      ...(tool.replaces
        ? { promptSnippet: snippetOf(tool.description) }
        : {
            renderResult: (result, _options, theme) =>
              linesComponent(linesOf(result.details) ?? linesOfContent(result.content), theme),
          }),
    });
  }
}

/** Takes the key out again that kept the harness's cache away. */
export function uncache(params: unknown): void {
  if (isObject(params)) delete params[UNCACHED];
}

/** What the harness gets of a result. Throws when the tool has failed. */
function outputOf(result: ToolResult): ToolOutput {
  if (result.isError) throw new Error(textOf(result.content) || "the tool failed and said nothing");
  return { content: result.content, details: result.details ?? {} };
}

function progressOf(update: Update): ToolOutput {
  const content: Content[] = [...update.content];
  const progress = update.progress;
  if (progress != null && content.length === 0) {
    const total = progress.total ?? 0;
    const share = total > 0 ? ` (${Math.floor((100 * progress.done) / total)} %)` : "";
    content.push({ type: "text", text: `${progress.caption}${share}` });
  }
  return { content, details: update.details ?? {} };
}

function textOf(content: Content[]): string {
  return content.flatMap((block) => (block.type === "text" ? [block.text] : [])).join("\n");
}

function linesOfContent(content: Content[]): Line[] {
  const text = stripVTControlCharacters(textOf(content)).replaceAll("\r\n", "\n");
  return text === "" ? [] : text.split("\n").map((line) => [{ text: line }]);
}

/** The first sentence. */
function snippetOf(description: string): string {
  const first = /^[\s\S]*?(?:\.(?=\s)|$)/.exec(description.trim())?.[0] ?? "";
  const line = first.replace(/\s+/g, " ").replace(/\.$/, "");
  return line.length <= SNIPPET ? line : `${line.slice(0, SNIPPET - 1)}…`;
}
