/**
 * How much longer a pi takes to start with the package: from its process' start to its first answer, with and without, in turns.
 * Figures are printed, never judged. `tests/pi/run.sh startup` runs it.
 */
import { readFileSync } from "node:fs";
import { type Harness, Lab, PI_073, PI_087 } from "./lab.mjs";
import type { Rpc } from "./rpc.mjs";

const ROUNDS = 15;

/** Processor time of a process in ms, in steps of 10. */
function cpu(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

function median(values: number[]): string {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => Math.round(sorted[Math.floor((sorted.length - 1) * share)] ?? Number.NaN);
  return `${at(0.5)} (${at(0.25)} to ${at(0.75)})`;
}

async function start(lab: Lab, ...args: string[]): Promise<{ wall: number; cpu: number }> {
  const began = performance.now();
  const pi: Rpc = lab.start("--no-session", ...args);
  await pi.command("get_state");
  const wall = performance.now() - began;
  const spent = [pi.pid, ...pi.bridges()].reduce((sum, pid) => sum + cpu(pid), 0);
  await pi.close();
  return { wall, cpu: spent };
}

async function measure(harness: Harness): Promise<void> {
  const lab = await Lab.open(harness);
  try {
    lab.install();
    const without: { wall: number; cpu: number }[] = [];
    const with_: { wall: number; cpu: number }[] = [];
    // A round that does not count: caches are filled.
    await start(lab);
    await start(lab, "-ne");
    for (let round = 0; round < ROUNDS; round += 1) {
      const turns: [typeof without, string[]][] = [
        [without, ["-ne"]],
        [with_, []],
      ];
      if (round % 2 === 1) turns.reverse();
      for (const [into, args] of turns) into.push(await start(lab, ...args));
    }
    for (const [name, runs] of [
      ["without", without],
      ["with the package", with_],
    ] as const) {
      const [wall, spent] = [median(runs.map((run) => run.wall)), median(runs.map((run) => run.cpu))];
      console.log(`| ${harness.name} | ${name} | ${wall} | ${spent} | ${runs.length} |`);
    }
  } finally {
    await lab.end();
  }
}

console.log("| harness | | ms to the first answer: median (quartiles) | processor ms | n |\n|---|---|---:|---:|---:|");
await measure(PI_073);
await measure(PI_087);
