/**
 * Bulk WAL into three safekeepers, fsync on, beside a stock PostgreSQL 15 whose commits wait for two of three
 * `pg_receivewal --synchronous`. Interleaved rounds, every second one in the opposite order, after one that does not count. Two loads:
 *
 * - WAL that is there already: until two of three have all of it on disk. The safekeepers are sent heap inserts by one driver that
 *   is at most a window ahead of the second of them; the receivers are stopped while the WAL is made, and then let go, with the few
 *   MiB that sockets hold already on their way.
 * - One transaction that writes that much, from its first statement to the end of its commit, on either PostgreSQL: what it
 *   takes to make the WAL is part of it, and on the opponent's side PostgreSQL's own fsynced copy.
 *
 * And three copies written in turn by a bare loop, 1 MiB and an fdatasync each, right before and after the first load: what the
 * disk gives to three on one machine.
 *
 *   bun run bench wal-bulk [--mib 256] [--rounds 3] [--executable dist/strata]
 */
import { closeSync, fdatasyncSync, openSync, rmSync, writeSync } from "node:fs";
import { availableParallelism, loadavg } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { Sql } from "postgres";
import { heapInserts, WalGenerator } from "../../src/postgres/wal/generator.ts";
import { MAX_APPEND_BYTES } from "../../src/safekeeper/api/proposer-protocol.ts";
import { cpuTimeMs } from "./support/cpu.ts";
import { type CommitServer, connect, startOurs, startReceivers } from "./support/postgres-quorum.ts";
import { Bench, goal, median, mib, residentBytes } from "./support/processes.ts";
import { QuorumDriver } from "./support/quorum-driver.ts";

const { values: args } = parseArgs({ options: { mib: { type: "string", default: "256" }, rounds: { type: "string", default: "3" }, executable: { type: "string" } } });
const MIB = 1024 * 1024;
const SEGMENT = 16 * MIB;
const START = SEGMENT + 40;
const WINDOW_BYTES = 8 * MIB;
const BULK_BYTES = Number(args.mib) * MIB;
const BARE_BYTES = Math.min(64 * MIB, BULK_BYTES);
const MESSAGE_BYTES = 8192;
const SETTLE_TRIES = 3000;
/** More between the best and the worst round of the bare loop is somebody else's load. */
const STEADY_SPREAD = 1.5;
/** Until a commit that is sent waits for the receivers. */
const COMMIT_WAITS_MS = 200;

/** Processor time, milliseconds a MiB. */
interface Cpu {
  /** The three that make it durable. */
  readonly writers: number;
  /** What makes it and sends it to them. */
  readonly sender: number;
}

interface Run {
  /** Bytes a second, durable on two of three. */
  readonly rate: number;
  /** On all three, where that is waited for. */
  readonly rateOfAll: number;
  readonly cpu: Cpu;
}

interface Contestant {
  readonly name: string;
  readonly run: () => Promise<Run>;
}

let timelines = 0;

async function push(safekeepers: readonly { readonly port: number; readonly pid: number }[], wal: Uint8Array): Promise<Run> {
  const ports = safekeepers.map(({ port }) => port);
  const quorum = await QuorumDriver.connect(ports, { timelineId: (++timelines).toString(16).padStart(32, "0"), startLsn: START, segmentSizeBytes: SEGMENT });
  const cpu = startCpu(safekeepers.map(({ pid }) => pid));
  const start = performance.now();
  for (let at = 0; at < wal.length; at += MAX_APPEND_BYTES) {
    quorum.append(wal.subarray(at, at + MAX_APPEND_BYTES));
    if (quorum.endLsn - quorum.commitLsn > WINDOW_BYTES) await quorum.committed(quorum.endLsn - WINDOW_BYTES);
  }
  await quorum.committed(quorum.endLsn);
  const majorityMs = performance.now() - start;
  await quorum.everywhere(quorum.endLsn);
  const allMs = performance.now() - start;
  quorum.close();
  return { rate: (wal.length / majorityMs) * 1000, rateOfAll: (wal.length / allMs) * 1000, cpu: cpu(wal.length) };
}

