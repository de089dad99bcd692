/** The quick way of ingest puts what the other one puts, value by value, for any sequence of records. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { interpretRecord } from "../../../src/interpret/interpret-record.ts";
import type { ValueBatch } from "../../../src/interpret/value-batch.ts";
import { keyToHex } from "../../../src/keyspace/key.ts";
import { type ShardIdentity, UNSHARDED_IDENTITY } from "../../../src/keyspace/shard.ts";
import { DatadirModification } from "../../../src/pageserver/datadir/datadir-modification.ts";
import { TimelineDatadir } from "../../../src/pageserver/datadir/timeline-datadir.ts";
import { QuickIngest } from "../../../src/pageserver/ingest/quick-ingest.ts";
import { WalIngest } from "../../../src/pageserver/ingest/wal-ingest.ts";
import { type CheckPoint, encodeCheckPoint } from "../../../src/postgres/control-file/checkpoint.ts";
import { RMGR } from "../../../src/postgres/wal/constants.ts";
import { decodeRecord } from "../../../src/postgres/wal/decode-record.ts";
import { type BlockSpec, encodeRecord, type RecordSpec, sealRecord } from "../../../src/postgres/wal/encode-record.ts";
import { WalRecord } from "../../../src/postgres/wal/record.ts";
import { plainControlFile } from "../../support/control-file.ts";
import { NaiveTimelineStore } from "../../support/naive-timeline-store.ts";

const VERSION = 17;
const CHECKPOINT: CheckPoint = {
  redo: 0x100, timelineId: 1, previousTimelineId: 1, fullPageWrites: false, walLevel: 1, nextFullXid: 1000n, nextOid: 20000, nextMulti: 1, nextMultiOffset: 1,
  oldestXid: 700, oldestXidDb: 1, oldestMulti: 1, oldestMultiDb: 1, timeSeconds: 0n, oldestCommitTsXid: 0, newestCommitTsXid: 0, oldestActiveXid: 0,
};

/** Remembers all that was put, in order. */
class ToldStore extends NaiveTimelineStore {
  readonly told: string[] = [];

  override putBatch(batch: ValueBatch): Promise<void> {
    batch.toValues().forEach((entry, at) => {
      const bytes = batch.bytes.subarray(batch.offsets[at], batch.offsets[at] + batch.lengths[at]);
      this.told.push(`${keyToHex(entry.key)} ${entry.lsn} ${batch.willInit[at]} ${bytes.toHex()}`);
    });
    return super.putBatch(batch);
  }
}

async function started(shard: ShardIdentity): Promise<{ store: ToldStore; ingest: WalIngest }> {
  const store = new ToldStore({ lastRecordLsn: 0x100 });
  const datadir = new TimelineDatadir(store, { version: VERSION, shard });
  const modification = new DatadirModification(datadir);
  modification.beginRecord(0x100, 0x200);
  modification.initializeEmpty();
  modification.putCheckpoint(encodeCheckPoint(CHECKPOINT, VERSION));
  modification.putControlFile(plainControlFile(VERSION, CHECKPOINT));
  await modification.commit();
  return { store, ingest: await WalIngest.start(datadir) };
}

/** Blocks up to a dozen, so that relations grow by one, by more and not at all. */
const block = fc.record({ relNumber: fc.integer({ min: 16384, max: 16386 }), fork: fc.constantFrom(0, 0, 0, 2), blockNumber: fc.integer({ min: 0, max: 12 }), willInit: fc.boolean(), imaged: fc.nat({ max: 7 }) });
const blocks = fc.uniqueArray(block, { minLength: 1, maxLength: 3, selector: (one) => `${one.relNumber}/${one.fork}/${one.blockNumber}` }).map((list) => list.map((one, id): BlockSpec => {
  const { imaged, ...rest } = one;
  const image = imaged > 1 ? undefined : { page: new Uint8Array(8192).fill(id + 1), holeOffset: 100, holeLength: 8000, apply: imaged === 0 };
  return { id, spcOid: 1663, dbOid: 5, ...rest, ...(image === undefined ? {} : { image }), data: Uint8Array.of(id, 7) };
}));
const xid = fc.oneof(fc.integer({ min: 990, max: 3000 }), fc.integer({ min: 0, max: 4 }), fc.integer({ min: 32760, max: 32780 }));
const flags = fc.integer({ min: 0, max: 3 });
/** Mostly what is common: heap and index records, and plain ends of transactions. */
const record: fc.Arbitrary<RecordSpec> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ xid, blocks, flags }).map((one): RecordSpec => ({ version: VERSION, rmid: RMGR.HEAP, info: 0x40, xid: one.xid, blocks: one.blocks, mainData: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, one.flags, 0, 0, 0, 0, 0, 0) })) },
  { weight: 4, arbitrary: fc.record({ xid, blocks }).map((one): RecordSpec => ({ version: VERSION, rmid: RMGR.BTREE, info: 0, ...one, mainData: Uint8Array.of(1, 0) })) },
  { weight: 4, arbitrary: fc.record({ xid, aborts: fc.boolean(), time: fc.uint8Array({ minLength: 8, maxLength: 8 }) }).map((one): RecordSpec => ({ version: VERSION, rmid: RMGR.XACT, info: one.aborts ? 0x20 : 0, xid: one.xid, mainData: one.time })) },
  // With the database's id, and nothing of consequence.
  { weight: 1, arbitrary: fc.record({ xid }).map((one): RecordSpec => ({ version: VERSION, rmid: RMGR.XACT, info: 0x80, xid: one.xid, mainData: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8, 1, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0) })) },
  { weight: 1, arbitrary: fc.record({ blocks: fc.integer({ min: 0, max: 4 }) }).map((one): RecordSpec => truncation(one.blocks)) },
);

