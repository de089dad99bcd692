import { describe, expect, test } from "bun:test";
import { TarReader } from "../../../src/compute/base-backup/tar-reader.ts";
import type { RelTag } from "../../../src/keyspace/relation.ts";
import { UNSHARDED_IDENTITY } from "../../../src/keyspace/shard.ts";
import { baseBackup, type BaseBackupOptions } from "../../../src/pageserver/basebackup/base-backup.ts";
import { DatadirModification } from "../../../src/pageserver/datadir/datadir-modification.ts";
import { TimelineDatadir } from "../../../src/pageserver/datadir/timeline-datadir.ts";
import { WalIngest } from "../../../src/pageserver/ingest/wal-ingest.ts";
import { type CheckPoint, encodeCheckPoint } from "../../../src/postgres/control-file/checkpoint.ts";
import type { WalEffect } from "../../../src/postgres/effects/effect.ts";
import { verifyPageChecksum } from "../../../src/postgres/page/checksum.ts";
import { plainControlFile } from "../../support/control-file.ts";
import { NaiveTimelineStore } from "../../support/naive-timeline-store.ts";

const CHECKPOINT: CheckPoint = {
  redo: 0x100, timelineId: 1, previousTimelineId: 1, fullPageWrites: false, walLevel: 1, nextFullXid: 1000n, nextOid: 20000, nextMulti: 1, nextMultiOffset: 1,
  oldestXid: 700, oldestXidDb: 1, oldestMulti: 1, oldestMultiDb: 1, timeSeconds: 0n, oldestCommitTsXid: 0, newestCommitTsXid: 0, oldestActiveXid: 0,
};
const OPTIONS: BaseBackupOptions = { form: "stock", replica: false, prevLsn: 0, isBranchPoint: false, wallMs: 1_700_000_000_000 };

async function timeline(fill: (modification: DatadirModification) => Promise<void>): Promise<TimelineDatadir> {
  const datadir = new TimelineDatadir(new NaiveTimelineStore({ lastRecordLsn: 0x100 }), { version: 17, shard: UNSHARDED_IDENTITY });
  const modification = new DatadirModification(datadir);
  modification.beginRecord(0x100, 0x200);
  modification.initializeEmpty();
  modification.putCheckpoint(encodeCheckPoint(CHECKPOINT, 17));
  modification.putControlFile(plainControlFile(17, CHECKPOINT, { dataChecksumVersion: 1 }));
  await modification.relations.putRelmapFile(1663, 5, new Uint8Array(512));
  await fill(modification);
  await modification.commit();
  return datadir;
}

interface Archive {
  readonly directories: string[];
  readonly files: Map<string, Uint8Array>;
}

async function archiveOf(datadir: TimelineDatadir, options = OPTIONS): Promise<Archive> {
  const reader = new TarReader();
  const archive: Archive = { directories: [], files: new Map() };
  let name = "";
  let parts: Uint8Array[] = [];
  for await (const piece of baseBackup(datadir.at(datadir.store.lastRecordLsn, { task: "test" }), options)) {
    for (const event of reader.push(piece)) {
      if (event.kind === "directory") archive.directories.push(event.name);
      else if (event.kind === "file") [name, parts] = [event.name, []];
      else if (event.kind === "data") parts.push(event.bytes.slice());
      else archive.files.set(name, Buffer.concat(parts));
    }
  }
  expect(reader.ended).toBe(true);
  return archive;
}

function page(rel: RelTag, block: number): Uint8Array {
  const bytes = new Uint8Array(8192).fill(rel.relNumber + block);
  bytes.set([0, 1], 14);
  return bytes;
}

describe("relations in an archive", () => {
  test("many small files, empty ones and long ones come whole, with checksums, whatever is read together", async () => {
    const sizes = [0, 1, 3, 255, 256, 257, 700, 2, 0, 1];
    const datadir = await timeline(async ({ relations }) => {
      for (let index = 0; index < sizes.length; index++) {
        const rel = { spcOid: 1663, dbOid: 5, relNumber: 16384 + index, fork: 0 };
        await relations.create(rel, sizes[index]);
        for (let block = 0; block < sizes[index]; block++) relations.putPage(rel, block, { kind: "image", bytes: page(rel, block) });
      }
      for (let relNumber = 20000; relNumber < 20600; relNumber++) await relations.create({ spcOid: 1663, dbOid: 5, relNumber, fork: 0 });
    });
    const { files } = await archiveOf(datadir);
    sizes.forEach((size, index) => {
      const bytes = files.get(`base/5/${16384 + index}`) ?? new Uint8Array(1);
      expect(bytes.length).toBe(size * 8192);
      for (let block = 0; block < size; block++) {
        const found = bytes.subarray(block * 8192, (block + 1) * 8192);
        expect(found[100]).toBe((16384 + index + block) & 0xff);
        expect(verifyPageChecksum(found, block)).toBe(true);
      }
    });
    expect([...files.keys()].filter((name) => /^base\/5\/20\d+$/.test(name)).length).toBe(600);
  });

  test("an unlogged relation has its init fork twice, and nothing of its own", async () => {
    const datadir = await timeline(async ({ relations }) => {
      for (const fork of [0, 1, 2, 3]) {
        const rel = { spcOid: 1663, dbOid: 5, relNumber: 16384, fork };
        await relations.create(rel, 1);
        relations.putPage(rel, 0, { kind: "image", bytes: new Uint8Array(8192).fill(fork + 1) });
      }
    });
    const { files } = await archiveOf(datadir);
    const relations = [...files].filter(([name]) => name.startsWith("base/5/16384")).map(([name, bytes]) => [name, bytes[100]]);
    expect(relations).toEqual([["base/5/16384_init", 4], ["base/5/16384", 4]]);
    const patched = await archiveOf(datadir, { ...OPTIONS, form: "neon" });
    expect([...patched.files.keys()].filter((name) => name.startsWith("base/5/16384"))).toEqual(["base/5/16384_init", "base/5/16384"]);
  });
});

describe("tablespaces", () => {
  const VERSION = "PG_17_202406281";

  test("one comes back as a directory from its creation on, with its relations, until it is dropped", async () => {
    const datadir = await timeline(async () => {});
    const ingest = await WalIngest.start(datadir);
    let lsn = 0x200;
    const apply = async (effect: WalEffect): Promise<void> => {
      await ingest.ingest({ startLsn: lsn, endLsn: (lsn += 0x100), xid: 0, effect, blocks: [] });
      await ingest.commit();
    };
    await apply({ kind: "tablespace-create", spcOid: 16500, path: "/elsewhere" });
    const fresh = await archiveOf(datadir);
    expect(fresh.directories.filter((name) => name.startsWith("pg_tblspc/"))).toEqual(["pg_tblspc/16500", `pg_tblspc/16500/${VERSION}`]);
    await apply({ kind: "smgr-create", relation: { spcOid: 16500, dbOid: 5, relNumber: 16600 }, fork: 0 });
    const used = await archiveOf(datadir);
    expect(used.directories.filter((name) => name.startsWith("pg_tblspc/"))).toEqual(["pg_tblspc/16500", `pg_tblspc/16500/${VERSION}`, `pg_tblspc/16500/${VERSION}/5`]);
    expect([...used.files.keys()].filter((name) => name.startsWith("pg_tblspc/"))).toEqual([`pg_tblspc/16500/${VERSION}/5/16600`]);
    await apply({ kind: "tablespace-drop", spcOid: 16500 });
    const gone = await archiveOf(datadir);
    expect([...gone.directories, ...gone.files.keys()].filter((name) => name.startsWith("pg_tblspc/"))).toEqual([]);
  });
});
