/**
 * Reads a timeline's WAL from any position on. What lies below the start of the timeline, in its first segment, is made
 * up (`first-segment.ts`), so that readers may begin at a segment's start.
 *
 * The caller sees to it that only durable bytes are asked for, and that the log is not cut below them meanwhile.
 */
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { FileHandle, FileSystem } from "../../platform/files.ts";
import type { WalGeometry } from "../../postgres/wal/page-header.ts";
import { fillFirstSegment, firstSegmentHeaders, type HeaderBytes } from "./first-segment.ts";
import { missingSegment, openSegment, segmentOf } from "./segments.ts";

export interface WalReaderOptions {
  readonly files: FileSystem;
  readonly directory: string;
  readonly geometry: WalGeometry;
  readonly systemId: bigint;
  readonly timelineStartLsn: Lsn;
  /** Where the WAL on this disk begins, perhaps in the middle of a segment: what is below it comes from elsewhere. */
  readonly localStartLsn: Lsn;
  /** Opens a segment that is not on this disk; null when it is nowhere. */
  readonly fetchSegment?: (segment: number) => Promise<FileHandle | null>;
}

export class WalReader {
  readonly #options: WalReaderOptions;
  readonly #headers: readonly HeaderBytes[];
  #open: { readonly segment: number; readonly local: boolean; readonly file: FileHandle } | null = null;

  constructor(options: WalReaderOptions) {
    this.#options = options;
    this.#headers = firstSegmentHeaders(options.geometry, options.systemId, options.timelineStartLsn);
  }

  /**
   * Fills `into` from `lsn` on; returns how many bytes: fewer than its length at a segment's end and at the timeline's
   * start, never 0.
   * @throws StrataError not-found `wal-segment-missing`, `wal-before-timeline`; corrupt `wal-lost`
   */
  async read(lsn: Lsn, into: Uint8Array): Promise<number> {
    const { geometry, timelineStartLsn, localStartLsn } = this.#options;
    const inSegment = into.subarray(0, Math.min(into.length, geometry.segmentSize - (lsn % geometry.segmentSize)));
    if (lsn < timelineStartLsn) {
      if (segmentOf(lsn, geometry.segmentSize) !== segmentOf(timelineStartLsn, geometry.segmentSize)) {
        throw new StrataError("not-found", "wal-before-timeline", `WAL of ${lsnToString(lsn)} was asked for: the timeline starts at ${lsnToString(timelineStartLsn)}`);
      }
      const made = inSegment.subarray(0, Math.min(inSegment.length, timelineStartLsn - lsn));
      fillFirstSegment(made, lsn, this.#headers);
      return made.length;
    }
    const local = lsn >= localStartLsn;
    const file = await this.#segmentFile(segmentOf(lsn, geometry.segmentSize), local);
    const length = await file.read(local ? inSegment : inSegment.subarray(0, localStartLsn - lsn), lsn % geometry.segmentSize);
    if (length === 0) throw new StrataError("corrupt", "wal-lost", `${file.path} ends before ${lsnToString(lsn)}`, { details: { path: file.path } });
    return length;
  }

  async close(): Promise<void> {
    const open = this.#open;
    this.#open = null;
    await open?.file.close();
  }

  /** @param mayBeLocal false: the file on this disk lacks its beginning */
  async #segmentFile(segment: number, mayBeLocal: boolean): Promise<FileHandle> {
    if (this.#open?.segment === segment && this.#open.local === mayBeLocal) return this.#open.file;
    await this.close();
    const { files, directory, geometry, fetchSegment } = this.#options;
    const local = mayBeLocal ? await openSegment(files, directory, { segment, segmentSizeBytes: geometry.segmentSize, mode: "read" }) : null;
    const file = local?.file ?? (await fetchSegment?.(segment)) ?? null;
    if (file === null) throw missingSegment(segment, geometry.segmentSize, directory);
    this.#open = { segment, local: mayBeLocal, file };
    return file;
  }
}
