import { describe, expect, test } from "bun:test";
import type { InterpretedRecord } from "../../../src/interpret/interpret-record.ts";
import { relBlockKey, slruBlockKey } from "../../../src/keyspace/mapping.ts";
import type { RelTag } from "../../../src/keyspace/relation.ts";
import { type ShardIdentity, UNSHARDED_IDENTITY } from "../../../src/keyspace/shard.ts";
import { DatadirModification } from "../../../src/pageserver/datadir/datadir-modification.ts";
import { TimelineDatadir } from "../../../src/pageserver/datadir/timeline-datadir.ts";
import { newestCommitTsXid } from "../../../src/pageserver/datadir/commit-ts-limits.ts";
import { CheckpointTracker } from "../../../src/pageserver/ingest/checkpoint-tracker.ts";
import { WalIngest } from "../../../src/pageserver/ingest/wal-ingest.ts";
import { type CheckPoint, decodeCheckPoint, encodeCheckPoint } from "../../../src/postgres/control-file/checkpoint.ts";
import type { ParameterChange } from "../../../src/postgres/effects/xlog.ts";
import { commitTs } from "../../../src/postgres/slru/commit-ts.ts";
import { type ControlFile, decodeControlFile } from "../../../src/postgres/control-file/control-file.ts";
import { plainControlFile } from "../../support/control-file.ts";
import { type ApplyRecord, NaiveTimelineStore } from "../../support/naive-timeline-store.ts";

const context = { task: "test" };
const rel: RelTag = { spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 };
const CHECKPOINT: CheckPoint = {
  redo: 0x100, timelineId: 1, previousTimelineId: 1, fullPageWrites: false, walLevel: 1, nextFullXid: 1000n, nextOid: 20000, nextMulti: 1, nextMultiOffset: 1,
  oldestXid: 700, oldestXidDb: 1, oldestMulti: 1, oldestMultiDb: 1, timeSeconds: 0n, oldestCommitTsXid: 0, newestCommitTsXid: 0, oldestActiveXid: 0,
};
const COMMIT = { kind: "xact-commit" as const, prepared: false, time: 42n, subxids: [] as number[], droppedRelations: [], dropsRelcacheInitFile: false, dbOid: 5, spcOid: 1663, gid: null, origin: null };
const SETTINGS: ParameterChange = {
  kind: "parameter-change", maxConnections: 33, maxWorkerProcesses: 9, maxWalSenders: 5, maxPreparedXacts: 7, maxLocksPerXact: 65, walLevel: 2, walLogHints: true, trackCommitTimestamp: true,
};
/** "Redo" that adds one to the first byte. */
const addOne: ApplyRecord = (_key, _value, page) => {
  page[0]++;
  return page;
};

async function started(shard: ShardIdentity = UNSHARDED_IDENTITY, nextFullXid = 1000n): Promise<{ datadir: TimelineDatadir; store: NaiveTimelineStore; ingest: WalIngest }> {
  const store = new NaiveTimelineStore({ lastRecordLsn: 0x100, applyRecord: addOne });
  const datadir = new TimelineDatadir(store, { version: 17, shard });
  const modification = new DatadirModification(datadir);
  modification.beginRecord(0x100, 0x200);
  modification.initializeEmpty();
  modification.putCheckpoint(encodeCheckPoint({ ...CHECKPOINT, nextFullXid }, 17));
  modification.putControlFile(plainControlFile(17, CHECKPOINT));
  await modification.commit();
  return { datadir, store, ingest: await WalIngest.start(datadir) };
}

let lsn = 0x200;
function record(parts: Partial<InterpretedRecord>): InterpretedRecord {
  lsn += 0x100;
  return { startLsn: lsn - 0x100, endLsn: lsn, xid: 0, effect: null, blocks: [], ...parts };
}

function block(number: number, willInit: boolean): InterpretedRecord["blocks"][number] {
  return { rel, block: number, value: { kind: "postgres", willInit, record: new Uint8Array(24) } };
}

