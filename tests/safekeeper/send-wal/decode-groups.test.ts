import { describe, expect, test } from "bun:test";
import { StrataError } from "../../../src/kit/errors.ts";
import { decodeInterpretedBatch } from "../../../src/interpret/wire-format.ts";
import { makeShardIdentity, type ShardIdentity } from "../../../src/keyspace/shard.ts";
import { zstdDecompress } from "../../../src/kit/zstd.ts";
import { decodeInterpretedMessage } from "../../../src/safekeeper/api/wal-protocol.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";
import { DecodeGroups } from "../../../src/safekeeper/send-wal/decode-groups.ts";
import type { WalSource } from "../../../src/safekeeper/send-wal/wal-source.ts";
import { testLogger } from "../../support/test-logger.ts";
import { MIB, SampleWal, SMALL_SEGMENTS } from "../support/sample-wal.ts";

const START = 5 * MIB + 1000;
const SHARDS = [0, 1, 2, 3].map((number) => makeShardIdentity({ number, count: 4 }, 32768));

const PIECE_BYTES = 128 * 1024;

interface Faults {
  read?: Error;
  close?: Error;
}

function groupsOver(wal: SampleWal, faults: Faults = {}): { groups: DecodeGroups; log: ReturnType<typeof testLogger> } {
  const log = testLogger();
  const read = async (lsn: number, into: Uint8Array): Promise<number> => {
    if (faults.read !== undefined) throw faults.read;
    const part = wal.bytes(lsn, Math.min(wal.endLsn, lsn + into.length));
    into.set(part);
    return part.length;
  };
  const close = async (): Promise<void> => {
    if (faults.close !== undefined) throw faults.close;
  };
  return { groups: new DecodeGroups({ geometry: SMALL_SEGMENTS, reader: () => ({ read, close }) }, { clock: realPlatform().clock, log }), log };
}

interface Received {
  readonly ends: number[];
  readonly nextRecordLsn: number;
  readonly streamingLsns: number[];
}

interface DrainOptions {
  readonly endLsn: number;
  readonly zstd?: boolean;
  readonly maxMessages?: number;
  /** Between one message and the next. */
  readonly pauseMs?: number;
}

async function drain(source: WalSource, shard: ShardIdentity, options: DrainOptions): Promise<Received> {
  const ends: number[] = [];
  const streamingLsns: number[] = [];
  let nextRecordLsn = 0;
  for (let left = options.maxMessages ?? 10_000; left > 0; left--) {
    const message = await source.next(options.endLsn, 0n);
    if (message === null) break;
    const { streamingLsn, commitLsn, data } = decodeInterpretedMessage(Buffer.concat([message.header, message.body]));
    expect(message.positionLsn).toBe(streamingLsn);
    expect(commitLsn).toBeGreaterThanOrEqual(streamingLsn);
    const batch = decodeInterpretedBatch(options.zstd === true ? zstdDecompress(data, 1 << 28) : data, { version: 17, shard });
    ends.push(...batch.records.map(({ endLsn }) => endLsn));
    expect(batch.nextRecordLsn).toBeGreaterThanOrEqual(nextRecordLsn);
    nextRecordLsn = batch.nextRecordLsn;
    streamingLsns.push(streamingLsn);
    if (options.pauseMs !== undefined) await Bun.sleep(options.pauseMs);
  }
  return { ends, nextRecordLsn, streamingLsns };
}