/** Returns what is spent from now on, with this process among the senders. */
function startCpu(writers: readonly number[], postgres: readonly number[] = []): (bytes: number) => Cpu {
  const [written, sent, own] = [cpuTimeMs(writers), cpuTimeMs(postgres), process.cpuUsage()];
  return (bytes) => {
    const { user, system } = process.cpuUsage(own);
    const senderMs = cpuTimeMs(postgres) - sent + (user + system) / 1000;
    return { writers: ((cpuTimeMs(writers) - written) * MIB) / bytes, sender: (senderMs * MIB) / bytes };
  };
}

async function position(sql: Sql): Promise<number> {
  const [{ at }] = await sql`select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 as at`;
  return Number(at);
}

/** One transaction that writes so much WAL; returns how much it was. */
async function writeWal(sql: Sql): Promise<number> {
  const before = await position(sql);
  await sql`select count(pg_logical_emit_message(true, 'bulk', repeat('x', ${MESSAGE_BYTES}::int))) from generate_series(1, ${Math.ceil(BULK_BYTES / MESSAGE_BYTES)}::int)`;
  return (await position(sql)) - before;
}

async function transaction(server: CommitServer, sql: Sql): Promise<Run> {
  const cpu = startCpu(server.writers, server.processes.postgres);
  const start = performance.now();
  const bytes = await writeWal(sql);
  const rate = (bytes / (performance.now() - start)) * 1000;
  await settled(sql, server);
  return { rate, rateOfAll: Number.NaN, cpu: cpu(bytes) };
}

/** Until all the receivers have everything, so that none is still at work when the next run begins. */
async function settled(sql: Sql, server: CommitServer): Promise<void> {
  for (let tries = 0; tries < SETTLE_TRIES; tries++) {
    const [{ n }] = await sql`select count(*)::int as n from pg_stat_replication where flush_lsn >= pg_current_wal_flush_lsn()`;
    if (n >= Number(server.processes.receivers?.length ?? 1)) return;
    await Bun.sleep(10);
  }
  throw new Error(`${server.name} does not catch up`);
}

async function catchUp(server: CommitServer, sessions: { readonly sql: Sql; readonly witness: Sql }): Promise<Run> {
  const { sql, witness } = sessions;
  for (const pid of server.writers) process.kill(pid, "SIGSTOP");
  await sql`set synchronous_commit = local`;
  const bytes = await writeWal(sql);
  await sql`set synchronous_commit = on`;
  const last = sql`select pg_logical_emit_message(true, 'bulk', 'end')`.execute();
  await Bun.sleep(COMMIT_WAITS_MS);
  const cpu = startCpu(server.writers, server.processes.postgres);
  const start = performance.now();
  for (const pid of server.writers) process.kill(pid, "SIGCONT");
  await last;
  const majorityMs = performance.now() - start;
  await settled(witness, server);
  const allMs = performance.now() - start;
  return { rate: (bytes / majorityMs) * 1000, rateOfAll: (bytes / allMs) * 1000, cpu: cpu(bytes) };
}

/** Bytes a second of one copy when three are written. */
function bareThree(directory: string): number {
  const paths = [1, 2, 3].map((number) => join(directory, `raw-${number}`));
  const files = paths.map((path) => openSync(path, "w"));
  const piece = new Uint8Array(MIB).fill(7);
  const start = performance.now();
  for (let at = 0; at < BARE_BYTES; at += MIB) {
    for (const fd of files) {
      writeSync(fd, piece);
      fdatasyncSync(fd);
    }
  }
  const seconds = (performance.now() - start) / 1000;
  files.forEach((fd) => closeSync(fd));
  paths.forEach((path) => rmSync(path));
  return BARE_BYTES / seconds;
}

async function measureAll(bench: Bench, contestants: readonly Contestant[]): Promise<{ readonly runs: ReadonlyMap<string, readonly Run[]>; readonly bare: readonly number[] }> {
  const runs = new Map(contestants.map(({ name }): [string, Run[]] => [name, []]));
  const bare: number[] = [];
  for (const { run } of contestants) await run();
  for (let round = 0; round < Number(args.rounds); round++) {
    for (const { name, run } of round % 2 === 0 ? contestants : contestants.toReversed()) {
      if (name !== NAMES.ours) runs.get(name)?.push(await run());
      else {
        // The disk's rate wanders: it is asked right before and right after, and compared with that round alone.
        const before = bareThree(bench.directory);
        runs.get(name)?.push(await run());
        bare.push((before + bareThree(bench.directory)) / 2);
      }
    }
  }
  return { runs, bare };
}