describe("ingest of blocks", () => {
  test("gaps become zero pages, but not where the record itself writes", async () => {
    const { ingest, datadir } = await started();
    await ingest.ingest(record({ blocks: [block(5, true), block(3, false)] }));
    await ingest.commit();
    const reader = datadir.at(ingest.lsn, context);
    expect(await reader.relSize(rel)).toBe(6);
    expect(await Promise.all([0, 3, 4, 5].map(async (n) => (await reader.relPage(rel, n))[0]))).toEqual([0, 1, 0, 1]);
  });

  test("a truncated page that comes back starts from zeros", async () => {
    const { ingest, datadir } = await started();
    await ingest.ingest(record({ blocks: [block(2, true)] }));
    for (let n = 0; n < 5; n++) await ingest.ingest(record({ blocks: [block(2, false)] }));
    const before = ingest.lsn;
    await ingest.ingest(record({ effect: { kind: "smgr-truncate", relation: rel, blocks: 1, main: true, visibilityMap: true, fsm: true } }));
    await ingest.ingest(record({ blocks: [block(2, false)] }));
    await ingest.commit();
    expect((await datadir.at(before, context).relPage(rel, 2))[0]).toBe(6);
    expect((await datadir.at(ingest.lsn, context).relPage(rel, 2))[0]).toBe(1);
  });

  test("shard 0 knows the size of what it does not keep", async () => {
    const { ingest, datadir, store } = await started({ number: 0, count: 2, stripeBlocks: 1 });
    await ingest.ingest(record({ blocks: [{ rel, block: 9, value: null }] }));
    await ingest.commit();
    expect(await datadir.at(ingest.lsn, context).relSize(rel)).toBe(10);
    const kept = Array.from({ length: 9 }, (_, n) => store.versionsOf(relBlockKey(rel, n)).length);
    expect(kept.filter((n) => n === 1).length).toBeGreaterThan(0);
    expect(kept.filter((n) => n === 0).length).toBeGreaterThan(0);
  });

  test("an ingest that ended inside a record is replaced by one that does it again", async () => {
    const { ingest, datadir } = await started();
    const create = record({ effect: { kind: "smgr-create", relation: rel, fork: 0 } });
    await ingest.ingest(create);
    const second = await WalIngest.start(datadir);
    await second.ingest(create);
    await second.commit();
    expect(await datadir.at(second.lsn, context).relExists(rel)).toBe(true);
    expect((await datadir.at(second.lsn, context).listRels(1663, 5)).length).toBe(1);
  });
});

