// Runs builds on VMs, shows their output, and remembers how they ended. One file, no build:
//   pi-vers run --extension build-watch.js build_status

// Characters of output that are shown: its end.
const SHOWN = 16 * 1024;

const EMPTY = { ok: 0, failed: 0, last: null };

const words = ({ ok, failed, last }) => `${ok} ok, ${failed} failed${last ? `; last: ${last}` : ""}`;

async function recorded(ctx, ok, last) {
  const builds = await ctx.store.update("builds", (before) => {
    const after = before ?? { ...EMPTY };
    after[ok ? "ok" : "failed"] += 1;
    after.last = last;
    return after;
  });
  ctx.ui.status("build", `builds: ${builds.ok} ok, ${builds.failed} failed`);
}

async function run({ vm, command }, ctx) {
  const line = command.join(" ");
  ctx.ui.status("build", `building: ${line}`);
  const { code, signal, bytes, stdout } = await ctx.vm.exec(vm, command, {
    merged: true,
    maxLength: SHOWN,
    onOutput: (_text, _stream, kept) => ctx.update(kept),
  });
  const how = signal === null ? `exit ${code}` : `signal ${signal}`;
  await recorded(ctx, code === 0, `${line}: ${how}`);
  const text = `${how}, ${bytes} bytes\n${stdout}`;
  const details = { code, bytes };
  if (code !== 0) ctx.fail(text, details);
  return { content: text, details };
}

export default {
  name: "build-watch",
  version: "0.1.0",
  summary: "Runs builds on VMs and remembers how they ended",
  tools: [
    {
      name: "build_run",
      label: "Run a build",
      description: "Runs a build on a VM, shows its output meanwhile, and remembers how it ended.",
      parameters: {
        type: "object",
        properties: {
          vm: { type: "string", minLength: 1, description: "The VM's id" },
          command: { type: "array", items: { type: "string" }, minItems: 1, description: "Program and arguments" },
        },
        required: ["vm", "command"],
        additionalProperties: false,
      },
      openWorld: true,
      longRunning: true,
      execute: run,
    },
    {
      name: "build_status",
      label: "Builds so far",
      description: "Tells how many builds succeeded and failed, and how the last one ended.",
      readOnly: true,
      idempotent: true,
      execute: async (_, ctx) => words((await ctx.store.get("builds")) ?? EMPTY),
    },
  ],
  commands: [
    {
      name: "builds",
      description: "Shows how the builds went",
      arguments: "[reset]",
      async run(text, ctx) {
        if (text.trim() === "reset") return await ctx.store.delete("builds");
        if (text.trim() !== "") throw new VersError("invalid", "Say /builds, or /builds reset.");
        ctx.ui.notify(words((await ctx.store.get("builds")) ?? EMPTY));
      },
    },
  ],
};
