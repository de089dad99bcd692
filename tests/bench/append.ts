/**
 * Appends to one safekeeper, a process of its own, over the proposer's protocol: one record a message, of 8 B to 1 MiB;
 * one after the other (each waits until it is durable), and pipelined. Beside each a bare loop of writes and fdatasyncs in
 * this process: as many as there were appends, or of 1 MiB each where many share one.
 *
 *   bun run bench append [--seconds 1] [--sizes 8,64,1024,8192,131072,1048576] [--executable dist/strata]
 */
import { parseArgs } from "node:util";
import { logicalMessages, WalGenerator } from "../../src/postgres/wal/generator.ts";
import { encodeProposerMessage, MAX_APPEND_BYTES } from "../../src/safekeeper/api/proposer-protocol.ts";
import { ProposerDriver } from "../safekeeper/support/driver.ts";
import { Bench, median, mib } from "./support/processes.ts";
import { rawWrites } from "./support/raw-writes.ts";

const { values: args } = parseArgs({ options: { seconds: { type: "string", default: "1" }, sizes: { type: "string", default: "8,64,1024,8192,131072,1048576" }, executable: { type: "string" } } });
const SECONDS = Number(args.seconds);
const MIB = 1024 * 1024;
const SEGMENT = 16 * MIB;
const START = SEGMENT + 40;
/** Pipelined: not acknowledged, at most. */
const WINDOW_BYTES = 8 * MIB;
const MAX_WAL_BYTES = 512 * MIB;
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

async function main(bench: Bench): Promise<void> {
  console.log("payload   fsync  one by one: µs (bare µs, ratio)        pipelined: MiB/s, appends/s (bare 1 MiB writes MiB/s, ratio)");
  for (const sync of [true, false]) {
    const { port } = await bench.safekeeper(sync ? 1 : 2, sync ? [] : ["--no-sync"]);
    for (const size of args.sizes.split(",").map(Number)) {
      const wal = prepare(size);
      const single = await oneByOne(port, wal);
      const bare = rawWrites(bench.directory, { sizeBytes: Math.ceil(single.bytes / single.appends), sync, seconds: SECONDS / 2, maxBytes: MAX_WAL_BYTES });
      const bareUs = bare.medianUs;
      const piped = await pipelined(port, wal);
      const disk = rawWrites(bench.directory, { sizeBytes: MIB, sync, seconds: SECONDS / 2, maxBytes: MAX_WAL_BYTES });
      const rates = [piped.bytes / piped.seconds, disk.bytes / disk.seconds];
      console.log(
        `${String(size).padStart(7)}   ${sync ? "on " : "off"}    ${single.latencyUs.toFixed(0).padStart(6)} (${bareUs.toFixed(0)}, ${(single.latencyUs / bareUs).toFixed(2)}×)`.padEnd(52) +
          `${mib(rates[0]).padStart(6)} MiB/s, ${(piped.appends / piped.seconds).toFixed(0)}/s (${mib(rates[1])} MiB/s, ${(rates[0] / rates[1]).toFixed(2)}×)`,
      );
    }
  }
}

const bench = new Bench("append", args.executable);
try {
  await main(bench);
} finally {
  await bench.end();
}
process.exit(0);
