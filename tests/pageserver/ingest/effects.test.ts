import { describe, expect, test } from "bun:test";
import type { InterpretedRecord } from "../../../src/interpret/interpret-record.ts";
import { relBlockKey, slruBlockKey } from "../../../src/keyspace/mapping.ts";
import type { RelTag } from "../../../src/keyspace/relation.ts";
import { type ShardIdentity, UNSHARDED_IDENTITY } from "../../../src/keyspace/shard.ts";
import { DatadirModification } from "../../../src/pageserver/datadir/datadir-modification.ts";
import { TimelineDatadir } from "../../../src/pageserver/datadir/timeline-datadir.ts";
import { CheckpointTracker } from "../../../src/pageserver/ingest/checkpoint-tracker.ts";
import { WalIngest } from "../../../src/pageserver/ingest/wal-ingest.ts";
import { type CheckPoint, encodeCheckPoint } from "../../../src/postgres/control-file/checkpoint.ts";
import { type ApplyRecord, NaiveTimelineStore } from "../../support/naive-timeline-store.ts";

const context = { task: "test" };
const rel: RelTag = { spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 };
const CHECKPOINT: CheckPoint = {
  redo: 0x100, timelineId: 1, previousTimelineId: 1, fullPageWrites: false, walLevel: 1, nextFullXid: 1000n, nextOid: 20000, nextMulti: 1, nextMultiOffset: 1,
  oldestXid: 700, oldestXidDb: 1, oldestMulti: 1, oldestMultiDb: 1, timeSeconds: 0n, oldestCommitTsXid: 0, newestCommitTsXid: 0, oldestActiveXid: 0,
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
    const finish = { kind: "xact-commit" as const, xid: 900, prepared: false, time: 42n, subxids: [901, 40000, 902], droppedRelations: [], dropsRelcacheInitFile: false, dbOid: 5, spcOid: 1663, gid: null, origin: null };
    await ingest.ingest(record({ xid: 900, effect: finish }));
    await ingest.commit();
    expect(store.versionsOf(slruBlockKey("clog", 0, 0)).at(-1)?.value).toEqual({ kind: "neon", record: { type: "clog-set-committed", xids: [900, 901, 902], timestamp: 42n } });
    expect(store.versionsOf(slruBlockKey("clog", 0, 1)).at(-1)?.value.kind).toBe("image");
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