describe("readers of interpreted WAL", () => {
  test("four shards near each other share one decode; shard 0 gets every record, the others learn where the log stands", async () => {
    const wal = new SampleWal(START).growTo(7 * MIB);
    const { groups } = groupsOver(wal);
    const sources = SHARDS.map((shard) => groups.open({ shard, extended: true, zstdLevel: shard.number === 1 ? 1 : null, startLsn: START }));
    const received = await Promise.all(sources.map((source, index) => drain(source, SHARDS[index], { endLsn: wal.endLsn, zstd: index === 1 })));
    expect(received[0].ends).toEqual(wal.ends);
    for (const one of received) expect(one.nextRecordLsn).toBe(wal.endLsn);
    expect(received[2].ends).toEqual([]);
    expect(groups.count).toBe(1);
    expect(groups.decodedPieces).toBe(Math.ceil((wal.endLsn - START) / PIECE_BYTES));
    for (const source of sources) await source.close();
    expect(groups.count).toBe(0);
  });

  test("one that joins behind gets what it lacks, and the others nothing twice", async () => {
    const wal = new SampleWal(START).growTo(7 * MIB);
    const { groups } = groupsOver(wal);
    const first = groups.open({ shard: SHARDS[0], extended: true, zstdLevel: null, startLsn: START });
    const middle = wal.lastEnd(6 * MIB);
    const before = await drain(first, SHARDS[0], { endLsn: middle });
    const behind = wal.ends[100];
    const second = groups.open({ shard: SHARDS[0], extended: true, zstdLevel: null, startLsn: behind });
    const ahead = groups.open({ shard: SHARDS[0], extended: true, zstdLevel: null, startLsn: wal.lastEnd(6 * MIB + 300_000) });
    const [rest, late, later] = await Promise.all([first, second, ahead].map((source) => drain(source, SHARDS[0], { endLsn: wal.endLsn })));
    expect([...before.ends, ...rest.ends]).toEqual(wal.ends);
    expect(late.ends).toEqual(wal.ends.filter((end) => end > behind));
    expect(later.ends).toEqual(wal.ends.filter((end) => end > wal.lastEnd(6 * MIB + 300_000)));
  });

  test("one that does not take its batches is left behind, delays nobody, and misses nothing", async () => {
    const wal = new SampleWal(START).growTo(12 * MIB);
    const { groups } = groupsOver(wal);
    const slow = groups.open({ shard: SHARDS[0], extended: true, zstdLevel: null, startLsn: START });
    const fast = groups.open({ shard: SHARDS[0], extended: true, zstdLevel: null, startLsn: START });
    const begun = await drain(slow, SHARDS[0], { endLsn: wal.endLsn, maxMessages: 1 });
    expect((await drain(fast, SHARDS[0], { endLsn: wal.endLsn })).ends).toEqual(wal.ends);
    const rest = await drain(slow, SHARDS[0], { endLsn: wal.endLsn });
    expect([...begun.ends, ...rest.ends]).toEqual(wal.ends);
  });

  test("nothing is sent before a whole record is there", async () => {
    const wal = new SampleWal(START);
    wal.add(400_000);
    const { groups } = groupsOver(wal);
    const source = groups.open({ shard: SHARDS[0], extended: true, zstdLevel: null, startLsn: START });
    expect(await source.next(wal.endLsn - 8, 0n)).toBeNull();
    expect((await drain(source, SHARDS[0], { endLsn: wal.endLsn })).ends).toEqual(wal.ends);
  });

  const whole = (shardNumber: number, startLsn: number) => ({ shard: SHARDS[shardNumber], extended: true, zstdLevel: null, startLsn });

  test("one that was left behind catches up by itself: nothing is decoded twice for the others, and then all share again", async () => {
    const wal = new SampleWal(START).growTo(12 * MIB);
    const { groups } = groupsOver(wal);
    const slow = groups.open(whole(0, START));
    const others = [groups.open(whole(0, START)), groups.open(whole(1, START))];
    const middle = wal.lastEnd(9 * MIB);
    const begun = await drain(slow, SHARDS[0], { endLsn: middle, maxMessages: 1 });
    const [first] = await Promise.all(others.map((source, index) => drain(source, SHARDS[index], { endLsn: middle })));
    const once = groups.decodedPieces;
    expect(once).toBeLessThanOrEqual(Math.ceil((middle - START) / PIECE_BYTES) + 1);

    // The slow one comes back while the others go on: what they get is decoded once for them, and once for it.
    const pieces = Math.ceil((wal.endLsn - middle) / PIECE_BYTES);
    const [rest, late] = await Promise.all([drain(others[0], SHARDS[0], { endLsn: wal.endLsn }), drain(slow, SHARDS[0], { endLsn: wal.endLsn }), drain(others[1], SHARDS[1], { endLsn: wal.endLsn })]);
    expect([...first.ends, ...rest.ends]).toEqual(wal.ends);
    expect([...begun.ends, ...late.ends]).toEqual(wal.ends);
    expect(groups.decodedPieces - once).toBeLessThanOrEqual(pieces + Math.ceil((wal.endLsn - START) / PIECE_BYTES) - 16 + 2);

    const before = groups.decodedPieces;
    wal.growTo(wal.endLsn + MIB);
    await Promise.all([...others, slow].map((source, index) => drain(source, SHARDS[index % 2], { endLsn: wal.endLsn })));
    expect(groups.count).toBe(1);
    expect(groups.decodedPieces - before).toBeLessThanOrEqual(Math.ceil(MIB / PIECE_BYTES) + 2);
  });

  test("one that is a little slower than the rest still shares their decode", async () => {
    const wal = new SampleWal(START).growTo(12 * MIB);
    const { groups } = groupsOver(wal);
    const sources = SHARDS.map((shard) => groups.open({ shard, extended: true, zstdLevel: null, startLsn: START }));
    await Promise.all(sources.map((source, index) => drain(source, SHARDS[index], { endLsn: wal.endLsn, ...(index === 0 ? { pauseMs: 2 } : {}) })));
    expect(groups.decodedPieces).toBe(Math.ceil((wal.endLsn - START) / PIECE_BYTES));
  });

  test("one that begins far behind a group that has nothing more to do goes on by itself until it has caught up", async () => {
    const wal = new SampleWal(START).growTo(12 * MIB);
    const { groups } = groupsOver(wal);
    const ahead = groups.open(whole(0, START));
    await drain(ahead, SHARDS[0], { endLsn: wal.endLsn });
    const behind = groups.open(whole(0, START));
    await drain(behind, SHARDS[0], { endLsn: wal.endLsn, maxMessages: 1 });
    expect(groups.count).toBe(2);
    expect(await ahead.next(wal.endLsn, 0n)).toBeNull();
    await drain(behind, SHARDS[0], { endLsn: wal.endLsn });
    expect(groups.count).toBe(1);
  });

  test("an error is everybody's who waits, and nobody's who comes after it; one while closing is said", async () => {
    const wal = new SampleWal(START).growTo(7 * MIB);
    const faults: Faults = {};
    const { groups, log } = groupsOver(wal, faults);
    const sources = [groups.open(whole(0, START)), groups.open(whole(1, START))];
    await Promise.all(sources.map((source) => source.next(wal.endLsn, 0n)));
    faults.read = new StrataError("not-found", "wal-segment-missing", "a segment is missing");
    faults.close = new StrataError("unavailable", "disk-failed", "the disk failed");
    log.expectWarn("a reader of WAL could not be closed");
    const failures = await Promise.all(sources.map((source) => source.next(wal.endLsn, 0n).catch((error: unknown) => error)));
    expect(failures).toEqual([faults.read, faults.read]);
    expect(groups.count).toBe(0);
    // The timer's turn: what close rejected with has been dealt with by then.
    await Bun.sleep(1);
    expect(log.entries.filter(({ level }) => level === "warn").length).toBe(1);
    delete faults.read;
    expect((await sources[0].next(wal.endLsn, 0n))?.positionLsn).toBeGreaterThan(START);
  });
});
