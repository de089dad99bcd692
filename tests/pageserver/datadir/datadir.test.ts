import { describe, expect, test } from "bun:test";
import { keySpaceContains } from "../../../src/keyspace/keyspace.ts";
import { relBlockKey, relSizeKey } from "../../../src/keyspace/mapping.ts";
import type { RelTag } from "../../../src/keyspace/relation.ts";
import { UNSHARDED_IDENTITY } from "../../../src/keyspace/shard.ts";
import { utf8 } from "../../../src/kit/bytes.ts";
import { DatadirModification } from "../../../src/pageserver/datadir/datadir-modification.ts";
import { decodeRelDirectory, decodeTwoPhaseDirectory, encodeRelDirectory, encodeTwoPhaseDirectory } from "../../../src/pageserver/datadir/directory-codec.ts";
import { keySpaceAt } from "../../../src/pageserver/datadir/keyspace-at.ts";
import { RelationSizeCache } from "../../../src/pageserver/datadir/relation-size-cache.ts";
import { TimelineDatadir } from "../../../src/pageserver/datadir/timeline-datadir.ts";
import { NaiveTimelineStore } from "../../support/naive-timeline-store.ts";

const context = { task: "test" };
const rel: RelTag = { spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 };
const never = (): boolean => false;

async function emptyTimeline(): Promise<{ store: NaiveTimelineStore; datadir: TimelineDatadir; modification: DatadirModification }> {
  const store = new NaiveTimelineStore({ lastRecordLsn: 0x100 });
  const datadir = new TimelineDatadir(store, { version: 17, shard: UNSHARDED_IDENTITY });
  const modification = new DatadirModification(datadir);
  modification.beginRecord(0x100, 0x200);
  modification.initializeEmpty();
  modification.putControlFile(new Uint8Array(8192));
  modification.putCheckpoint(new Uint8Array(88));
  await modification.commit();
  return { store, datadir, modification };
}