const NAMES = { ours: "strata, WAL that is there", theirs: "pg_receivewal, WAL that is there", oursLive: "strata, one transaction", theirsLive: "pg_receivewal, one transaction" };

async function main(bench: Bench): Promise<void> {
  const opponent = await startReceivers(bench, { wal_keep_size: `${2 * Number(args.mib) + 64}MB` });
  const safekeepers = await Promise.all([11, 12, 13].map((nodeId) => bench.safekeeper(nodeId)));
  const generator = new WalGenerator(heapInserts(17, { tupleSizeBytes: 200, tuplesPerPage: 30 }), { version: 17, segmentSize: SEGMENT, startLsn: START, previousLsn: START - 100, systemId: 7n, timelineId: 1 });
  const wal = generator.generate(BULK_BYTES);
  const compute = await startOurs(bench);
  const sql = connect(bench, compute.port);
  const contestants: Contestant[] = [
    { name: NAMES.ours, run: () => push(safekeepers, wal) },
    { name: NAMES.oursLive, run: () => transaction(compute, sql) },
  ];
  if (opponent !== null) {
    const sessions = { sql: connect(bench, opponent.port), witness: connect(bench, opponent.port) };
    contestants.splice(0, 0, { name: NAMES.theirs, run: () => catchUp(opponent, sessions) });
    contestants.splice(2, 0, { name: NAMES.theirsLive, run: () => transaction(opponent, sessions.sql) });
  }
  const { runs, bare } = await measureAll(bench, contestants);
  console.log(`${args.mib} MiB a round; resident after it: ${safekeepers.map(({ pid }) => mib(residentBytes(pid))).join(" ")} MiB a safekeeper; load average ${loadavg()[0].toFixed(1)}`);
  report(runs, bare);
}

function report(runs: ReadonlyMap<string, readonly Run[]>, bare: readonly number[]): void {
  const of = (name: string, pick: (run: Run) => number): number => median((runs.get(name) ?? []).map(pick));
  const rates = (values: readonly number[]): string => `${mib(median(values))} MiB/s (${values.map((value) => mib(value)).join(" ")})`;
  for (const [name, all] of runs) {
    const everywhere = all.some(({ rateOfAll }) => !Number.isNaN(rateOfAll)) ? `, on all three ${rates(all.map((run) => run.rateOfAll))}` : "";
    console.log(`${name.padEnd(NAMES.theirs.length)}  ${rates(all.map((run) => run.rate))}${everywhere}, CPU a MiB: writers ${of(name, (run) => run.cpu.writers).toFixed(1)} ms, sender ${of(name, (run) => run.cpu.sender).toFixed(1)} ms`);
  }
  console.log(`${"bare writes of three copies".padEnd(NAMES.theirs.length)}  ${rates(bare)} a copy`);
  const ofDisk = median((runs.get(NAMES.ours) ?? []).map((run, round) => run.rateOfAll / bare[round]));
  const spread = Math.max(...bare) / Math.min(...bare);
  if (spread > STEADY_SPREAD) console.log(`the disk was not steady: its rate changed by ${spread.toFixed(1)}× between rounds, so its share below says little`);
  const disk = `${ofDisk.toFixed(2)}× of the disk's rate for three copies ${goal(ofDisk, { atLeast: 0.8 })}`;
  if (!runs.has(NAMES.theirs)) return console.log(`ratio: none without an opponent; ${disk}`);
  const cores = availableParallelism();
  const allowed = (name: string): string => `${((cores * 1000) / (of(name, (run) => run.cpu.writers) + of(name, (run) => run.cpu.sender))).toFixed(0)} MiB/s`;
  console.log(`what ${cores} cores allow by that CPU: ${[...runs.keys()].map((name) => `${name} ${allowed(name)}`).join("; ")}`);
  const ratio = of(NAMES.ours, (run) => run.rate) / of(NAMES.theirs, (run) => run.rate);
  const live = of(NAMES.oursLive, (run) => run.rate) / of(NAMES.theirsLive, (run) => run.rate);
  console.log(`ratio: ${ratio.toFixed(2)}× for WAL that is there ${goal(ratio, { atLeast: 2.5 })}, ${live.toFixed(2)}× for one transaction ${goal(live, { atLeast: 2.5 })}, ${disk}`);
}

const bench = new Bench("wal-bulk", args.executable);
try {
  await main(bench);
} finally {
  await bench.end();
}
process.exit(0);
