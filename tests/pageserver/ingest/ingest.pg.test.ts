import { afterEach, describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { compareDatadir } from "../../support/compare-datadir.ts";
import { copyOfDirectory, importStopped, ingestWal } from "../../support/ingest-wal.ts";
import { mixedWorkload } from "../../support/mixed-workload.ts";
import { StockPostgres } from "../../support/stock-postgres.ts";

const context = { task: "test" };
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
}, 20_000);

for (const major of [14, 15, 16, 17] as const) {
  describe(`ingest of PostgreSQL ${major}`, () => {
    test("the directory after a mixed workload equals PostgreSQL's own", async () => {
      const conf = ["full_page_writes = off", "max_prepared_transactions = 5", "autovacuum = off", "wal_keep_size = 1GB", "track_commit_timestamp = on"];
      const server = await StockPostgres.create({ major, conf });
      cleanups.push(() => server.remove());
      const initial = copyOfDirectory(server.dataDirectory);
      cleanups.push(() => rmSync(initial, { recursive: true, force: true }));
      const timeline = await importStopped(initial);
      const atImport = await compareDatadir(timeline.datadir.at(timeline.lsn, context), initial);
      expect(atImport.differences).toEqual([]);
      expect(atImport.pages).toBeGreaterThan(500);

      await server.start();
      await mixedWorkload(server, major);
      await server.stop();
      const records = await ingestWal(timeline, server.dataDirectory);
      const reader = timeline.datadir.at(timeline.store.lastRecordLsn, context);
      const result = await compareDatadir(reader, server.dataDirectory);
      console.log(`PostgreSQL ${major}: ${records} records, ${result.pages} pages and ${result.slruPages} SLRU pages compared, ${result.differences.length} differences`);
      expect(result.differences).toEqual([]);
      expect(records).toBeGreaterThan(3000);
    }, 60_000);
  });
}
