/**
 * Bulk WAL into three safekeepers, each a process of its own, fsync on: one driver sends every append to all of them and
 * counts what two have made durable. Beside it: three bare processes' worth of 1 MiB writes with fdatasync, one file after
 * the other in turn, which is what the disk gives to three copies on one machine.
 *
 *   bun run bench wal-bulk [--mib 256] [--rounds 3] [--executable dist/strata]
 */
import { closeSync, fdatasyncSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { heapInserts, WalGenerator } from "../../src/postgres/wal/generator.ts";
import { MAX_APPEND_BYTES } from "../../src/safekeeper/api/proposer-protocol.ts";
import { QuorumDriver } from "./support/quorum-driver.ts";
import { Bench, median, mib, residentBytes } from "./support/processes.ts";

const { values: args } = parseArgs({ options: { mib: { type: "string", default: "256" }, rounds: { type: "string", default: "3" }, executable: { type: "string" } } });
const MIB = 1024 * 1024;
const SEGMENT = 16 * MIB;
const START = SEGMENT + 40;
const WINDOW_BYTES = 8 * MIB;

async function push(ports: readonly number[], wal: Uint8Array, round: number): Promise<number> {
  const quorum = await QuorumDriver.connect(ports, { timelineId: (round + 1).toString(16).padStart(32, "0"), startLsn: START, segmentSizeBytes: SEGMENT });
  const start = performance.now();
  for (let at = 0; at < wal.length; at += MAX_APPEND_BYTES) {
    quorum.append(wal.subarray(at, at + MAX_APPEND_BYTES));
    if (quorum.endLsn - quorum.commitLsn > WINDOW_BYTES) await quorum.committed(quorum.endLsn - WINDOW_BYTES);
  }
  await quorum.everywhere(quorum.endLsn);
  const seconds = (performance.now() - start) / 1000;
  quorum.close();
  return wal.length / seconds;
}

/** Bytes a second of one copy when three are written. */
function bareThree(directory: string, bytes: number): number {
  const paths = [1, 2, 3].map((number) => join(directory, `raw-${number}`));
  const files = paths.map((path) => openSync(path, "w"));
  const piece = new Uint8Array(MIB).fill(7);
  const start = performance.now();
  for (let at = 0; at < bytes; at += MIB) {
    for (const fd of files) {
      writeSync(fd, piece);
      fdatasyncSync(fd);
    }
  }
  const seconds = (performance.now() - start) / 1000;
  files.forEach((fd) => closeSync(fd));
  paths.forEach((path) => rmSync(path));
  return bytes / seconds;
}

async function main(bench: Bench): Promise<void> {
  const safekeepers = await Promise.all([1, 2, 3].map((nodeId) => bench.safekeeper(nodeId)));
  const generator = new WalGenerator(heapInserts(17, { tupleSizeBytes: 200, tuplesPerPage: 30 }), { version: 17, segmentSize: SEGMENT, startLsn: START, previousLsn: START - 100, systemId: 7n, timelineId: 1 });
  const wal = generator.generate(Number(args.mib) * MIB);
  const ours: number[] = [];
  const bare: number[] = [];
  for (let round = 0; round < Number(args.rounds); round++) {
    ours.push(await push(safekeepers.map(({ port }) => port), wal, round));
    bare.push(bareThree(bench.directory, 64 * MIB));
  }
  const rss = safekeepers.map(({ pid }) => mib(residentBytes(pid))).join(" ");
  console.log(`bulk WAL of heap inserts, ${args.mib} MiB a round: ${ours.map((rate) => mib(rate)).join(" ")} MiB/s; resident after it: ${rss} MiB`);
  console.log(`bare writes of three copies: ${bare.map((rate) => mib(rate)).join(" ")} MiB/s a copy`);
  console.log(`medians: ${mib(median(ours))} against ${mib(median(bare))} MiB/s, ratio ${(median(ours) / median(bare)).toFixed(2)}×`);
}

const bench = new Bench("wal-bulk", args.executable);
try {
  await main(bench);
} finally {
  await bench.end();
}
process.exit(0);
