/**
 * A timeline as a tar archive, for another safekeeper to pull: `safekeeper.control`, then the WAL segments in order, the
 * last one as far as it is durable. Segments are not removed here meanwhile; a log that is cut meanwhile breaks the stream.
 *
 * Source: the peer safekeeper/src/pull_timeline.rs (stream_snapshot).
 */
import { pack as tarPack } from "tar-stream";
import { StrataError } from "../../kit/errors.ts";
import { lsnToString } from "../../kit/lsn.ts";
import type { FileSystem } from "../../platform/files.ts";
import { termHistoryToString } from "../api/term-history.ts";
import { encodeControlFile } from "../control-file/codec.ts";
import { CONTROL_FILE_NAME } from "../control-file/control-file.ts";
import type { TimelinePersistentState } from "../control-file/state.ts";
import { listSegments, missingSegment, openSegment, segmentName, segmentOf, PARTIAL_SUFFIX } from "../wal-store/segments.ts";
import type { Timeline } from "./timeline.ts";

const CHUNK_BYTES = 256 * 1024;

interface Capture {
  readonly state: TimelinePersistentState;
  readonly flushLsn: number;
  readonly segments: readonly number[];
}

/** The archive's bytes. Ends with an error when the log changed under it. */
export function snapshotStream(timeline: Timeline, files: FileSystem): ReadableStream<Uint8Array> {
  const archive = tarPack();
  const entries = archive[Symbol.asyncIterator]();
  const closed = new Promise<void>((resolve) => archive.once("close", () => resolve()));
  const writing = timeline.gate.run(() => writeArchive(timeline, files, { pack: archive, closed })).then(() => archive.finalize(), (error: unknown) => archive.destroy(error as Error));
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const next = await entries.next();
      if (next.done === true) controller.close();
      else controller.enqueue(new Uint8Array(next.value as Uint8Array));
    },
    async cancel() {
      archive.destroy();
      await writing;
    },
  });
}

interface Archive {
  readonly pack: ReturnType<typeof tarPack>;
  /** The reader is gone, or everything is sent. */
  readonly closed: Promise<void>;
}

async function writeArchive(timeline: Timeline, files: FileSystem, archive: Archive): Promise<void> {
  timeline.walRemovalHolds++;
  try {
    const capture = await timeline.exclusive("snapshot", () => captureState(timeline, files));
    await addEntry(archive, { name: CONTROL_FILE_NAME, sizeBytes: 0 }, [encodeControlFile(capture.state)]);
    for (const segment of capture.segments) await addSegment(timeline, files, { archive, capture, segment });
    checkUnchanged(capture.state, timeline.state);
  } finally {
    timeline.walRemovalHolds--;
  }
}

/**
 * Whoever is elected may cut the log, and go on from there in files that have been sent with what was there before. The term is
 * not enough to tell: it may have been voted in before the snapshot began.
 */
function checkUnchanged(before: TimelinePersistentState, after: TimelinePersistentState): void {
  if (before.term !== after.term) throw new StrataError("retry", "term-changed", `the term changed from ${before.term} to ${after.term} during the snapshot`);
  const [was, is] = [before, after].map(({ termHistory }) => termHistoryToString(termHistory));
  if (was !== is) throw new StrataError("retry", "term-changed", `the log's history changed from ${was} to ${is} during the snapshot`);
}

async function captureState(timeline: Timeline, files: FileSystem): Promise<Capture> {
  const { acceptor, geometry } = timeline;
  const flushLsn = acceptor.log.flushRecordLsn;
  const last = segmentOf(Math.max(0, flushLsn - 1), geometry.segmentSize);
  const segments = (await listSegments(files, timeline.directory, geometry.segmentSize)).map((file) => file.segment).filter((segment) => segment <= last);
  // The copy has its own backup to make: what we know of ours is of no use there.
  return { state: { ...timeline.state, ...acceptor.volatile, partialBackup: [] }, flushLsn, segments: flushLsn === 0 ? [] : segments };
}

async function addSegment(timeline: Timeline, files: FileSystem, job: { archive: Archive; capture: Capture; segment: number }): Promise<void> {
  const { archive, capture, segment } = job;
  const { segmentSize } = timeline.geometry;
  const sizeBytes = Math.min(segmentSize, capture.flushLsn - segment * segmentSize);
  const open = await openSegment(files, timeline.directory, { segment, segmentSizeBytes: segmentSize, mode: "read" });
  if (open === null) throw missingSegment(segment, segmentSize, timeline.directory);
  const name = segmentName(segment, segmentSize) + (sizeBytes < segmentSize ? PARTIAL_SUFFIX : "");
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < sizeBytes; ) {
      const chunk = new Uint8Array(Math.min(CHUNK_BYTES, sizeBytes - at));
      const length = (await open?.file.read(chunk, at)) ?? 0;
      if (length < chunk.length) throw new StrataError("retry", "log-changed", `the log was cut below ${lsnToString(capture.flushLsn)} during the snapshot`);
      yield chunk;
      at += length;
    }
  }
  try {
    await addEntry(archive, { name, sizeBytes }, chunks());
  } finally {
    await open.file.close();
  }
}

/** @param file.sizeBytes 0: that of the one part */
async function addEntry(archive: Archive, file: { readonly name: string; readonly sizeBytes: number }, parts: readonly [Uint8Array] | AsyncIterable<Uint8Array>): Promise<void> {
  const sizeBytes = Array.isArray(parts) ? (parts as readonly [Uint8Array])[0].length : file.sizeBytes;
  const done = Promise.withResolvers<void>();
  const entry = archive.pack.entry({ name: file.name, size: sizeBytes }, (error?: Error | null) => (error ? done.reject(error) : done.resolve()));
  done.promise.catch(() => undefined);
  for await (const part of parts) {
    if (archive.pack.destroyed) throw new StrataError("unavailable", "snapshot-abandoned", "the reader of the snapshot is gone");
    if (entry.write(part) === false) await Promise.race([new Promise<void>((resolve) => entry.once("drain", () => resolve())), archive.closed]);
  }
  entry.end(undefined);
  await done.promise;
}
