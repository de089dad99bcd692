/**
 * Appends to one safekeeper, a process of its own, over the proposer's protocol: one record a message, of 8 B to 1 MiB;
 * one after the other (each waits until it is durable), and pipelined. Beside each a bare loop of writes and fdatasyncs in
 * this process: as many as there were appends, or of 1 MiB each where many share one. Medians of the rounds, after one that does
 * not count; and the safekeeper's own processor time of an append, which other load on the machine leaves as it is.
 *
 * With `--profile-duration` nothing is measured: for each size the pipelined load goes on for so many seconds, and where the
 * safekeeper spends them is written to a file, a flame graph or a pprof profile.
 *
 *   bun run bench append [--seconds 1] [--rounds 3] [--sizes 8,64,1024,8192,131072,1048576] [--fsync on,off] [--executable dist/strata]
 *   bun run bench append --profile-duration 10 [--profile-format svg|pprof] [--profile-directory .]
 */
import { mkdirSync } from "node:fs";
import { loadavg } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { logicalMessages, WalGenerator } from "../../src/postgres/wal/generator.ts";
import { encodeProposerMessage, MAX_APPEND_BYTES } from "../../src/safekeeper/api/proposer-protocol.ts";
import { ProposerDriver } from "../safekeeper/support/driver.ts";
import { cpuTimeMs } from "./support/cpu.ts";
import { Bench, goal, median, mib } from "./support/processes.ts";
import { rawWrites } from "./support/raw-writes.ts";

const { values: args } = parseArgs({
  options: {
    seconds: { type: "string", default: "1" }, rounds: { type: "string", default: "3" }, sizes: { type: "string", default: "8,64,1024,8192,131072,1048576" },
    fsync: { type: "string", default: "on,off" }, executable: { type: "string" },
    "profile-duration": { type: "string" }, "profile-format": { type: "string", default: "svg" }, "profile-directory": { type: "string", default: "." },
  },
});
const SECONDS = Number(args.seconds);
const PROFILE_SECONDS_MAX = 60;
const MIB = 1024 * 1024;
const SEGMENT = 16 * MIB;
const START = SEGMENT + 40;
/** Pipelined: not acknowledged, at most. */
const WINDOW_BYTES = 8 * MIB;
const MAX_WAL_BYTES = 512 * MIB;
/** What a second is to bring, pipelined and durable, by payload; or, where the disk gives less, a share of what it gives. */
const GOALS: Readonly<Record<number, number>> = { 1024: 500 * MIB, 8192: 700 * MIB, 131_072: 1000 ** 3 };
const GOAL_OF_DISK = 0.9;
const TENANT = "11".repeat(16);
/** Cut into records beforehand: generating must not be measured. */
const PREPARED_BYTES = 24 * MIB;

interface Wal {
  /** Ends of the records, relative to the first byte. */
  readonly ends: readonly number[];
  /** For each record the messages that carry it. */
  readonly messages: readonly (readonly Uint8Array[])[];
}

function prepare(payloadSizeBytes: number): Wal {
  const generator = new WalGenerator(logicalMessages(17, { prefix: "b", payloadSizeBytes }), { version: 17, segmentSize: SEGMENT, startLsn: START, previousLsn: START - 100, systemId: 7n, timelineId: 1 });
  const ends: number[] = [];
  const wanted = Math.min(PREPARED_BYTES, Math.max(4 * MIB, 20_000 * (payloadSizeBytes + 80)));
  while (generator.position < START + wanted) ends.push(generator.next().endLsn - START);
  const bytes = generator.take();
  return { ends, messages: ends.map((end, index) => encode(bytes, ends[index - 1] ?? 0, end)) };
}

function encode(wal: Uint8Array, from: number, to: number): Uint8Array[] {
  const messages: Uint8Array[] = [];
  for (let at = from; at < to; at += MAX_APPEND_BYTES) {
    const end = Math.min(to, at + MAX_APPEND_BYTES);
    const append = { kind: "append", generation: 0, term: 1, beginLsn: START + at, endLsn: START + end, commitLsn: START, truncateLsn: START, walData: wal.subarray(at, end) } as const;
    messages.push(encodeProposerMessage(append, 3));
  }
  return messages;
}

