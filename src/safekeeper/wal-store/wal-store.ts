/**
 * The WAL of one timeline on disk: takes bytes in at the end, makes them durable in groups, cuts them back.
 *
 *     flushRecordLsn <= flushLsn                     durable
 *     flushRecordLsn <= writeRecordLsn <= writeLsn   taken in (the tail of it still in memory)
 *
 * The two record positions are ends of whole records; the protocol's flush_lsn is `flushRecordLsn`. The last segment is
 * named `.partial`; files only ever grow at their end, and are complete before they lose that suffix. Behind the log a file may
 * have zeros (`prepareAhead`): its size says nothing about where the log ends.
 *
 * `needsTruncation` is set from the start, after every failure, and while a truncation runs: what lies on the disk above
 * the positions is then not known, so nothing is appended until a truncation went through. The positions are lowered
 * before the first byte is removed, for removal cannot be taken back.
 *
 * An fsync that failed is fatal to the timeline on this node: the kernel may have marked the dirty pages clean and report
 * the next fsync as a success. That outlives our process, so whatever is found in the files at a start is written once more
 * before it is called durable. A full disk is not: nothing durable is lost, and appends are refused until there is room.
 *
 * Calls must not overlap (the timeline's mutex sees to it), but for `removeBefore`.
 *
 * Source: the peer safekeeper/src/wal_storage.rs; on fsync: Rebello et al., "Can Applications Recover from fsync
 * Failures?" (USENIX ATC 2020).
 */
