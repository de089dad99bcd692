/** Finds and kills processes by what /proc says: descendants of a process, and leftovers of a killed cluster. */
import { readdir, readFile } from "node:fs/promises";
import { signalProcess } from "../../platform/processes.ts";

interface ProcessEntry {
  readonly pid: number;
  readonly parentPid: number;
}

async function allProcesses(): Promise<ProcessEntry[]> {
  const entries: ProcessEntry[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const stat = await readFile(`/proc/${name}/stat`, "utf8").catch(() => "");
    // The command name is in parentheses and may hold anything: fields are counted from behind it.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const parentPid = Number(fields[1]);
    if (Number.isInteger(parentPid)) entries.push({ pid: Number(name), parentPid });
  }
  return entries;
}

/** Whether it still runs: a zombie, whose parent has not asked for its end yet, does not. */
export async function isRunning(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  const state = stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3);
  return state !== "" && state !== "Z" && state !== "X";
}

/** The process and all below it, children before parents. */
export async function processTree(root: number): Promise<number[]> {
  const all = await allProcesses();
  const children = Map.groupBy(all, (entry) => entry.parentPid);
  const order: number[] = [];
  const visit = (pid: number, depth: number): void => {
    if (depth > 64) return;
    for (const child of children.get(pid) ?? []) visit(child.pid, depth + 1);
    order.push(pid);
  };
  visit(root, 0);
  return all.some((entry) => entry.pid === root) ? order : order.filter((pid) => pid !== root);
}

/** SIGKILL to the whole tree, found first so that nobody's children are orphaned before they are seen. */
export async function killTree(root: number): Promise<number> {
  const pids = await processTree(root);
  for (const pid of pids) signalProcess(pid, "SIGSTOP");
  for (const pid of pids) signalProcess(pid, "SIGKILL");
  return pids.length;
}

/** Processes that have `argument` as one word of their command line, ourselves left out. */
export async function processesWithArgument(argument: string): Promise<number[]> {
  const found: number[] = [];
  for (const { pid } of await allProcesses()) {
    if (pid === process.pid) continue;
    const words = (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).split("\0");
    if (words.some((word) => word === argument || word.startsWith(`${argument}/`))) found.push(pid);
  }
  return found;
}
