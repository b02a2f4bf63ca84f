/** Slash commands, shortcuts that run them, and the completion of their arguments. */
import type { Connection } from "./connection.mjs";
import { messageOf } from "./failure.mjs";
import type { Api, AutocompleteItem, Context } from "./pi.mjs";
import type { CommandDeclaration, Completion, ShortcutDeclaration } from "./protocol.mjs";
import type { Connect } from "./tools.mjs";

/** A completion that takes longer comes too late for who types. */
const COMPLETION = 2_000;

export interface CommandParts {
  connect: Connect;
  /** The connection there is now: to complete a word no host is started. */
  live: () => Connection | undefined;
  /** Whether the harness waits for completions. */
  asyncCompletions: boolean;
}

export function registerCommands(api: Api, commands: CommandDeclaration[], parts: CommandParts): void {
  for (const command of commands) {
    const ask = (prefix: string) => complete(parts.live(), command.name, prefix);
    const hint = command.arguments == null ? "" : ` ${command.arguments}`;
    api.registerCommand(command.name, {
      description: `${command.description}${hint === "" ? "" : ` —${hint}`}`,
      getArgumentCompletions: parts.asyncCompletions ? ask : remembered(ask),
      handler: (args, context) => run(parts.connect, command.name, args, context),
    });
  }
}

export function registerShortcuts(api: Api, shortcuts: ShortcutDeclaration[], connect: Connect): void {
  for (const shortcut of shortcuts) {
    api.registerShortcut(shortcut.key, {
      description: shortcut.description,
      handler: (context) => run(connect, shortcut.command, "", context),
    });
  }
}

async function run(connect: Connect, name: string, args: string, context: Context): Promise<void> {
  try {
    const connection = await connect(context);
    await connection.ask({ t: "command", name, arguments: args }, { context });
  } catch (why) {
    if (!context.hasUI) throw why;
    context.ui.notify(`/${name}: ${messageOf(why)}`, "error");
  }
}

async function complete(
  connection: Connection | undefined,
  name: string,
  prefix: string,
): Promise<AutocompleteItem[] | null> {
  try {
    const found = await connection?.ask({ t: "complete", name, prefix }, { limit: COMPLETION });
    if (!Array.isArray(found) || found.length === 0) return null;
    return (found as Completion[]).map(({ value, label, description }) => ({
      value,
      label,
      ...(description == null ? {} : { description }),
    }));
  } catch {
    return null;
  }
}

/**
 * For a harness that wants completions at once: it gets the last ones that fit what has been typed since, while the next ones are
 * asked for.
 */
function remembered(
  ask: (prefix: string) => Promise<AutocompleteItem[] | null>,
): (prefix: string) => AutocompleteItem[] | null {
  let last: { prefix: string; items: AutocompleteItem[] } | undefined;
  return (prefix) => {
    void ask(prefix).then((items) => {
      last = { prefix, items: items ?? [] };
    });
    if (last === undefined || !prefix.startsWith(last.prefix)) return null;
    const fitting = last.items.filter((item) => item.value.startsWith(prefix));
    return fitting.length === 0 ? null : fitting;
  };
}
