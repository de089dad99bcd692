/**
 * Full page images of real servers against the pages in their files: index builds log every page as an image and nothing
 * changes it after.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import type { Lsn } from "../../../src/kit/lsn.ts";
import { decodeControlFile } from "../../../src/postgres/control-file/control-file.ts";
import { verifyPageChecksum } from "../../../src/postgres/page/checksum.ts";
import { restoreImage } from "../../../src/postgres/page/restore-image.ts";
import { type BlockRef, type ImageCompression, WalRecord } from "../../../src/postgres/wal/record.ts";
import { parseWalSegmentName } from "../../../src/postgres/wal/segment-name.ts";
import { WalStreamDecoder } from "../../../src/postgres/wal/stream-decoder.ts";
import { STOCK_MAJORS, type StockOptions, StockPostgres } from "../../support/stock-postgres.ts";

const MIB = 1024 * 1024;
const PAGE = 8192;
/** The npm packages are built without lz4 and zstd, Debian's server has both. */
const DEBIAN_15 = "/usr/lib/postgresql/15/bin";

interface Case {
  readonly name: string;
  readonly options: StockOptions;
  readonly methods: readonly (readonly [setting: string, compression: ImageCompression])[];
}

const CONF = ["autovacuum = off", "wal_keep_size = '1GB'"];
const cases: Case[] = STOCK_MAJORS.map((major) => ({
  name: `PostgreSQL ${major}`,
  options: { major, conf: CONF, initdbArgs: ["--wal-segsize=1", "--data-checksums"] },
  methods: [["off", "none"], ["on", "pglz"]],
}));
if (existsSync(`${DEBIAN_15}/postgres`)) {
  cases.push({
    name: "PostgreSQL 15 of Debian",
    options: { major: 15, conf: CONF, initdbArgs: ["--wal-segsize=1", "--data-checksums"], binaries: DEBIAN_15 },
    methods: [["pglz", "pglz"], ["lz4", "lz4"], ["zstd", "zstd"]],
  });
} else {
  test.skip("lz4 and zstd images: no PostgreSQL with both is installed", () => {});
}

for (const { name, options, methods } of cases) {
  describe(`page images of ${name}`, () => {
    const servers: StockPostgres[] = [];
    afterAll(async () => {
      for (const server of servers) await server.remove();
    });

    test(
      "give the pages in the files",
      async () => {
        const server = await StockPostgres.create(options);
        servers.push(server);
        await server.start();
        const from = decodeControlFile(server.readDataFile("global/pg_control")).checkpointLsn;
        const indexes = await buildIndexes(server, methods);
        await server.stop();
        const compared = compareImages(server, from, indexes);
        for (const [, compression] of methods) expect([compression, (compared.get(compression) ?? 0) > 20]).toEqual([compression, true]);
      },
      60_000,
    );
  });
}

/** Relation number of each index → path of its file. */
async function buildIndexes(server: StockPostgres, methods: Case["methods"]): Promise<Map<number, string>> {
  const sql = await server.sql().reserve();
  const indexes = new Map<number, string>();
  await sql.unsafe("create table t as select i, md5(i::text) || md5((i / 7)::text) as a, (i / 50)::text as b from generate_series(1, 8000) i");
  for (const [setting] of methods) {
    await sql.unsafe(`set wal_compression = ${setting}`);
    for (const definition of ["btree (a)", "btree (b)", "gin (string_to_array(b, '1'))", "spgist (a)", "btree (i)"]) {
      await sql.unsafe(`create index last on t using ${definition}`);
      const [row] = await sql.unsafe("select pg_relation_filepath('last') as path, relfilenode::int as number from pg_class where relname = 'last'");
      indexes.set(row?.["number"], row?.["path"]);
      await sql.unsafe(`alter index last rename to kept_${indexes.size}`);
    }
  }
  sql.release();
  return indexes;
}

/** How many images of each compression were compared. */
function compareImages(server: StockPostgres, from: Lsn, indexes: ReadonlyMap<number, string>): Map<ImageCompression, number> {
  const files = new Map([...indexes].map(([number, path]) => [number, server.readDataFile(path)]));
  const images = lastImages(server, from, files);
  const compared = new Map<ImageCompression, number>();
  for (const { block, page } of images.values()) {
    const file = files.get(block.relNumber) as Uint8Array;
    const inFile = file.slice(block.blockNumber * PAGE, (block.blockNumber + 1) * PAGE);
    expect(verifyPageChecksum(inFile, block.blockNumber)).toBe(true);
    // What lies in the hole is not logged.
    inFile.fill(0, block.holeOffset, block.holeOffset + block.holeLength);
    // Behind pd_lsn and pd_checksum, which the server sets after the image was taken.
    expect(Buffer.compare(page.subarray(10), inFile.subarray(10))).toBe(0);
    compared.set(block.compression, (compared.get(block.compression) ?? 0) + 1);
  }
  return compared;
}

type Image = { readonly block: Pick<BlockRef, "relNumber" | "blockNumber" | "compression" | "holeOffset" | "holeLength">; readonly page: Uint8Array };

function lastImages(server: StockPostgres, from: Lsn, files: ReadonlyMap<number, Uint8Array>): Map<string, Image> {
  const images = new Map<string, Image>();
  const record = new WalRecord();
  const decoder = new WalStreamDecoder(from, server.major, MIB);
  const end = decodeControlFile(server.readDataFile("global/pg_control")).checkpointLsn;
  for (const name of server.walSegments()) {
    const lsn = parseWalSegmentName(name, MIB)?.lsn as Lsn;
    if (lsn + MIB <= from || lsn > end) continue;
    decoder.feed(server.readDataFile(`pg_wal/${name}`).subarray(0, Math.min(MIB, end - lsn)), lsn);
    while (decoder.next(record)) {
      for (const block of record.blocks.slice(0, record.blockCount)) {
        if (!block.hasImage || !files.has(block.relNumber) || block.fork !== 0) continue;
        const page = new Uint8Array(PAGE);
        restoreImage(record, block, page);
        images.set(`${block.relNumber}/${block.blockNumber}`, { block: { ...block }, page });
      }
    }
  }
  return images;
}
