/** `@hdresearch/pi-v/core`: the Vers platform for programs in TypeScript, served by `pi-vers core`. */
export { VersError } from "./channel.mjs";
export {
  type Commits,
  type ExecResult,
  type ExecStreamingOptions,
  type NewVmResponse,
  type Page,
  VersClient,
  type VersClientOptions,
  type Vm,
  type VmCommitResponse,
  type VmConfig,
  type VmDeleteResponse,
  type VmSSHKeyResponse,
} from "./client.mjs";
export {
  type ResolveGoldenCommitOptions,
  type ResolveGoldenCommitResult,
  resolveAgentBinary,
  resolveGoldenCommit,
} from "./golden.mjs";
export { ensureVersApiKey, loadVersKeyFromDisk } from "./keys.mjs";
export {
  type SwarmAgent,
  type SwarmAgentStatus,
  SwarmManager,
  type SwarmManagerOptions,
  type SwarmSpawnOptions,
  type SwarmSpawnResult,
  type SwarmWaitResult,
} from "./swarm.mjs";

/** The text as one word of a shell's command. */
export function shellEscape(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
