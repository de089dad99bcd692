/** WAL segments in a directory, ingested into a timeline from where it ends. */
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { Clock } from "../../platform/clock.ts";
import type { FileSystem } from "../../platform/files.ts";
import { decodeControlFile } from "../../postgres/control-file/control-file.ts";
import { WalRecord } from "../../postgres/wal/record.ts";
import { WalStreamDecoder } from "../../postgres/wal/stream-decoder.ts";
import type { TimelineDatadir } from "../datadir/timeline-datadir.ts";
import { WalIngest } from "../ingest/wal-ingest.ts";
import { walFileName } from "./import-datadir.ts";

const YIELD_RECORDS = 256;

/**
 * Takes records until one ends at `endLsn` or beyond. Nobody else may write to the timeline meanwhile.
 * @throws StrataError fix-input `wal-missing` when the segments end before, `bad-archive`; corrupt from the WAL
 */
export async function importWal(datadir: TimelineDatadir, from: { readonly files: FileSystem; readonly directory: string; readonly clock: Clock }, endLsn: Lsn): Promise<void> {
  const { files, directory, clock } = from;
  const { store, version } = datadir;
  const { segmentSize } = decodeControlFile(await datadir.at(store.lastRecordLsn, { task: "import" }).controlFile());
  const ingest = await WalIngest.start(datadir);
  const decoder = new WalStreamDecoder(store.lastRecordLsn, version, segmentSize);
  const record = new WalRecord();
  let records = 0;
  while (ingest.lsn < endLsn) {
    const name = walFileName(decoder.position, segmentSize);
    const path = `${directory}/${name}`;
    if (!(await files.exists(path))) throw new StrataError("fix-input", "wal-missing", `the archive has no WAL at ${lsnToString(decoder.position)}; ${lsnToString(endLsn)} was to be reached`);
    const { sizeBytes } = await files.stat(path);
    if (sizeBytes !== segmentSize) throw new StrataError("fix-input", "bad-archive", `WAL segment ${name} of the archive has ${sizeBytes} bytes instead of ${segmentSize}`);
    const segment = { bytes: await files.readFile(path), lsn: decoder.position - (decoder.position % segmentSize) };
    decoder.feed(segment.bytes.subarray(decoder.position % segmentSize));
    while (ingest.lsn < endLsn && next(decoder, record, segment)) {
      const wait = ingest.ingestRecord(record);
      if (wait !== undefined) await wait;
      if (++records % YIELD_RECORDS === 0) await clock.sleep(0);
    }
  }
  await ingest.commit();
}

/** Nothing but zeros is the unused rest of a segment: the log has ended. Anything else that does not decode is damage. */
function next(decoder: WalStreamDecoder, record: WalRecord, segment: { readonly bytes: Uint8Array; readonly lsn: Lsn }): boolean {
  try {
    return decoder.next(record);
  } catch (cause) {
    const { recordEnd } = decoder;
    if (recordEnd < segment.lsn || !segment.bytes.subarray(recordEnd - segment.lsn).every((byte) => byte === 0)) throw cause;
    throw new StrataError("fix-input", "wal-missing", `the WAL of the archive ends at ${lsnToString(recordEnd)}`, { cause });
  }
}