import { concatBytes } from "../../kit/bytes.ts";
import { describeError, isStrataError, StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { FileHandle, FileSystem } from "../../platform/files.ts";
import { WalRecord } from "../../postgres/wal/record.ts";
import type { WalGeometry } from "../../postgres/wal/page-header.ts";
import { WalStreamDecoder } from "../../postgres/wal/stream-decoder.ts";
import type { LogView } from "../consensus/acceptor.ts";
import { findEndOfWal } from "./end-of-wal.ts";
import { checkPresent, makeDurable } from "./recovered-log.ts";
import { firstSegmentHeaders } from "./first-segment.ts";
import { listSegments, missingSegment, openSegment, PARTIAL_SUFFIX, segmentName, segmentOf } from "./segments.ts";
import { RecordEnds } from "./record-ends.ts";
import type { WalStoreMetrics } from "./wal-store-metrics.ts";

/** Bytes kept in memory before they are handed to the file, flushed or not. */
const MAX_BUFFERED_BYTES = 1024 * 1024;
const LARGE_PIECE_BYTES = 16 * 1024;
/**
 * An fdatasync of a write that makes its file longer has to wait for the file system's journal: twice the time, and half as much
 * processor time again. So behind small writes the file is made longer ahead, by this much; large ones would only be written twice.
 */
const PREPARED_BYTES = 256 * 1024;
const PREPARE_FOR_FLUSHES_UP_TO_BYTES = 32 * 1024;
const ZEROS = new Uint8Array(PREPARED_BYTES);
const ONE_BYTE = new Uint8Array(1);

export interface WalStoreOptions {
  readonly files: FileSystem;
  readonly directory: string;
  readonly geometry: WalGeometry;
  /** Only for the headers of the first segment. */
  readonly systemId: () => bigint;
  /** False: never fsync (`--no-sync`). */
  readonly sync: boolean;
  readonly metrics: WalStoreMetrics;
}

export class WalStore implements LogView {
  readonly #options: WalStoreOptions;
  #writeLsn: Lsn;
  #flushLsn: Lsn;
  #flushRecordLsn: Lsn;
  #needsTruncation = true;
  /** Ends of records taken in. */
  #records: RecordEnds;
  #decoder: WalStreamDecoder | null = null;
  readonly #record = new WalRecord();
  /** Taken in and not handed to the file yet: they end at `#writeLsn`. */
  #buffered: Uint8Array[] = [];
  #bufferedBytes = 0;
  /** The partial segment in which `#writeLsn - #bufferedBytes` lies. */
  #file: FileHandle | null = null;
  /** Its size: never less than what was handed to it. */
  #fileSizeBytes = 0;
  /** What the last flush made durable, as far as it lies in `#file`. */
  #lastFlushBytes = 0;
  #failure: StrataError | null = null;

  private constructor(options: WalStoreOptions, endLsn: Lsn) {
    this.#options = options;
    this.#writeLsn = endLsn;
    this.#flushLsn = endLsn;
    this.#flushRecordLsn = endLsn;
    this.#records = new RecordEnds(endLsn, options.geometry.segmentSize);
  }

  /**
   * @param commitLsn from the control file; 0 = the timeline has no WAL yet
   * @param startLsn where this node's WAL begins
   * @throws StrataError corrupt `wal-lost` when the disk has less than was committed
   */
  static async open(options: WalStoreOptions, position: { commitLsn: Lsn; startLsn: Lsn }): Promise<WalStore> {
    const { commitLsn, startLsn } = position;
    if (commitLsn === 0) return new WalStore(options, 0);
    const { files, directory, geometry } = options;
    const end = await findEndOfWal(files, directory, { geometry, startLsn: commitLsn });
    if (commitLsn > startLsn) await checkPresent(files, directory, { commitLsn, segmentSize: geometry.segmentSize });
    // They may be only in the page cache since a crash of this process, and we are about to call them durable.
    if (options.sync) await makeDurable(files, directory, { fromLsn: commitLsn, toLsn: end.lsn, segments: end.segments, segmentSize: geometry.segmentSize });
    return new WalStore(options, end.lsn);
  }

  get writeLsn(): Lsn {
    return this.#writeLsn;
  }
  get flushRecordLsn(): Lsn {
    return this.#flushRecordLsn;
  }
  get writeRecordLsn(): Lsn {
    return this.#records.last;
  }
  get needsTruncation(): boolean {
    return this.#needsTruncation;
  }
  /** Set once and for ever by an fsync that failed. */
  get failure(): StrataError | null {
    return this.#failure;
  }

  /**
   * Takes in bytes that continue the log. They are borrowed until the next `flush` or failure.
   * @throws StrataError corrupt (they are not WAL), unavailable `disk-full`: then the log is as it was when last flushed,
   * and wants a truncation; unavailable `wal-store-failed`
   */
  async append(lsn: Lsn, bytes: Uint8Array): Promise<void> {
    this.#checkAlive();
    if (this.#needsTruncation || lsn !== this.#writeLsn) {
      throw new StrataError("conflict", "wal-not-continuous", `append at ${lsnToString(lsn)}: the log ends at ${lsnToString(this.#writeLsn)}${this.#needsTruncation ? " and must be truncated first" : ""}`);
    }
    try {
      this.#decode(lsn, bytes);
      this.#buffered.push(bytes);
      this.#bufferedBytes += bytes.length;
      this.#writeLsn += bytes.length;
      const segmentSize = this.#options.geometry.segmentSize;
      const crosses = segmentOf(this.#writeLsn, segmentSize) > segmentOf(this.#writeLsn - this.#bufferedBytes, segmentSize);
      if (crosses || this.#bufferedBytes >= MAX_BUFFERED_BYTES) await this.#writeOut();
    } catch (error) {
      await this.#fallBack(error);
      throw error;
    }
  }

  /** Makes everything taken in durable. @throws as `append` */
  async flush(): Promise<void> {
    this.#checkAlive();
    if (this.#flushRecordLsn === this.#records.last) return;
    this.#lastFlushBytes = this.#writeLsn - this.#flushLsn;
    try {
      await this.#writeOut();
      if (this.#file !== null && this.#flushLsn < this.#writeLsn) await this.#dataSync(this.#file);
    } catch (error) {
      await this.#fallBack(error);
      throw error;
    }
    this.#flushed(this.#writeLsn);
  }

  /** Small writes are about to reach the end of the file: time for `prepareAhead`. */
  get runsShort(): boolean {
    if (this.#file === null || !this.#options.sync || this.#failure !== null || this.#bufferedBytes > 0) return false;
    if (this.#lastFlushBytes > PREPARE_FOR_FLUSHES_UP_TO_BYTES) return false;
    const { segmentSize } = this.#options.geometry;
    return this.#fileSizeBytes < Math.min(segmentSize, (this.#writeLsn % segmentSize) + PREPARE_FOR_FLUSHES_UP_TO_BYTES);
  }

  /**
   * Makes the file longer by zeros, up to the segment's end at most. The next flush makes them durable with what it writes. One
   * call to the file system, so nothing else is written meanwhile that they could lie upon. A disk without room for them is no error.
   * @throws as `append`
   */
  async prepareAhead(): Promise<void> {
    const file = this.#file;
    if (file === null || !this.runsShort) return;
    const { segmentSize } = this.#options.geometry;
    const sizeBytes = Math.min(segmentSize, this.#fileSizeBytes + PREPARED_BYTES);
    try {
      file.writeSync(ZEROS.subarray(0, sizeBytes - this.#fileSizeBytes), this.#fileSizeBytes);
    } catch (error) {
      if (!isStrataError(error, "disk-full")) {
        await this.#fallBack(error);
        throw error;
      }
    }
    this.#fileSizeBytes = sizeBytes;
  }

  /** Writes the headers below the timeline's start into its first segment. Repeating it does no harm. */
  async initializeFirstSegment(startLsn: Lsn): Promise<void> {
    this.#checkAlive();
    const { geometry, metrics } = this.#options;
    await metrics.timed("initialize_first_segment", async () => {
      const file = await this.#openForWriting(startLsn, true);
      try {
        for (const header of firstSegmentHeaders(geometry, this.#options.systemId(), startLsn)) await file.write(header.bytes, header.lsn % geometry.segmentSize);
        const offset = startLsn % geometry.segmentSize;
        if ((await file.sizeBytes()) < offset) await file.truncate(offset);
        await this.#sync(file);
      } finally {
        await file.close();
      }
    });
  }

  /**
   * Removes everything from `lsn` on, durably. Nothing happens when the log ends there and is clean.
   * @param lsn end of a durable record, or the start of the log
   */
  async truncate(lsn: Lsn): Promise<void> {
    this.#checkAlive();
    const known = this.#flushRecordLsn;
    if (known !== 0 && lsn > known) throw new StrataError("conflict", "wal-not-continuous", `truncation at ${lsnToString(lsn)}: the log ends at ${lsnToString(known)}`);
    if (!this.#needsTruncation && lsn === this.#writeLsn && lsn === known) return;
    await this.#options.metrics.timed("truncate_wal", async () => {
      await this.#reset(lsn);
      try {
        await this.#removeFrom(lsn);
        await this.#cutSegment(lsn);
      } catch (error) {
        this.#noteFailure(error);
        throw error;
      }
    });
    const { version, segmentSize } = this.#options.geometry;
    this.#decoder = new WalStreamDecoder(lsn, version, segmentSize);
    this.#needsTruncation = false;
  }

  /** Removes whole segments below `segment`. May run beside appends. Returns how many. */
  async removeBefore(segment: number): Promise<number> {
    const { files, directory, geometry, metrics } = this.#options;
    const removable = (await listSegments(files, directory, geometry.segmentSize)).filter((file) => file.segment < segment && !file.partial);
    if (removable.length === 0) return 0;
    await metrics.timed("remove_segments_from_disk", async () => {
      for (const { name } of removable) await files.remove(`${directory}/${name}`);
    });
    metrics.removedSegments(removable.length);
    return removable.length;
  }

  /** Makes durable what came in and closes the file; the log can be opened anew. */
  async close(): Promise<void> {
    if (this.#failure === null && !this.#needsTruncation) await this.flush().catch(() => undefined);
    await this.#closeFile();
    this.#failure ??= new StrataError("unavailable", "wal-store-closed", `WAL in ${this.#options.directory} is closed`);
  }

  #checkAlive(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  /** @throws StrataError corrupt when they are not WAL */
  #decode(lsn: Lsn, bytes: Uint8Array): void {
    const decoder = this.#decoder;
    if (decoder === null) throw new StrataError("conflict", "wal-not-continuous", "append before the first truncation");
    decoder.feed(bytes, lsn);
    while (decoder.next(this.#record)) this.#records.add(this.#record.endLsn);
    this.#records.reached(lsn + bytes.length);
  }

  /** Hands all buffered bytes to the files; a segment that gets complete is durable and has its final name afterwards. */
  async #writeOut(): Promise<void> {
    const { metrics, geometry } = this.#options;
    while (this.#bufferedBytes > 0) {
      // Small pieces share one write; a large one is worth its own, without a copy.
      const alone = this.#buffered.length === 1 || this.#buffered[0].length >= LARGE_PIECE_BYTES;
      const bytes = alone ? this.#buffered[0] : concatBytes(this.#buffered);
      const others = alone ? this.#buffered.slice(1) : [];
      const lsn = this.#writeLsn - this.#bufferedBytes;
      const segmentEnd = (segmentOf(lsn, geometry.segmentSize) + 1) * geometry.segmentSize;
      const part = bytes.subarray(0, Math.min(bytes.length, segmentEnd - lsn));
      const offset = lsn % geometry.segmentSize;
      const file = this.#file ?? (await this.#openNext(lsn));
      this.#fileSizeBytes = Math.max(this.#fileSizeBytes, offset + part.length);
      await metrics.write(part.length, () => file.write(part, offset));
      const rest = bytes.subarray(part.length);
      this.#buffered = rest.length === 0 ? others : [rest, ...others];
      this.#bufferedBytes -= part.length;
      if (lsn + part.length === segmentEnd) await this.#completeSegment(file, segmentEnd);
    }
  }

  async #openNext(lsn: Lsn): Promise<FileHandle> {
    const file = await this.#openForWriting(lsn, lsn % this.#options.geometry.segmentSize === 0);
    this.#file = file;
    this.#fileSizeBytes = await file.sizeBytes();
    return file;
  }

  async #completeSegment(file: FileHandle, segmentEnd: Lsn): Promise<void> {
    const { files, geometry, directory } = this.#options;
    await this.#dataSync(file);
    await this.#closeFile();
    const path = `${directory}/${segmentName(segmentOf(segmentEnd - 1, geometry.segmentSize), geometry.segmentSize)}`;
    await files.rename(path + PARTIAL_SUFFIX, path);
    await this.#syncDirectory();
    this.#flushed(segmentEnd);
  }

  #flushed(lsn: Lsn): void {
    this.#flushLsn = lsn;
    this.#flushRecordLsn = this.#records.lastUpTo(lsn);
    this.#records.forgetUpTo(lsn);
  }

  async #openForWriting(lsn: Lsn, create: boolean): Promise<FileHandle> {
    const { files, directory, geometry, metrics } = this.#options;
    const segment = segmentOf(lsn, geometry.segmentSize);
    const path = `${directory}/${segmentName(segment, geometry.segmentSize)}${PARTIAL_SUFFIX}`;
    if (!create) {
      const open = await openSegment(files, directory, { segment, segmentSizeBytes: geometry.segmentSize, mode: "read-write" });
      if (open === null) throw missingSegment(segment, geometry.segmentSize, directory);
      return open.file;
    }
    return metrics.timed("initialize_segment", async () => {
      const file = await files.open(path, "create");
      // The name must be durable before a flush of its content is.
      await this.#syncDirectory();
      return file;
    });
  }

  /** The positions first: from here on the log is shorter, whatever happens to the files. */
  async #reset(lsn: Lsn): Promise<void> {
    this.#needsTruncation = true;
    this.#decoder = null;
    this.#buffered = [];
    this.#bufferedBytes = 0;
    this.#writeLsn = lsn;
    this.#flushLsn = lsn;
    this.#flushRecordLsn = lsn;
    this.#records = new RecordEnds(lsn, this.#options.geometry.segmentSize);
    await this.#closeFile();
  }

  /** Segments that begin at `lsn` or above it, the last one first: a crash in between leaves no hole. */
  async #removeFrom(lsn: Lsn): Promise<void> {
    const { files, directory, geometry } = this.#options;
    const doomed = (await listSegments(files, directory, geometry.segmentSize)).filter(({ segment }) => segment * geometry.segmentSize >= lsn).reverse();
    for (const { name } of doomed) {
      await files.remove(`${directory}/${name}`);
      await this.#syncDirectory();
    }
  }

  async #cutSegment(lsn: Lsn): Promise<void> {
    const { files, directory, geometry } = this.#options;
    const offset = lsn % geometry.segmentSize;
    if (offset === 0) return;
    const segment = segmentOf(lsn, geometry.segmentSize);
    const open = await openSegment(files, directory, { segment, segmentSizeBytes: geometry.segmentSize, mode: "read-write" });
    // A timeline that was created with its start LSN has no file yet.
    if (open === null) return this.initializeFirstSegment(lsn);
    try {
      if (!open.partial) {
        const path = `${directory}/${segmentName(segment, geometry.segmentSize)}`;
        await files.rename(path, path + PARTIAL_SUFFIX);
        await this.#syncDirectory();
      }
      const size = await open.file.sizeBytes();
      if (size < offset) throw new StrataError("corrupt", "wal-lost", `segment ${open.file.path} has ${size} bytes, the log should reach offset ${offset}`);
      // A byte more and again less: the same size once more would leave nothing to sync, even where an earlier process
      // cut the file and its fsync failed.
      await open.file.write(ONE_BYTE, offset);
      await open.file.truncate(offset);
      await this.#sync(open.file);
    } finally {
      await open.file.close();
    }
  }

  /** After a failed append or flush: what is durable stays, the rest is as if never received. */
  async #fallBack(error: unknown): Promise<void> {
    this.#noteFailure(error);
    await this.#reset(this.#flushRecordLsn).catch(() => undefined);
  }

  /** Everything but a full disk and bad input makes the state of this disk doubtful. */
  #noteFailure(error: unknown): void {
    if (isStrataError(error) && (error.code === "disk-full" || error.kind === "corrupt" || error.kind === "conflict" || error.kind === "fix-input")) return;
    if (isStrataError(error) && error.code !== "fsync-failed") this.#options.metrics.diskError();
    this.#failure ??= new StrataError("unavailable", "wal-store-failed", `WAL in ${this.#options.directory} is closed after a disk error: ${describeError(error)}`, { cause: error });
  }

  async #sync(file: FileHandle): Promise<void> {
    if (this.#options.sync) await this.#options.metrics.flush(() => failedSync(file.sync()));
  }

  async #dataSync(file: FileHandle): Promise<void> {
    if (this.#options.sync) await this.#options.metrics.flush(() => failedSync(file.dataSync()));
  }

  async #syncDirectory(): Promise<void> {
    if (this.#options.sync) await failedSync(this.#options.files.syncDirectory(this.#options.directory));
  }

  async #closeFile(): Promise<void> {
    const file = this.#file;
    this.#file = null;
    await file?.close();
  }
}

/** Even "disk full" is fatal when it is the fsync that says so: the data was accepted before. */
async function failedSync(sync: Promise<void>): Promise<void> {
  try {
    await sync;
  } catch (error) {
    throw new StrataError("unavailable", "fsync-failed", "fsync failed", { cause: error });
  }
}
