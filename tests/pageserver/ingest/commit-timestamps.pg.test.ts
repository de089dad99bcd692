import { afterAll, expect, test } from "bun:test";
import { newestCommitTsXid } from "../../../src/pageserver/datadir/commit-ts-limits.ts";
import { decodeCheckPoint } from "../../../src/postgres/control-file/checkpoint.ts";
import { type ControlFile, decodeControlFile } from "../../../src/postgres/control-file/control-file.ts";
import { compareDatadir } from "../../support/compare-datadir.ts";
import { importStopped, ingestWal } from "../../support/ingest-wal.ts";
import { StockPostgres } from "../../support/stock-postgres.ts";

const cleanups: (() => unknown)[] = [];
afterAll(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

function settings(control: ControlFile) {
  const { walLevel, walLogHints, maxConnections, maxWorkerProcesses, maxWalSenders, maxPreparedXacts, maxLocksPerXact, trackCommitTimestamp } = control;
  return { walLevel, walLogHints, maxConnections, maxWorkerProcesses, maxWalSenders, maxPreparedXacts, maxLocksPerXact, trackCommitTimestamp };
}

/** Each a server's life: its settings, and how many transactions it commits. */
const LIVES: readonly { readonly conf: readonly string[]; readonly commits: number }[] = [
  { conf: ["track_commit_timestamp = off", "max_connections = 30"], commits: 20 },
  { conf: ["track_commit_timestamp = on", "wal_level = logical"], commits: 1500 },
  { conf: ["max_connections = 40", "max_prepared_transactions = 4", "wal_log_hints = on"], commits: 10 },
  { conf: ["track_commit_timestamp = off"], commits: 10 },
  { conf: ["track_commit_timestamp = on", "max_worker_processes = 12", "max_wal_senders = 7", "max_locks_per_transaction = 70"], commits: 900 },
];

test("settings and commit timestamps of servers with one configuration after the other", async () => {
  const server = await StockPostgres.create({ major: 17, conf: ["full_page_writes = off", "autovacuum = off", "wal_keep_size = 1GB"] });
  cleanups.push(() => server.remove());
  const timeline = await importStopped(server.dataDirectory);
  for (const { conf, commits } of LIVES) {
    server.configure(conf);
    await server.start();
    const sql = server.sql();
    await sql.unsafe("create table if not exists t (id int)");
    await sql.unsafe(`do $$ begin for i in 1..${commits} loop insert into t values (i); if i % 10 = 0 then rollback; else commit; end if; end loop; end $$`);
    await sql.unsafe("do $$ begin insert into t values (0); for i in 1..3 loop begin insert into t values (i); exception when others then null; end; end loop; end $$");
    await server.stop();
    await ingestWal(timeline, server.dataDirectory);
    const reader = timeline.datadir.at(timeline.store.lastRecordLsn, { task: "test" });
    expect((await compareDatadir(reader, server.dataDirectory)).differences).toEqual([]);
    const theirs = decodeControlFile(new Uint8Array(await Bun.file(`${server.dataDirectory}/global/pg_control`).arrayBuffer()));
    expect(settings(decodeControlFile(await reader.controlFile()))).toEqual(settings(theirs));
    const checkpoint = decodeCheckPoint(await reader.checkpoint(), 17);
    expect([checkpoint.oldestCommitTsXid, checkpoint.newestCommitTsXid]).toEqual([theirs.checkpoint.oldestCommitTsXid, theirs.checkpoint.newestCommitTsXid]);
    if (theirs.trackCommitTimestamp) expect(await newestCommitTsXid(reader, { ...checkpoint, newestCommitTsXid: checkpoint.oldestCommitTsXid })).toBe(theirs.checkpoint.newestCommitTsXid);
  }
}, 60_000);