let timelines = 0;

async function begin(port: number): Promise<ProposerDriver> {
  const proposer = await ProposerDriver.connect({ port, tenantId: TENANT, timelineId: (++timelines).toString(16).padStart(32, "0") });
  await proposer.greet({ walSegmentSizeBytes: SEGMENT });
  await proposer.requestVote(1);
  proposer.elected([{ term: 1, lsn: START }], START);
  return proposer;
}

interface Result {
  readonly appends: number;
  readonly bytes: number;
  readonly seconds: number;
  readonly latencyUs: number;
}

async function oneByOne(port: number, wal: Wal): Promise<Result> {
  const proposer = await begin(port);
  const latencies: number[] = [];
  let from = 0;
  const start = performance.now();
  for (const [index, end] of wal.ends.entries()) {
    const sent = performance.now();
    for (const message of wal.messages[index]) proposer.sendEncoded(message);
    await proposer.flushedTo(START + end);
    latencies.push(performance.now() - sent);
    from = end;
    if (performance.now() - start > SECONDS * 1000) break;
  }
  proposer.close();
  return { appends: latencies.length, bytes: from, seconds: (performance.now() - start) / 1000, latencyUs: median(latencies) * 1000 };
}

async function pipelined(port: number, wal: Wal): Promise<Result> {
  const proposer = await begin(port);
  let from = 0;
  let acknowledged = 0;
  let appends = 0;
  const start = performance.now();
  for (const [index, end] of wal.ends.entries()) {
    for (const message of wal.messages[index]) proposer.sendEncoded(message);
    from = end;
    appends++;
    while (from - acknowledged > WINDOW_BYTES) acknowledged = (await proposer.flushedTo(START + acknowledged + 1)).flushLsn - START;
    if (performance.now() - start > SECONDS * 1000) break;
  }
  await proposer.flushedTo(START + from);
  const seconds = (performance.now() - start) / 1000;
  proposer.close();
  return { appends, bytes: from, seconds, latencyUs: 0 };
}

type Safekeeper = Awaited<ReturnType<Bench["safekeeper"]>>;

interface Round {
  readonly oneByOneUs: number;
  readonly bareUs: number;
  readonly rate: number;
  readonly appendsPerSecond: number;
  readonly cpuUs: number;
  readonly diskRate: number;
}

async function measure(bench: Bench, safekeeper: Safekeeper, options: { wal: Wal; sync: boolean }): Promise<Round> {
  const { wal, sync } = options;
  const raw = { sync, seconds: SECONDS / 2, maxBytes: MAX_WAL_BYTES };
  const single = await oneByOne(safekeeper.port, wal);
  const bare = rawWrites(bench.directory, { ...raw, sizeBytes: Math.ceil(single.bytes / single.appends) });
  const cpuBefore = cpuTimeMs([safekeeper.pid]);
  const piped = await pipelined(safekeeper.port, wal);
  const cpuMs = cpuTimeMs([safekeeper.pid]) - cpuBefore;
  const disk = rawWrites(bench.directory, { ...raw, sizeBytes: MIB });
  return {
    oneByOneUs: single.latencyUs, bareUs: bare.medianUs, rate: piped.bytes / piped.seconds, appendsPerSecond: piped.appends / piped.seconds,
    cpuUs: (cpuMs * 1000) / piped.appends, diskRate: disk.bytes / disk.seconds,
  };
}

