/** Interpreted WAL of real servers through its wire format into a timeline, which must then equal the server's directory. */
import { afterEach, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import type { InterpretedRecord } from "../../src/interpret/interpret-record.ts";
import { decodeInterpretedBatch, encodeInterpretedBatch, encodeInterpretedRecord } from "../../src/interpret/wire-format.ts";
import type { ShardIdentity } from "../../src/keyspace/shard.ts";
import type { WalRecord } from "../../src/postgres/wal/record.ts";
import { compareDatadir } from "../support/compare-datadir.ts";
import { copyOfDirectory, importStopped, ingestWal } from "../support/ingest-wal.ts";
import { mixedWorkload } from "../support/mixed-workload.ts";
import { StockPostgres } from "../support/stock-postgres.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
}, 20_000);

/** Shard 0 is sent every record. */
function throughTheWire(record: WalRecord, shard: ShardIdentity): InterpretedRecord {
  const bytes = encodeInterpretedRecord(record, { shard, extended: true });
  if (bytes === null) throw new Error("a record was not sent");
  const { records, nextRecordLsn } = decodeInterpretedBatch(encodeInterpretedBatch([bytes], record.endLsn), { version: record.version, shard });
  expect([records.length, nextRecordLsn, records[0].endLsn]).toEqual([1, record.endLsn, record.endLsn]);
  return { ...records[0], startLsn: record.lsn };
}

test.each([15, 17] as const)("the directory after a mixed workload equals PostgreSQL's own: %d", async (major) => {
  const conf = ["full_page_writes = off", "max_prepared_transactions = 5", "autovacuum = off", "wal_keep_size = 1GB", "track_commit_timestamp = on"];
  const server = await StockPostgres.create({ major, conf });
  cleanups.push(() => server.remove());
  const initial = copyOfDirectory(server.dataDirectory);
  cleanups.push(() => rmSync(initial, { recursive: true, force: true }));
  const timeline = await importStopped(initial);
  await server.start();
  await mixedWorkload(server, major);
  await server.stop();
  const records = await ingestWal(timeline, server.dataDirectory, throughTheWire);
  const result = await compareDatadir(timeline.datadir.at(timeline.store.lastRecordLsn, { task: "test" }), server.dataDirectory);
  expect(result.differences).toEqual([]);
  expect(records).toBeGreaterThan(3000);
}, 60_000);
