/** The servers whose log the timelines take: as initdb leaves them, or begun from a branch's own pages at any LSN. */
import { writeStarter } from "../../../src/compute/base-backup/starter.ts";
import { BackupUnpacker } from "../../../src/compute/base-backup/unpack.ts";
import { UNSHARDED_IDENTITY } from "../../../src/keyspace/shard.ts";
import { baseBackup } from "../../../src/pageserver/basebackup/base-backup.ts";
import { TimelineDatadir } from "../../../src/pageserver/datadir/timeline-datadir.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import { RealFiles } from "../../../src/platform/real/files.ts";
import type { SeededRandom } from "../../../src/platform/virtual/seeded-random.ts";
import { type StockMajor, StockPostgres } from "../../support/stock-postgres.ts";

const CONF = [
  "wal_consistency_checking = 'all'", "wal_level = logical", "shared_buffers = 4MB", "autovacuum = off", "max_wal_size = 8GB", "wal_keep_size = 64GB", "checkpoint_timeout = 1h",
  "synchronous_commit = off", "bgwriter_delay = 10s", "wal_writer_delay = 10ms", "max_connections = 30", "max_parallel_workers_per_gather = 0", "max_parallel_maintenance_workers = 0",
  "max_prepared_transactions = 4", "log_min_messages = error",
];
const WALL_MS = 1_700_000_000_000;

export function randomConf(random: SeededRandom): string[] {
  const onOff = () => (random.below(2) === 0 ? "on" : "off");
  return [...CONF, `full_page_writes = ${onOff()}`, `wal_log_hints = ${onOff()}`];
}

/** An unmodified server begun from a base backup of the branch at its branch point, in the middle of whatever was going on then. */
export async function serverFromBranch(timeline: Timeline, options: { readonly major: StockMajor; readonly conf: readonly string[] }): Promise<StockPostgres> {
  const files = new RealFiles();
  const reader = new TimelineDatadir(timeline, { version: options.major, shard: UNSHARDED_IDENTITY }).at(timeline.lastRecordLsn, { task: "history" });
  return await StockPostgres.inDirectory(options, async (directory) => {
    const unpacker = new BackupUnpacker(files, directory);
    for await (const piece of baseBackup(reader, { form: "stock", replica: false, prevLsn: timeline.prevRecordLsn, isBranchPoint: true, wallMs: WALL_MS })) await unpacker.push(piece);
    await writeStarter(files, directory, { backup: await unpacker.finish(), settledLsn: reader.lsn });
  });
}