/** xl_smgr_truncate: blocks, relation, flags (all three forks). */
function truncation(toBlocks: number): RecordSpec {
  const mainData = new Uint8Array(20);
  const view = new DataView(mainData.buffer);
  [toBlocks, 1663, 5, 16384, 7].forEach((value, at) => view.setUint32(at * 4, value, true));
  return { version: VERSION, rmid: RMGR.SMGR, info: 0x20, mainData };
}

function decoded(specs: readonly RecordSpec[]): WalRecord[] {
  let lsn = 0x200;
  return specs.map((spec) => {
    const bytes = encodeRecord(spec);
    sealRecord(bytes, lsn - 8);
    const into = new WalRecord();
    decodeRecord(bytes, VERSION, into);
    into.lsn = lsn;
    lsn += (bytes.length + 7) & ~7;
    into.endLsn = lsn;
    return into;
  });
}

async function bothWays(specs: readonly RecordSpec[], shard: ShardIdentity): Promise<{ quick: ToldStore; plain: ToldStore }> {
  const [quick, plain] = [await started(shard), await started(shard)];
  const records = decoded(specs);
  for (let at = 0; at < records.length; at++) {
    await quick.ingest.ingestRecord(records[at]);
    await plain.ingest.ingest(interpretRecord(records[at], shard));
    if (at % 5 === 4) for (const { ingest } of [quick, plain]) await ingest.commit();
  }
  for (const { ingest } of [quick, plain]) await ingest.commit();
  return { quick: quick.store, plain: plain.store };
}

describe("quick ingest", () => {
  for (const shard of [UNSHARDED_IDENTITY, { number: 0, count: 2, stripeBlocks: 4 }, { number: 1, count: 2, stripeBlocks: 4 }]) {
    test(`puts what the other way puts, for shard ${shard.number} of ${shard.count}`, async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(record, { maxLength: 40 }), async (specs) => {
          const { quick, plain } = await bothWays(specs, shard);
          expect(quick.told).toEqual(plain.told);
          expect(quick.lastRecordLsn).toBe(plain.lastRecordLsn);
        }),
        { numRuns: 60 },
      );
    });
  }

  test("takes the common records, once sizes are known", async () => {
    const kinds: RecordSpec[] = [
      { version: VERSION, rmid: RMGR.XACT, info: 0, xid: 1001, mainData: new Uint8Array(8) },
      { version: VERSION, rmid: RMGR.BTREE, info: 0, xid: 1001, mainData: Uint8Array.of(1, 0), blocks: [{ id: 0, spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0, blockNumber: 0, willInit: true }] },
    ];
    const next: RecordSpec = { ...kinds[1], blocks: [{ id: 0, spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0, blockNumber: 1, willInit: true }] };
    const taken: boolean[] = [];
    const { take } = QuickIngest.prototype;
    QuickIngest.prototype.take = function counted(this: QuickIngest, one: WalRecord): boolean {
      const result = take.call(this, one);
      taken.push(result);
      return result;
    };
    try {
      const { ingest } = await started(UNSHARDED_IDENTITY);
      for (const one of decoded([...kinds, kinds[0], kinds[1], next, next])) await ingest.ingestRecord(one);
    } finally {
      QuickIngest.prototype.take = take;
    }
    expect(taken).toEqual([false, false, true, true, true, true]);
  });
});
