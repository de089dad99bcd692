/**
 * Processor time of other processes, from /proc: where a commit's time goes when the machine, not the disk, is the bound. Unlike
 * seconds on the wall it says the same on a busy machine as on an idle one.
 */
import { readdirSync, readFileSync } from "node:fs";

/** USER_HZ, which is 100 on every Linux the benchmarks run on. */
const TICK_MS = 10;

interface Stat {
  readonly pid: number;
  readonly parent: number;
  /** Its own and that of children it has waited for. */
  readonly cpuMs: number;
}

/** Fields behind the command's closing bracket: state, ppid, … utime (14), stime (15), cutime (16), cstime (17), proc(5). */
function statOf(pid: number): Stat | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    const ticks = [11, 12, 13, 14].reduce((sum, at) => sum + Number(fields[at]), 0);
    return { pid, parent: Number(fields[1]), cpuMs: ticks * TICK_MS };
  } catch {
    // It has ended.
    return null;
  }
}

/** Of the processes and all below them, since they began. */
export function cpuTimeMs(roots: readonly number[]): number {
  const all = readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map((name) => statOf(Number(name))).filter((stat) => stat !== null);
  const wanted = new Set(roots);
  for (let grown = true; grown; ) {
    grown = false;
    for (const { pid, parent } of all) if (wanted.has(parent) && !wanted.has(pid)) grown = wanted.add(pid).size > 0;
  }
  return all.reduce((sum, { pid, cpuMs }) => sum + (wanted.has(pid) ? cpuMs : 0), 0);
}

/** System calls that write, and times it went to sleep of its own accord, since it began. */
export function activityOf(pid: number): { readonly writes: number; readonly sleeps: number } {
  const writes = Number(/syscw: (\d+)/.exec(readFileSync(`/proc/${pid}/io`, "utf8"))?.[1] ?? 0);
  const sleeps = Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0);
  return { writes, sleeps };
}
