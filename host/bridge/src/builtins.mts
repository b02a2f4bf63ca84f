/**
 * The harness's own tools, for calls that an extension hands back: without an active VM `bash` is the harness's `bash`.
 *
 * They are made by the running program's own modules, beside its entry. That is the very instance that runs, so
 * nothing is loaded twice. A harness compiled into one binary has no such file.
 */
import { Failure, messageOf } from "./failure.mjs";
import type { Harness } from "./harness.mjs";
import type { Context, OnUpdate } from "./pi.mjs";
import type { Content, ToolResult } from "./protocol.mjs";
import { isObject } from "./wire.mjs";

/** Their names, whichever of them are active, in all harnesses. */
const NAMES = ["bash", "read", "edit", "write", "grep", "find", "ls"];

interface BuiltIn {
  parameters?: { properties?: Record<string, unknown> };
  prepareArguments?(params: unknown): unknown;
  execute(
    callId: string,
    params: unknown,
    signal: AbortSignal,
    onUpdate: OnUpdate,
    context: Context,
  ): Promise<{ content: Content[]; details?: unknown; isError?: boolean }>;
}

export class BuiltIns {
  readonly #entry: string | undefined;
  readonly #import: (url: string) => Promise<unknown>;
  #modules: Promise<Record<string, unknown>> | undefined;
  #nextId = 1;

  constructor(harness: Harness, load: (url: string) => Promise<unknown> = (url) => import(url)) {
    this.#entry = harness.entry;
    this.#import = load;
  }

  /** The names of those that can be replaced. Where they can't be run they are named all the same. */
  async names(): Promise<string[]> {
    try {
      const modules = await this.#load();
      return NAMES.filter((name) => typeof modules[makerOf(name)] === "function");
    } catch {
      return NAMES;
    }
  }

  /** Runs one. What it throws is its result; only one that can't be run is an error. */
  async run(
    tool: string,
    params: unknown,
    signal: AbortSignal,
    onUpdate: OnUpdate,
    context: Context,
  ): Promise<ToolResult> {
    if (!NAMES.includes(tool)) throw new Failure("not-found", `this harness has no tool ${tool} of its own`);
    const make = (await this.#load())[makerOf(tool)];
    if (typeof make !== "function") {
      throw new Failure("not-found", `this harness has no tool ${tool} of its own`);
    }
    const builtIn = make(context.cwd) as BuiltIn;
    try {
      const fitting = argumentsFor(builtIn, params);
      const output = await builtIn.execute(`pi-vers-${this.#nextId++}`, fitting, signal, onUpdate, context);
      return { content: output.content, details: output.details ?? null, isError: output.isError === true };
    } catch (why) {
      if (signal.aborted) throw new Failure("cancelled", messageOf(why));
      return { content: [{ type: "text", text: messageOf(why) }], isError: true };
    }
  }

  async #load(): Promise<Record<string, unknown>> {
    const entry = this.#entry;
    if (entry === undefined) {
      throw new Failure(
        "unavailable",
        "the harness's own tools can't be run: it is not a known one, or is compiled into one binary. Choose a VM with vers_vm_use",
      );
    }
    this.#modules ??= this.#import(entry).then((modules) => {
      if (isObject(modules)) return modules;
      throw new Failure("unavailable", `${entry} has no tools`);
    });
    try {
      return await this.#modules;
    } catch (why) {
      this.#modules = undefined;
      throw new Failure("unavailable", `the harness's own tools can't be loaded from ${entry}: ${messageOf(why)}`);
    }
  }
}

/**
 * The arguments as this harness's tool takes them. `edit` has one replacement in some harnesses, a list in others, and the
 * tool that replaces it takes either.
 */
function argumentsFor(builtIn: BuiltIn, params: unknown): unknown {
  if (builtIn.prepareArguments !== undefined) return builtIn.prepareArguments(params);
  const known = builtIn.parameters?.properties;
  if (!isObject(params) || known === undefined || "edits" in known || !Array.isArray(params["edits"])) return params;
  const { edits, ...rest } = params;
  const [only, ...more] = edits as unknown[];
  if (!isObject(only) || more.length > 0 || "oldText" in rest) {
    throw new Failure("invalid", "this harness's edit makes one replacement at a time: give oldText and newText");
  }
  return { ...rest, oldText: only["oldText"], newText: only["newText"] };
}

function makerOf(tool: string): string {
  return `create${tool.charAt(0).toUpperCase()}${tool.slice(1)}Tool`;
}
