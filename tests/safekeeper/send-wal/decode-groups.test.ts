import { describe, expect, test } from "bun:test";
import { decodeInterpretedBatch } from "../../../src/interpret/wire-format.ts";
import { makeShardIdentity, type ShardIdentity } from "../../../src/keyspace/shard.ts";
import { zstdDecompress } from "../../../src/kit/zstd.ts";
import { decodeInterpretedMessage } from "../../../src/safekeeper/api/wal-protocol.ts";
import { DecodeGroups } from "../../../src/safekeeper/send-wal/decode-groups.ts";
import type { WalSource } from "../../../src/safekeeper/send-wal/wal-source.ts";
import { MIB, SampleWal, SMALL_SEGMENTS } from "../support/sample-wal.ts";

const START = 5 * MIB + 1000;
const SHARDS = [0, 1, 2, 3].map((number) => makeShardIdentity({ number, count: 4 }, 32768));

function groupsOver(wal: SampleWal): { groups: DecodeGroups; reads: number[] } {
  const reads: number[] = [];
  const read = async (lsn: number, into: Uint8Array): Promise<number> => {
    reads.push(lsn);
    const part = wal.bytes(lsn, Math.min(wal.endLsn, lsn + into.length));
    into.set(part);
    return part.length;
  };
  return { groups: new DecodeGroups({ geometry: SMALL_SEGMENTS, reader: () => ({ read, close: async () => {} }) }), reads };
}

interface Received {
  readonly ends: number[];
  readonly nextRecordLsn: number;
  readonly streamingLsns: number[];
}

async function drain(source: WalSource, shard: ShardIdentity, options: { endLsn: number; zstd?: boolean; maxMessages?: number }): Promise<Received> {
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
  }
  return { ends, nextRecordLsn, streamingLsns };
}

describe("readers of interpreted WAL", () => {
  test("four shards near each other share one decode; shard 0 gets every record, the others learn where the log stands", async () => {
    const wal = new SampleWal(START).growTo(7 * MIB);
    const { groups } = groupsOver(wal);
    const sources = SHARDS.map((shard) => groups.open({ shard, extended: true, zstdLevel: shard.number === 1 ? 1 : null, startLsn: START }));
    expect(groups.count).toBe(1);
    const received = await Promise.all(sources.map((source, index) => drain(source, SHARDS[index], { endLsn: wal.endLsn, zstd: index === 1 })));
    expect(received[0].ends).toEqual(wal.ends);
    for (const one of received) expect(one.nextRecordLsn).toBe(wal.endLsn);
    expect(received[2].ends).toEqual([]);
    expect(groups.decodedPieces).toBe(Math.ceil((wal.endLsn - START) / (128 * 1024)));
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
    expect(groups.count).toBe(1);
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
});