describe("SLRUs", () => {
  test("truncation drops segments before the cutoff, around the wrap too", async () => {
    const { ingest, datadir } = await started(UNSHARDED_IDENTITY, BigInt(40 * 32 * 32768));
    for (const segment of [0, 1, 2, 3, 39]) await ingest.ingest(record({ effect: { kind: "clog-zero-page", page: segment * 32 } }));
    await ingest.ingest(record({ effect: { kind: "clog-truncate", page: 2 * 32 + 5, oldestXid: 69 * 32768, oldestXidDb: 5 } }));
    await ingest.commit();
    expect(await datadir.at(ingest.lsn, context).listSlruSegments("clog")).toEqual([2, 3, 39]);
  });

  test("a multixact at a page's end makes its successor's page; the record that zeroes it comes too late", async () => {
    const { ingest, datadir } = await started();
    await ingest.ingest(record({ effect: { kind: "multixact-zero-offsets-page", page: 0 } }));
    await ingest.ingest(record({ effect: { kind: "multixact-create", multiXid: 2047, memberOffset: 1635, members: [{ xid: 5000, status: 1 }, { xid: 5001, status: 4 }] } }));
    await ingest.ingest(record({ effect: { kind: "multixact-zero-offsets-page", page: 1 } }));
    await ingest.commit();
    const reader = datadir.at(ingest.lsn, context);
    expect(new DataView((await reader.slruPage("multixact-offsets", 0, 0)).buffer).getUint32(2047 * 4, true)).toBe(1635);
    expect(new DataView((await reader.slruPage("multixact-offsets", 0, 1)).buffer).getUint32(0, true)).toBe(1637);
    expect(await reader.slruSegmentBlocks("multixact-members", 0)).toBe(2);
    const tracker = new CheckpointTracker(await reader.checkpoint(), 17);
    expect([tracker.current.nextMulti, tracker.current.nextMultiOffset, tracker.current.nextFullXid]).toEqual([2048, 1637, 5120n]);
  });

  test("commits mark each page once, with the time", async () => {
    const { ingest, store } = await started();
    await ingest.ingest(record({ effect: { kind: "clog-zero-page", page: 0 } }));
    await ingest.ingest(record({ xid: 900, effect: { ...COMMIT, xid: 900, subxids: [901, 40000, 902] } }));
    await ingest.commit();
    expect(store.versionsOf(slruBlockKey("clog", 0, 0)).at(-1)?.value).toEqual({ kind: "neon", record: { type: "clog-set-committed", xids: [900, 901, 902], timestamp: 42n } });
    expect(store.versionsOf(slruBlockKey("clog", 0, 1)).at(-1)?.value.kind).toBe("image");
  });
});