/** Prints a line of one size; returns its ratios for the last line. */
async function compare(bench: Bench, safekeeper: Safekeeper, options: { size: number; sync: boolean }): Promise<string> {
  const wal = prepare(options.size);
  await pipelined(safekeeper.port, wal);
  const rounds: Round[] = [];
  for (let round = 0; round < Number(args.rounds); round++) rounds.push(await measure(bench, safekeeper, { wal, sync: options.sync }));
  const of = (pick: (round: Round) => number): number => median(rounds.map(pick));
  const [oneUs, bareUs, rate, diskRate] = [of((round) => round.oneByOneUs), of((round) => round.bareUs), of((round) => round.rate), of((round) => round.diskRate)];
  console.log(
    `${String(options.size).padStart(7)}   ${options.sync ? "on " : "off"}    ${oneUs.toFixed(0).padStart(6)} (${bareUs.toFixed(0)}, ${(oneUs / bareUs).toFixed(2)}×)`.padEnd(52) +
      `${mib(rate).padStart(6)} MiB/s, ${of((round) => round.appendsPerSecond).toFixed(0)}/s, ${of((round) => round.cpuUs).toFixed(1)} µs of CPU each ` +
      `(${mib(diskRate)} MiB/s, ${(rate / diskRate).toFixed(2)}×; rounds: ${rounds.map((round) => mib(round.rate)).join(" ")})${options.sync ? wanted(options.size, { rate, diskRate }) : ""}`,
  );
  return `${options.size} B ${(rate / diskRate).toFixed(2)}× pipelined, ${(oneUs / bareUs).toFixed(2)}× latency`;
}

function wanted(size: number, rates: { readonly rate: number; readonly diskRate: number }): string {
  const bytes = GOALS[size];
  if (bytes === undefined) return "";
  const byDisk = rates.diskRate * GOAL_OF_DISK < bytes;
  return byDisk ? ` ${goal(rates.rate / rates.diskRate, { atLeast: GOAL_OF_DISK, unit: "× the disk's" })}` : ` ${goal(Math.round(rates.rate / MIB), { atLeast: Math.round(bytes / MIB), unit: " MiB/s" })}`;
}

/** The pipelined load for as long as the safekeeper's profiler runs; returns the file written. */
async function profileOne(safekeeper: Safekeeper, options: { size: number; sync: boolean; seconds: number; format: string }): Promise<string> {
  const { size, sync, seconds, format } = options;
  const wal = prepare(size);
  await pipelined(safekeeper.port, wal);
  const state = { sampling: true };
  const sampled = fetch(`http://127.0.0.1:${safekeeper.httpPort}/profile/cpu?seconds=${seconds}&frequency=999&format=${format}`).finally(() => {
    state.sampling = false;
  });
  while (state.sampling) await pipelined(safekeeper.port, wal);
  const reply = await sampled;
  if (!reply.ok) throw new Error(`no profile: ${reply.status} ${await reply.text()}`);
  mkdirSync(args["profile-directory"], { recursive: true });
  const path = join(args["profile-directory"], `append-${size}-fsync-${sync ? "on" : "off"}.${format === "svg" ? "svg" : "pb"}`);
  await Bun.write(path, reply);
  return path;
}

async function main(bench: Bench): Promise<void> {
  const seconds = args["profile-duration"] === undefined ? null : Number(args["profile-duration"]);
  const format = args["profile-format"];
  if (seconds !== null && !(Number.isInteger(seconds) && seconds >= 1 && seconds <= PROFILE_SECONDS_MAX)) throw new Error(`--profile-duration is 1 to ${PROFILE_SECONDS_MAX} seconds`);
  if (format !== "svg" && format !== "pprof") throw new Error("--profile-format is svg or pprof");
  if (seconds === null) console.log("payload   fsync  one by one: µs (bare µs, ratio)        pipelined: MiB/s, appends/s (bare 1 MiB writes MiB/s, ratio)");
  for (const mode of args.fsync.split(",")) {
    const sync = mode === "on";
    const safekeeper = await bench.safekeeper(sync ? 1 : 2, sync ? [] : ["--no-sync"]);
    const ratios: string[] = [];
    for (const size of args.sizes.split(",").map(Number)) {
      if (seconds === null) ratios.push(await compare(bench, safekeeper, { size, sync }));
      else console.log(await profileOne(safekeeper, { size, sync, seconds, format }));
    }
    if (ratios.length > 0) console.log(`ratio to the bare loop, fsync ${mode}: ${ratios.join("; ")}; load average ${loadavg()[0].toFixed(1)}`);
  }
}

const bench = new Bench("append", args.executable);
try {
  await main(bench);
} finally {
  await bench.end();
}
process.exit(0);
