/** A stock server's data directory and WAL, taken into a naive timeline through the real import and ingest. */
import { cpSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { interpretRecord } from "../../src/interpret/interpret-record.ts";
import { UNSHARDED_IDENTITY } from "../../src/keyspace/shard.ts";
import type { Lsn } from "../../src/kit/lsn.ts";
import { DatadirModification } from "../../src/pageserver/datadir/datadir-modification.ts";
import { TimelineDatadir } from "../../src/pageserver/datadir/timeline-datadir.ts";
import { importDatadir, inspectDatadir, walFileName } from "../../src/pageserver/import/import-datadir.ts";
import { WalIngest } from "../../src/pageserver/ingest/wal-ingest.ts";
import { RealFiles } from "../../src/platform/real/files.ts";
import { decodeRecord } from "../../src/postgres/wal/decode-record.ts";
import { redoRecord } from "../../src/postgres/redo/redo.ts";
import type { PgMajor } from "../../src/postgres/versions/major.ts";
import { WalRecord } from "../../src/postgres/wal/record.ts";
import { WalStreamDecoder } from "../../src/postgres/wal/stream-decoder.ts";
import { type ApplyRecord, NaiveTimelineStore } from "./naive-timeline-store.ts";

/** Redo through the dispatcher, for stores that keep whole records. */
export function redoWith(version: PgMajor): ApplyRecord {
  const record = new WalRecord();
  // Positional parameters on purpose: the store's.
  return (key, value, page, lsn) => {
    decodeRecord(value.record, version, record, { checkCrc: false });
    for (let id = 0; id < record.blockCount; id++) {
      const ref = record.blocks[id];
      if (!ref.inUse || ref.blockNumber !== key.field6 || ref.relNumber !== key.field4 || ref.fork !== key.field5 || ref.dbOid !== key.field3) continue;
      redoRecord(page, record, id, lsn);
      return page;
    }
    throw new Error("the record does not name the page");
  };
}

export interface ImportedTimeline {
  readonly store: NaiveTimelineStore;
  readonly datadir: TimelineDatadir;
  readonly ingest: WalIngest;
  /** Where WAL goes on. */
  readonly lsn: Lsn;
  readonly segmentSize: number;
}

export async function importStopped(dataDirectory: string): Promise<ImportedTimeline> {
  const files = new RealFiles();
  const { control, checkpointLsn, endLsn } = await inspectDatadir(files, dataDirectory);
  const store = new NaiveTimelineStore({ lastRecordLsn: checkpointLsn, applyRecord: redoWith(control.version) });
  const datadir = new TimelineDatadir(store, { version: control.version, shard: UNSHARDED_IDENTITY });
  await importDatadir(new DatadirModification(datadir), files, dataDirectory);
  return { store, datadir, ingest: await WalIngest.start(datadir), lsn: endLsn, segmentSize: control.segmentSize };
}

/** Everything in pg_wal from where the timeline ends, by the way the receiver goes, or as `interpret` does. Returns the number of records. */
export async function ingestWal(timeline: ImportedTimeline, dataDirectory: string, interpret: typeof interpretRecord | null = null): Promise<number> {
  const { ingest, datadir, segmentSize } = timeline;
  const files = new RealFiles();
  const decoder = new WalStreamDecoder(ingest.lsn, datadir.version, segmentSize);
  const record = new WalRecord();
  let count = 0;
  try {
    for (;;) {
      const path = `${dataDirectory}/pg_wal/${walFileName(decoder.position, segmentSize)}`;
      if (!(await files.exists(path))) break;
      const segment = await files.readFile(path);
      decoder.feed(segment.subarray(decoder.position % segmentSize));
      while (decoder.next(record)) {
        await (interpret === null ? ingest.ingestRecord(record) : ingest.ingest(interpret(record, datadir.shard)));
        count++;
      }
    }
  } catch (error) {
    // The unused rest of the last segment: nothing that decodes.
    if (!/wal-bad|bad-record|wal-gap/.test(String((error as { code?: string }).code))) throw error;
  }
  await ingest.commit();
  return count;
}

export function copyOfDirectory(from: string): string {
  const to = mkdtempSync(join(tmpdir(), "strata-copy-"));
  cpSync(from, to, { recursive: true });
  return to;
}