describe("commit timestamps", () => {
  const limits = (bytes: Uint8Array): number[] => {
    const checkpoint = decodeCheckPoint(bytes, 17);
    return [checkpoint.oldestCommitTsXid, checkpoint.newestCommitTsXid];
  };

  test("settings of the server go into pg_control", async () => {
    const { ingest, datadir } = await started();
    await ingest.ingest(record({ effect: SETTINGS }));
    await ingest.commit();
    const { kind: _, ...settings } = SETTINGS;
    const control: ControlFile = decodeControlFile(await datadir.at(ingest.lsn, context).controlFile());
    expect(control).toMatchObject(settings);
  });

  test("they are kept from the moment the setting is logged, with their origins, and forgotten when it goes", async () => {
    const { ingest, datadir, store } = await started();
    await ingest.ingest(record({ effect: { kind: "clog-zero-page", page: 0 } }));
    await ingest.ingest(record({ xid: 999, effect: { ...COMMIT, xid: 999 } }));
    await ingest.commit();
    expect(await datadir.at(ingest.lsn, context).listSlruSegments("commit-ts")).toEqual([]);
    await ingest.ingest(record({ effect: SETTINGS }));
    const origin = (originId: number, timestamp: bigint) => ({ originId, originLsn: 0x50, timestamp });
    await ingest.ingest(record({ effect: { kind: "commit-ts-zero-page", page: 1 } }));
    await ingest.ingest(record({ xid: 1024, effect: { ...COMMIT, xid: 1024, subxids: [1025, 1638] } }));
    await ingest.ingest(record({ xid: 1639, effect: { ...COMMIT, xid: 1639, origin: origin(3, 77n) } }));
    await ingest.ingest(record({ xid: 1640, effect: { ...COMMIT, xid: 1640, origin: origin(4, 0n) } }));
    await ingest.ingest(record({ xid: 1641, effect: { ...COMMIT, xid: 1641, origin: origin(0xffff, 78n) } }));
    await ingest.ingest(record({ xid: 1642, effect: { ...COMMIT, kind: "xact-abort", xid: 1642 } }));
    await ingest.commit();
    expect(store.versionsOf(slruBlockKey("commit-ts", 0, 1)).at(-1)?.value).toEqual({ kind: "neon", record: { type: "commit-ts-set", xids: [1024, 1025], timestamp: 42n, originId: 0 } });
    const kept = ingest.lsn;
    const reader = datadir.at(kept, context);
    const entry = async (xid: number) => {
      const { timestamp, originId } = commitTs(await reader.slruPage("commit-ts", 0, Math.floor(xid / 819)), xid);
      return [timestamp, originId];
    };
    expect(await Promise.all([1024, 1025, 1638, 1639, 1640, 1641, 1642].map(entry))).toEqual([[42n, 0], [42n, 0], [42n, 0], [77n, 3], [42n, 4], [42n, 0xffff], [0n, 0]]);
    expect(limits(await reader.checkpoint())).toEqual([1024, 1024]);
    expect(await newestCommitTsXid(reader, decodeCheckPoint(await reader.checkpoint(), 17))).toBe(1641);
    expect([...(await reader.listReplOrigins()).keys()]).toEqual([3, 4]);
    await ingest.ingest(record({ effect: { ...SETTINGS, trackCommitTimestamp: false } }));
    await ingest.commit();
    expect(await datadir.at(ingest.lsn, context).listSlruSegments("commit-ts")).toEqual([]);
    expect(limits(await datadir.at(ingest.lsn, context).checkpoint())).toEqual([0, 0]);
    expect(await datadir.at(kept, context).listSlruSegments("commit-ts")).toEqual([0]);
  });

  test("an ingest that takes over goes on keeping them; truncation moves the oldest", async () => {
    const { ingest, datadir } = await started();
    await ingest.ingest(record({ effect: SETTINGS }));
    await ingest.commit();
    const second = await WalIngest.start(datadir);
    for (const page of [31, 32, 64]) await second.ingest(record({ effect: { kind: "commit-ts-zero-page", page } }));
    await second.ingest(record({ xid: 70 * 819, effect: { ...COMMIT, xid: 70 * 819 } }));
    await second.ingest(record({ effect: { kind: "commit-ts-truncate", page: 40, oldestXid: 40 * 819 } }));
    await second.commit();
    const reader = datadir.at(second.lsn, context);
    expect(await reader.listSlruSegments("commit-ts")).toEqual([1, 2]);
    expect(await reader.slruSegmentBlocks("commit-ts", 2)).toBe(7);
    expect(limits(await reader.checkpoint())).toEqual([40 * 819, 1000]);
    expect(await newestCommitTsXid(reader, decodeCheckPoint(await reader.checkpoint(), 17))).toBe(70 * 819);
  });

  test("the newest is found around the end of the transaction ids", async () => {
    const { ingest, datadir } = await started(UNSHARDED_IDENTITY, 0xffff_fc00n);
    await ingest.ingest(record({ effect: SETTINGS }));
    await ingest.ingest(record({ xid: 0xffff_fff0, effect: { ...COMMIT, xid: 0xffff_fff0 } }));
    await ingest.commit();
    const newest = async () => newestCommitTsXid(datadir.at(ingest.lsn, context), decodeCheckPoint(await datadir.at(ingest.lsn, context).checkpoint(), 17));
    expect(await newest()).toBe(0xffff_fff0);
    await ingest.ingest(record({ xid: 5, effect: { ...COMMIT, xid: 5 } }));
    await ingest.commit();
    expect(await newest()).toBe(5);
  });
});

describe("checkpoint tracker", () => {
  test("the next xid is rounded up, never falls, and wraps with its epoch", () => {
    const tracker = new CheckpointTracker(encodeCheckPoint(CHECKPOINT, 17), 17);
    tracker.seenXid(990);
    expect(tracker.current.nextFullXid).toBe(1024n);
    expect(tracker.takeChanged()).not.toBeNull();
    tracker.seenXid(1000);
    expect(tracker.takeChanged()).toBeNull();
    const late = new CheckpointTracker(encodeCheckPoint({ ...CHECKPOINT, nextFullXid: 0xffff_ff00n }, 17), 17);
    late.seenXid(0xffff_fff0);
    expect(late.current.nextFullXid).toBe((1n << 32n) | 3n);
    expect(late.toFullXid(0xffff_fff0)).toBe(0xffff_fff0n);
  });
});
