/** What this process has used of the machine, as the system counts it; what it does not tell is 0. */
import { readdirSync, readFileSync } from "node:fs";

export interface ProcessUsage {
  readonly cpuSeconds: number;
  readonly residentBytes: number;
  readonly maxResidentBytes: number;
  readonly virtualBytes: number;
  readonly lockedBytes: number;
  /** To and from disks, not to and from the page cache. */
  readonly diskReadBytes: number;
  readonly diskWrittenBytes: number;
  readonly openFiles: number;
  readonly maxOpenFiles: number;
  readonly threads: number;
  /** Since the epoch. */
  readonly startedSeconds: number;
}

/** getrusage(2) counts in blocks of this size, whatever the disk's. */
const BLOCK_BYTES = 512;
const STARTED_MS = performance.timeOrigin;

export function processUsage(): ProcessUsage {
  const { userCPUTime, systemCPUTime, maxRSS, fsRead, fsWrite } = process.resourceUsage();
  const status = textOf("/proc/self/status");
  return {
    cpuSeconds: (userCPUTime + systemCPUTime) / 1e6,
    residentBytes: process.memoryUsage.rss(),
    maxResidentBytes: maxRSS * 1024,
    virtualBytes: statusNumber(status, "VmSize") * 1024,
    lockedBytes: statusNumber(status, "VmLck") * 1024,
    diskReadBytes: fsRead * BLOCK_BYTES,
    diskWrittenBytes: fsWrite * BLOCK_BYTES,
    openFiles: countOf("/proc/self/fd"),
    maxOpenFiles: Number(/^Max open files\s+(\d+)/m.exec(textOf("/proc/self/limits"))?.[1] ?? 0),
    threads: statusNumber(status, "Threads"),
    startedSeconds: STARTED_MS / 1000,
  };
}

function statusNumber(status: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(status)?.[1] ?? 0);
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function countOf(directory: string): number {
  try {
    return readdirSync(directory).length;
  } catch {
    return 0;
  }
}
