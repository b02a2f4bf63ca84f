// What scripts see of the host: `ctx`, and a few globals. docs/extensions/scripts.md describes it.
//
// A function of its doors to the host, so that they are no globals: `later(scope, operation, json, bytes)` gives a promise,
// `now(scope, operation, json)` an answer, `decode(bytes, fatal)` a text. Answers are `{"ok": value}` or `{"error": {kind, message}}` as JSON,
// or a list of a text and its length in bytes, or bytes.
(function (later, now, decode) {
  "use strict";

  const { parse, stringify } = JSON;

  // An error of a capability. `kind` is the contract's word: denied, invalid, not-found, conflict, timed-out, cancelled, unavailable, limit, other.
  class VersError extends Error {
    constructor(kind, message) {
      super(message);
      this.name = "VersError";
      this.kind = kind;
    }
  }

  // A tool that failed: the model reads the content.
  class ToolFailure extends Error {
    constructor(content, details) {
      super(typeof content === "string" ? content : "the tool failed");
      this.name = "ToolFailure";
      this.content = content;
      this.details = details;
    }
  }

  function read(answer) {
    if (typeof answer !== "string") return answer;
    const { ok, error } = parse(answer);
    if (error) throw new VersError(error.kind, error.message);
    return ok;
  }

  // By scope: tells those who listen that the call was given up, once. What a call waits for may fail for that reason before the host's
  // word of it is there: they are told first.
  const aborts = new Map();

  const ask = async (scope, operation, args = {}, bytes = undefined) => {
    const answer = await later(scope, operation, stringify(args) ?? "{}", bytes);
    try {
      return read(answer);
    } catch (thrown) {
      if (thrown.kind === "cancelled" && aborts.has(scope) && tell(scope, "call.isCancelled")) aborts.get(scope)();
      throw thrown;
    }
  };
  const tell = (scope, operation, args = {}) => read(now(scope, operation, stringify(args) ?? "{}"));

  // ---- bytes and text

  class TextDecoder {
    constructor(label = "utf-8", { fatal = false } = {}) {
      if (!/^utf-?8$/i.test(label)) throw new RangeError(`there is only UTF-8 here, not ${label}`);
      this.fatal = fatal;
    }
    get encoding() {
      return "utf-8";
    }
    decode(input, { stream = false } = {}) {
      if (stream) throw new TypeError("a stream's read() gives whole characters; a TextDecoder decodes the whole at once");
      return input === undefined ? "" : decode(buffer(input), this.fatal);
    }
  }

  class TextEncoder {
    get encoding() {
      return "utf-8";
    }
    encode(text = "") {
      // A percent is three characters of one byte, anything else one character of one.
      const escaped = encodeURIComponent(String(text).toWellFormed());
      const bytes = [];
      for (let at = 0; at < escaped.length; at += 1) {
        if (escaped[at] === "%") {
          bytes.push(parseInt(escaped.slice(at + 1, at + 3), 16));
          at += 2;
        } else bytes.push(escaped.charCodeAt(at));
      }
      return new Uint8Array(bytes);
    }
  }

  // The bytes of a text or of what holds bytes, as a buffer of their own.
  function buffer(input) {
    if (typeof input === "string") return new TextEncoder().encode(input).buffer;
    if (input instanceof ArrayBuffer) return input;
    if (ArrayBuffer.isView(input)) return input.buffer.slice(input.byteOffset, input.byteOffset + input.byteLength);
    throw new TypeError("this is neither a text nor bytes");
  }

  // ---- results

  const numbers = (data) => (data === undefined ? undefined : Array.from(new Uint8Array(buffer(data))));

  function block(one) {
    if (one === null || typeof one !== "object") return { type: "text", text: String(one).toWellFormed() };
    if (typeof one.text === "string") return { ...one, text: one.text.toWellFormed() };
    return { ...one, data: numbers(one.data) };
  }

  function content(given) {
    if (given === undefined || given === null) return [];
    return (Array.isArray(given) ? given : [given]).map(block);
  }

  // A text, a list of blocks, `{content, details, structured}`, or any other value, which is shown as JSON.
  function result(given) {
    if (given === undefined || given === null) return { content: [] };
    if (typeof given !== "object") return { content: content(given) };
    if (Array.isArray(given)) return { content: content(given) };
    if ("content" in given || "structured" in given) {
      const { details, structured } = given;
      const shown = "content" in given ? given.content : stringify(structured, null, 2);
      return { content: content(shown), details, structured };
    }
    return { content: content(stringify(given, null, 2)) };
  }

  // ---- what a script reaches the outside by

  class Stream {
    #scope;
    #handle;
    #ended = false;
    // How many bytes have been read.
    length = 0;
    constructor(scope, handle) {
      this.#scope = scope;
      this.#handle = handle;
    }
    // The next text, whole characters at a time, or `null` at the end.
    async read() {
      return await this.#next(false);
    }
    // The next bytes, or `null` at the end.
    async readBytes() {
      return await this.#next(true);
    }
    async #next(bytes) {
      if (this.#ended) return null;
      const chunk = await ask(this.#scope, "stream.read", { handle: this.#handle, bytes });
      if (chunk === null) {
        this.#ended = true;
        return null;
      }
      if (!Array.isArray(chunk)) {
        this.length += chunk.length;
        return chunk;
      }
      this.length += chunk[1];
      return chunk[0];
    }
    close() {
      this.#ended = true;
      tell(this.#scope, "stream.close", { handle: this.#handle });
    }
    async *[Symbol.asyncIterator]() {
      try {
        for (let chunk; (chunk = await this.read()) !== null; ) yield chunk;
      } finally {
        if (!this.#ended) this.close();
      }
    }
  }

  class Child {
    #scope;
    #handle;
    constructor(scope, { child, stdout, stderr, id }) {
      this.#scope = scope;
      this.#handle = child;
      this.id = id;
      this.stdout = new Stream(scope, stdout);
      this.stderr = stderr === null ? null : new Stream(scope, stderr);
    }
    // `{code, signal}`: one of them is null.
    wait() {
      return ask(this.#scope, "child.wait", { handle: this.#handle });
    }
    signal(signal) {
      return ask(this.#scope, "child.signal", { handle: this.#handle, signal });
    }
    stop(grace) {
      return ask(this.#scope, "child.stop", { handle: this.#handle, grace });
    }
    // Lets it outlive the call.
    detach() {
      tell(this.#scope, "child.detach", { handle: this.#handle });
    }
  }

  // The end of a text that grows, with a bound.
  class Tail {
    #pieces = [];
    #length = 0;
    constructor(most) {
      this.most = most;
      this.truncated = false;
    }
    push(text) {
      this.#pieces.push(text);
      this.#length += text.length;
      while (this.#length > this.most) {
        this.truncated = true;
        const over = this.#length - this.most;
        const first = this.#pieces[0];
        if (first.length > over) {
          // Never half of a character.
          const code = first.charCodeAt(over);
          const cut = code >= 0xdc00 && code <= 0xdfff ? over + 1 : over;
          this.#pieces[0] = first.slice(cut);
          this.#length -= cut;
        } else {
          this.#pieces.shift();
          this.#length -= first.length;
        }
      }
    }
    get text() {
      return this.#pieces.join("");
    }
  }

  // Where commands run: on this machine, or on VMs.
  function programs(scope, operation, vm) {
    const spawn = async (command, options = {}) => {
      const { env, cwd, timeout, merged, stdin } = options;
      const bytes = stdin === undefined ? undefined : buffer(stdin);
      const wanted = { ...vm, command, env, cwd, timeout, merged, stdin: bytes !== undefined };
      return new Child(scope, await ask(scope, operation, wanted, bytes));
    };
    // Runs it to its end: `{code, signal, stdout, stderr, bytes, truncated}`. Of each output the last `maxLength` characters are kept;
    // `onOutput(text, name, kept)` is told of each piece.
    const exec = async (command, options = {}) => {
      const { onOutput, maxLength = 1 << 20, ...rest } = options;
      const child = await spawn(command, rest);
      const collect = async (stream, name) => {
        const tail = new Tail(maxLength);
        if (stream) {
          for await (const text of stream) {
            tail.push(text);
            if (onOutput) await onOutput(text, name, tail.text);
          }
        }
        return tail;
      };
      const [out, err, end] = await Promise.all([collect(child.stdout, "stdout"), collect(child.stderr, "stderr"), child.wait()]);
      const bytes = child.stdout.length + (child.stderr?.length ?? 0);
      return { ...end, stdout: out.text, stderr: err.text, bytes, truncated: out.truncated || err.truncated };
    };
    return { spawn, exec };
  }

  // On a VM: `ctx.vm(id)`, or `ctx.vm.exec(id, command, options)` and so on at once.
  function machines(scope) {
    const of = (id) => {
      const vm = { vm: id };
      return {
        id,
        ...programs(scope, "shell.spawn", vm),
        connect: (patience) => ask(scope, "shell.connect", { vm: id, patience }),
        disconnect: () => ask(scope, "shell.disconnect", vm),
        // The lines of a growing file, each once.
        async *follow(path, offset) {
          const handle = await ask(scope, "follow.open", { vm: id, path, offset });
          let ended = false;
          try {
            for (;;) {
              const next = await ask(scope, "follow.next", { handle });
              if (next === null) break;
              yield next;
            }
            ended = true;
          } finally {
            if (!ended) tell(scope, "follow.close", { handle });
          }
        },
      };
    };
    return Object.assign(of, {
      exec: (id, command, options) => of(id).exec(command, options),
      spawn: (id, command, options) => of(id).spawn(command, options),
      connect: (id, patience) => of(id).connect(patience),
      disconnect: (id) => of(id).disconnect(),
      follow: (id, path, offset) => of(id).follow(path, offset),
    });
  }

  const platform = (scope) => ({
    list: () => ask(scope, "vms.list"),
    get: (id) => ask(scope, "vms.get", { id }),
    resolve: (id) => ask(scope, "vms.resolve", { id }),
    create: (config = {}) => ask(scope, "vms.create", config),
    delete: (id) => ask(scope, "vms.delete", { id }),
    branch: (id, count = 1) => ask(scope, "vms.branch", { id, count }),
    commit: (id, { keepPaused = false } = {}) => ask(scope, "vms.commit", { id, keepPaused }),
    restore: (origin) => ask(scope, "vms.restore", typeof origin === "string" ? { commit: origin } : origin),
    setState: (id, state) => ask(scope, "vms.setState", { id, state }),
    setLabels: (id, labels) => ask(scope, "vms.setLabels", { id, labels }),
    resizeDisk: (id, fsSizeMib) => ask(scope, "vms.resizeDisk", { id, fsSizeMib }),
    listCommits: (page = {}) => ask(scope, "vms.listCommits", page),
    deleteCommit: (id) => ask(scope, "vms.deleteCommit", { id }),
    setCommitPublic: (id, isPublic) => ask(scope, "vms.setCommitPublic", { id, public: isPublic }),
  });

  const store = (scope) => ({
    get: (key) => ask(scope, "store.get", { key }),
    set: (key, value) => ask(scope, "store.set", { key, value: value ?? null }),
    delete: (key) => ask(scope, "store.delete", { key }),
    keys: (prefix = "") => ask(scope, "store.keys", { key: prefix }),
    swap: (key, before, after) => ask(scope, "store.swap", { key, old: before ?? undefined, new: after ?? undefined }),
    // Reads, changes and writes, again if somebody else did meanwhile. The change must have no effect of its own.
    async update(key, change) {
      for (;;) {
        const before = await this.get(key);
        const after = await change(parse(stringify(before)));
        if (await this.swap(key, before, after)) return after ?? null;
      }
    },
  });

  // A file here is its path, one on a VM `{vm, path}`.
  const files = (scope) => {
    const read = async (at, options, bytes) => {
      const got = await ask(scope, "files.read", { ...options, at, bytes });
      return bytes ? await all(new Stream(scope, got.stream)) : got.text;
    };
    return {
      stat: (at) => ask(scope, "files.stat", { at }),
      list: (at) => ask(scope, "files.list", { at }),
      readText: (at, options = {}) => read(at, options, false),
      readBytes: (at, options = {}) => read(at, options, true),
      write: (at, data, options = {}) => ask(scope, "files.write", { ...options, at }, buffer(data)),
      remove: (at) => ask(scope, "files.remove", { at }),
      copy: (at, to, options = {}) => ask(scope, "files.copy", { ...options, at, to }),
    };
  };

  async function all(stream) {
    const chunks = [];
    let length = 0;
    for (let chunk; (chunk = await stream.readBytes()) !== null; length += chunk.length) chunks.push(chunk);
    const whole = new Uint8Array(length);
    let at = 0;
    for (const chunk of chunks) {
      whole.set(chunk, at);
      at += chunk.length;
    }
    return whole;
  }

  // `{status, ok, headers, url, text(), json(), bytes()}`. A header may be `{secret: NAME}`.
  const fetcher = (scope) => async (url, { method, headers, body, timeout } = {}) => {
    const bytes = body === undefined ? undefined : buffer(body);
    const answer = await ask(scope, "http.send", { url: String(url), method, headers, timeout }, bytes);
    const { status, handle } = answer;
    const text = async () => (await ask(scope, "http.body", { handle })).text;
    return {
      status,
      ok: status >= 200 && status < 300,
      headers: answer.headers,
      url: answer.url,
      text,
      json: async () => parse(await text()),
      bytes: async () => all(new Stream(scope, (await ask(scope, "http.body", { handle, bytes: true })).stream)),
    };
  };

  const ui = (scope) => ({
    get available() {
      return tell(scope, "ui.available");
    },
    notify: (message, severity = "info") => tell(scope, "ui.notify", { message: String(message), severity }),
    status: (key, line) => tell(scope, "ui.status", { key, line: line ?? null }),
    widget: (key, lines) => tell(scope, "ui.widget", { key, lines: lines ?? null }),
    select: (title, options, timeout) => ask(scope, "ui.select", { title, options, timeout }),
    confirm: (title, text = "", timeout = undefined) => ask(scope, "ui.confirm", { title, text, timeout }),
    input: (title, text = "", timeout = undefined) => ask(scope, "ui.input", { title, text, timeout }),
    edit: (title, text = "", timeout = undefined) => ask(scope, "ui.edit", { title, text, timeout }),
  });

  const session = (scope) => ({
    get id() {
      return tell(scope, "session.id");
    },
    get workingDirectory() {
      return tell(scope, "session.workingDirectory");
    },
    get activeTools() {
      return tell(scope, "session.activeTools");
    },
    get allTools() {
      return tell(scope, "session.allTools");
    },
    get isIdle() {
      return tell(scope, "session.isIdle");
    },
    flag: (name) => tell(scope, "session.flag", { name }),
    variable: (name) => tell(scope, "session.variable", { name }),
    hasSecret: (name) => tell(scope, "session.hasSecret", { name }),
    sendMessage: (message, { delivery, triggerTurn = false } = {}) =>
      ask(scope, "session.sendMessage", { message: { ...message, content: content(message.content) }, delivery, triggerTurn }),
    sendUserMessage: (given, delivery) => ask(scope, "session.sendUserMessage", { content: content(given), delivery }),
    appendEntry: (kind, data) => ask(scope, "session.appendEntry", { kind, data: data ?? null }),
    entries: (kind) => ask(scope, "session.entries", { kind }),
    setActiveTools: (names) => ask(scope, "session.setActiveTools", { names }),
    runBuiltIn: () => ask(scope, "session.runBuiltIn"),
  });

  const client = (scope) => ({
    offers: (name) => tell(scope, "client.offers", { name }),
    ask: (questions) => ask(scope, "client.ask", { questions }),
    listChanged: (name) => tell(scope, "client.listChanged", { name }),
  });

  const show = (value) => {
    if (typeof value === "string") return value;
    if (value instanceof Error) return value.stack || String(value);
    try {
      return stringify(value) ?? String(value);
    } catch {
      return String(value);
    }
  };
  const logger = (scope) => {
    const at = (level) => (...values) => tell(scope, "log.write", { level, message: values.map(show).join(" ").toWellFormed() });
    return { trace: at("trace"), debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
  };

  // Whether the call has been given up, as the Web has it. What the call waits for at the host ends by itself.
  function signal(scope) {
    const listeners = new Set();
    let [watched, onabort] = [false, null];
    const abort = () => {
      if (!aborts.delete(scope)) return;
      onabort?.({ type: "abort" });
      for (const one of [...listeners]) one({ type: "abort" });
    };
    const watch = () => {
      if (watched) return;
      watched = true;
      aborts.set(scope, abort);
      ask(scope, "call.cancelled").then(abort, () => {});
    };
    const reason = () => new VersError("cancelled", "cancelled");
    const it = {
      get onabort() {
        return onabort;
      },
      set onabort(listener) {
        onabort = listener;
        watch();
      },
      get aborted() {
        return tell(scope, "call.isCancelled");
      },
      get reason() {
        return it.aborted ? reason() : undefined;
      },
      throwIfAborted() {
        if (it.aborted) throw reason();
      },
      addEventListener(type, listener) {
        if (type !== "abort") return;
        listeners.add(listener);
        watch();
      },
      removeEventListener(_type, listener) {
        listeners.delete(listener);
      },
    };
    return it;
  }

  function context(scope, call) {
    const ctx = {
      log: logger(scope),
      sleep: (ms) => ask(scope, "timers.sleep", { ms }),
      vm: machines(scope),
      vms: platform(scope),
      process: programs(scope, "process.spawn", {}),
      store: store(scope),
      files: files(scope),
      http: fetcher(scope),
      ui: ui(scope),
      session: session(scope),
      client: client(scope),
      bus: { emit: (topic, data) => tell(scope, "bus.emit", { topic, data: data ?? null }) },
    };
    if (!call) return ctx;
    return Object.assign(ctx, {
      id: call.id,
      tool: call.tool,
      signal: signal(scope),
      // Replaces what the user sees of the call while it runs.
      update: (shown, details) => tell(scope, "call.update", { content: content(shown), details }),
      progress: (done, total, caption = "") => tell(scope, "call.progress", { done, total, caption }),
      remaining: () => tell(scope, "call.remaining"),
      patience: () => tell(scope, "call.patience"),
      // Ends the call as failed, with more than a text.
      fail(shown, details) {
        throw new ToolFailure(shown, details);
      },
    });
  }

  // ---- the script's declaration

  const wrong = (why) => {
    throw new TypeError(why);
  };
  const named = (what, one) => {
    if (one === null || typeof one !== "object") wrong(`${what} is no object`);
    if (typeof one.name !== "string" || one.name === "") wrong(`${what} has no name`);
    return one.name;
  };
  const text = (what, value, otherwise) => {
    if (value === undefined || value === null) return otherwise;
    return typeof value === "string" ? value : wrong(`${what} is no text`);
  };
  const list = (what, value) => {
    if (value === undefined) return [];
    return Array.isArray(value) ? value : wrong(`${what} is no list`);
  };
  const callable = (what, value) => (typeof value === "function" ? value : wrong(`${what} is no function`));

  const HINTS = ["readOnly", "destructive", "idempotent", "openWorld", "longRunning", "taskOnly"];
  const BESIDE = ["start", "stop"];
  const tools = new Map();
  const commands = new Map();
  const handlers = { on: {}, topics: {} };

  function tool(given) {
    const name = named("a tool", given);
    const what = `the tool ${name}`;
    callable(`execute of ${what}`, given.execute);
    tools.set(name, given);
    return {
      name,
      label: text(`the label of ${what}`, given.label, name),
      description: text(`the description of ${what}`, given.description, ""),
      parameters: given.parameters ?? { type: "object", properties: {}, additionalProperties: false },
      output: given.output ?? null,
      hints: HINTS.filter((hint) => given[hint]),
      replaces: Boolean(given.replaces),
    };
  }

  function command(given) {
    const name = named("a command", given);
    const what = `the command ${name}`;
    callable(`run of ${what}`, given.run);
    if (given.complete !== undefined) callable(`complete of ${what}`, given.complete);
    commands.set(name, given);
    return {
      name,
      description: text(`the description of ${what}`, given.description, ""),
      arguments: text(`the arguments of ${what}`, given.arguments, null),
    };
  }

  function setup(script) {
    if (script === undefined) wrong("it has no default export: write `export default { name: …, tools: [ … ] }`");
    const name = named("the default export", script);
    for (const kind of ["on", "topics"]) {
      handlers[kind] = script[kind] ?? {};
      for (const [key, handler] of Object.entries(handlers[kind])) callable(`${kind}[${stringify(key)}]`, handler);
    }
    return stringify({
      name,
      version: text("the version", script.version, "0.0.0"),
      summary: text("the summary", script.summary, ""),
      tools: list("tools", script.tools).map(tool),
      commands: list("commands", script.commands).map(command),
      shortcuts: list("shortcuts", script.shortcuts).map(({ key, description = "", command }) => ({ key, description, command })),
      flags: list("flags", script.flags).map(({ name, description = "", default: value }) => ({ name, description, default: value })),
      events: Object.keys(handlers.on).filter((name) => !BESIDE.includes(name)),
      topics: Object.keys(handlers.topics),
    });
  }

  // ---- what the host asks of the script

  const asks = {
    async tool(scope, { tool, id, arguments: given }) {
      const found = tools.get(tool);
      if (!found) throw new VersError("not-found", `There is no tool ${tool}.`);
      return result(await found.execute(parse(given), context(scope, { id, tool })));
    },
    async command(scope, { name, text }) {
      const found = commands.get(name);
      if (!found) throw new VersError("not-found", `There is no command ${name}.`);
      await found.run(text, context(scope));
      return null;
    },
    async complete(scope, { name, prefix }) {
      const found = await commands.get(name)?.complete?.(prefix, context(scope));
      return list("the completions", found ?? []).map((one) => (typeof one === "string" ? { value: one } : one));
    },
    async event(scope, { name, topic, data }) {
      if (topic !== undefined) {
        await handlers.topics[topic]?.(data, context(scope));
        return null;
      }
      const answer = await handlers.on[name]?.(data, context(scope));
      if (answer === undefined || answer === null) return null;
      const filled = { ...answer };
      if (answer.result) filled.result = result(answer.result);
      if (answer.message) filled.message = { ...answer.message, content: content(answer.message.content) };
      return filled;
    },
    async start(scope, { reason }) {
      background = scope;
      await handlers.on.start?.(reason, context(scope));
      return null;
    },
    async stop(scope) {
      await handlers.on.stop?.(context(scope));
      return null;
    },
  };

  // Never rejects: what a script throws is an answer.
  async function dispatch(kind, scope, payload) {
    try {
      return stringify({ ok: (await asks[kind](scope, parse(payload))) ?? null });
    } catch (thrown) {
      if (thrown instanceof ToolFailure) {
        const { content: shown, details } = thrown;
        return stringify({ error: { kind: "failed", message: thrown.message, result: result({ content: shown, details }) } });
      }
      if (thrown instanceof VersError) return stringify({ error: { kind: thrown.kind, message: thrown.message } });
      const plain = thrown instanceof Error && thrown.constructor === Error;
      const message = plain ? thrown.message : thrown instanceof Error ? String(thrown) : show(thrown);
      return stringify({ error: { kind: "failed", message: message.toWellFormed() } });
    } finally {
      aborts.delete(scope);
    }
  }

  // ---- globals

  // The log needs no scope.
  globalThis.console = { ...logger(0), log: logger(0).info };

  // Timers belong to the extension, not to the call that set them: they run whether it goes on or not. `ctx.sleep` ends with its call.
  let background = 0;
  let timer = 0;
  const timers = new Set();
  function set(again, run, ms, args) {
    callable("what a timer shall run", run);
    const id = (timer += 1);
    timers.add(id);
    (async () => {
      do {
        await ask(background, "timers.sleep", { ms: Math.max(Number(ms) || 0, again ? 1 : 0) });
        if (!timers.has(id)) return;
        await run(...args);
      } while (again && timers.has(id));
      timers.delete(id);
    })();
    return id;
  }
  const unset = (id) => void timers.delete(id);
  Object.assign(globalThis, {
    TextDecoder,
    TextEncoder,
    VersError,
    ToolFailure,
    setTimeout: (run, ms, ...args) => set(false, run, ms, args),
    setInterval: (run, ms, ...args) => set(true, run, ms, args),
    clearTimeout: unset,
    clearInterval: unset,
  });

  return { setup, dispatch };
});