describe("datadir", () => {
  test("a relation's life, read at every LSN", async () => {
    const { datadir, modification } = await emptyTimeline();
    modification.beginRecord(0x200, 0x300);
    await modification.relations.create(rel);
    modification.beginRecord(0x300, 0x400);
    await modification.relations.extend(rel, 3, (block) => block === 2);
    modification.relations.putPage(rel, 2, { kind: "image", bytes: new Uint8Array(8192).fill(7) });
    modification.beginRecord(0x400, 0x500);
    await modification.relations.truncate(rel, 1);
    modification.beginRecord(0x500, 0x600);
    await modification.relations.drop(1663, 5, [rel]);
    await modification.commit();

    expect(await datadir.at(0x200, context).relExists(rel)).toBe(false);
    expect(await datadir.at(0x300, context).relSize(rel)).toBe(0);
    expect(await datadir.at(0x400, context).relSize(rel)).toBe(3);
    expect((await datadir.at(0x400, context).relPage(rel, 2))[0]).toBe(7);
    expect((await datadir.at(0x400, context).relPage(rel, 1))[0]).toBe(0);
    expect(await datadir.at(0x500, context).relSize(rel)).toBe(1);
    expect((await datadir.at(0x500, context).relPage(rel, 2))[0]).toBe(0);
    expect(await datadir.at(0x600, context).relExists(rel)).toBe(false);
    await expect(datadir.at(0x600, context).relSize(rel)).rejects.toThrow("does not exist at 0/600");
    expect(await datadir.at(0x600, context).relSize({ ...rel, fork: 2 })).toBe(0);
    expect((await datadir.at(0x500, context).listRels(1663, 5)).length).toBe(1);
    expect(await datadir.currentLogicalSizeBytes(context)).toBe(0);
    expect(await datadir.logicalSizeBytes(0x400, context)).toBe(3 * 8192);
  });

  test("key space follows what exists", async () => {
    const { datadir, modification } = await emptyTimeline();
    modification.beginRecord(0x200, 0x300);
    await modification.relations.extend(rel, 2, never);
    await modification.slrus.putPage({ kind: "clog", segment: 0, block: 1 }, new Uint8Array(8192));
    await modification.twoPhase.put(77n, utf8("state"));
    await modification.commit();
    const space = await keySpaceAt(datadir.at(0x300, context), true);
    expect(keySpaceContains(space.dense, relBlockKey(rel, 1))).toBe(true);
    expect(keySpaceContains(space.dense, relBlockKey(rel, 2))).toBe(false);
    expect(keySpaceContains(space.dense, relSizeKey(rel))).toBe(true);
    expect((await datadir.at(0x300, context).slruSegment("clog", 0)).length).toBe(2 * 8192);
    expect(await datadir.at(0x300, context).listTwoPhaseXids()).toEqual([77n]);
    expect(space.sparse.ranges.length).toBe(2);
  });

  test("metadata put twice in one record is stored once; reads see it before the commit", async () => {
    const { datadir, modification } = await emptyTimeline();
    modification.beginRecord(0x200, 0x300);
    await modification.relations.create(rel);
    await modification.flushPages();
    await modification.relations.create({ ...rel, fork: 1 });
    await modification.putAuxFile("pg_replslot/a/state", utf8("1"));
    expect((await modification.reader().listRels(1663, 5)).length).toBe(2);
    await modification.commit();
    expect((await datadir.at(0x300, context).listAuxFiles())[0].path).toBe("pg_replslot/a/state");
    modification.beginRecord(0x300, 0x400);
    await modification.putAuxFile("pg_replslot/a/state", new Uint8Array(0));
    await modification.commit();
    expect(await datadir.at(0x400, context).listAuxFiles()).toEqual([]);
  });

  test("two records on one SLRU page in one WAL record", async () => {
    const { datadir, modification } = await emptyTimeline();
    modification.beginRecord(0x200, 0x300);
    await modification.slrus.putPage({ kind: "multixact-offsets", segment: 0, block: 0 }, new Uint8Array(8192));
    modification.beginRecord(0x300, 0x400);
    const place = { kind: "multixact-offsets" as const, segment: 0, block: 0 };
    await modification.slrus.putRecords(place, [
      { type: "multixact-offset-create", multiXid: 2, memberOffset: 9 },
      { type: "multixact-offset-create", multiXid: 1, memberOffset: 5 },
    ]);
    await modification.commit();
    expect([...(await datadir.at(0x400, context).slruPage("multixact-offsets", 0, 0)).subarray(4, 12)]).toEqual([5, 0, 0, 0, 9, 0, 0, 0]);
  });

  test("an impossible gap is refused", async () => {
    const { modification } = await emptyTimeline();
    modification.beginRecord(0x200, 0x300);
    await expect(modification.relations.extend(rel, 0xfffffff0, never)).rejects.toThrow("would grow");
  });
});

describe("directories", () => {
  test("round trip and damage", () => {
    const directory = new Map([[16384, 0b101], [1259, 1]]);
    const bytes = encodeRelDirectory(directory);
    expect(bytes.toHex()).toBe("0000000000000003" + "000004eb00" + "0000400000" + "0000400002");
    expect(decodeRelDirectory(bytes)).toEqual(directory);
    expect(() => decodeRelDirectory(bytes.subarray(0, 20))).toThrow("directory of 3 entries");
    expect(encodeTwoPhaseDirectory(new Set([5n]), 16).length).toBe(12);
    expect(decodeTwoPhaseDirectory(encodeTwoPhaseDirectory(new Set([5n, 1n << 40n]), 17), 17)).toEqual(new Set([5n, 1n << 40n]));
  });
});

describe("relation size cache", () => {
  test("forgetting an entry never lets an old size come back", () => {
    const cache = new RelationSizeCache(100, { maxRelations: 2 });
    cache.setByIngest(rel, 200, 10);
    cache.setByIngest({ ...rel, relNumber: 2 }, 210, 1);
    cache.setByIngest({ ...rel, relNumber: 3 }, 220, 1);
    expect(cache.get(rel, 300)).toBeUndefined();
    cache.setByRead(rel, 150, 5);
    expect(cache.get(rel, 300)).toBeUndefined();
    cache.setByRead(rel, 250, 10);
    expect(cache.get(rel, 300)).toBe(10);
  });
  test("the size before the last change stays readable", () => {
    const cache = new RelationSizeCache(100);
    cache.setByRead(rel, 120, 4);
    cache.setByIngest(rel, 200, 5);
    expect([cache.get(rel, 110), cache.get(rel, 199), cache.get(rel, 200)]).toEqual([undefined, 4, 5]);
  });
});
