/**
 * Changes to a timeline's data directory, gathered record by record and committed in batches. There is one
 * modification per timeline, owned by ingest (or by an import), and it keeps the directories decoded between records.
 *
 * Invariants: LSNs rise; one key gets at most one value per LSN (a second put at the same LSN replaces the first, for
 * metadata; pages are put once); metadata put here is seen by this modification's own reads at once, pages only after
 * `commit`.
 */
import type { PgMajor } from "../../postgres/versions/major.ts";
import { invariant, isStrataError, StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { ByteReader, ByteWriter } from "../../kit/bytes.ts";
import type { KeyValue, Value } from "../../interpret/value.ts";
import { ValueBatch } from "../../interpret/value-batch.ts";
import { auxFileKey, decodeAuxFiles, updateAuxFiles } from "../../keyspace/aux-file.ts";
import type { Key } from "../../keyspace/key.ts";
import { CHECKPOINT_KEY, CONTROL_FILE_KEY, isRelBlockKey, isSlruBlockKey, replOriginKey } from "../../keyspace/mapping.ts";
import { countValues } from "../counts/count-values.ts";
import type { ReadContext } from "../timeline/timeline-store.ts";
import { DatadirReader } from "./datadir-reader.ts";
import type { ModificationWriter } from "./modification-writer.ts";
import { RelationChanges } from "./relation-changes.ts";
import { SlruChanges } from "./slru-changes.ts";
import type { TimelineDatadir } from "./timeline-datadir.ts";
import { TwoPhaseChanges } from "./two-phase-changes.ts";

const CONTEXT: ReadContext = { task: "ingest" };
/** Above this much, a batch should be committed, and a single record hands over what it has. */
export const MAX_PENDING_BYTES = 8 * 1024 * 1024;

export class DatadirModification implements ModificationWriter {
  readonly datadir: TimelineDatadir;
  readonly relations: RelationChanges;
  readonly slrus: SlruChanges;
  readonly twoPhase: TwoPhaseChanges;
  #lsn: Lsn;
  #recordStart: Lsn;
  readonly #batch = new ValueBatch();
  /** The newest uncommitted value of each metadata key, and its place in the batch (-1 once handed over). */
  readonly #metadata = new Map<string, { entry: KeyValue; at: number }>();
  #pendingBlocks = 0;

  constructor(datadir: TimelineDatadir) {
    this.datadir = datadir;
    this.#lsn = datadir.store.lastRecordLsn;
    this.#recordStart = datadir.store.prevRecordLsn;
    this.relations = new RelationChanges(this);
    this.slrus = new SlruChanges(this);
    this.twoPhase = new TwoPhaseChanges(this);
  }

  get lsn(): Lsn {
    return this.#lsn;
  }

  get version(): PgMajor {
    return this.datadir.version;
  }

  /** Bytes waiting to be committed, about. */
  get pendingBytes(): number {
    return this.#batch.sizeBytes;
  }

  get hasPending(): boolean {
    return this.#lsn > this.datadir.store.lastRecordLsn;
  }

  /** What follows happens at `endLsn`, in the record that starts at `startLsn`. */
  beginRecord(startLsn: Lsn, endLsn: Lsn): void {
    if (endLsn <= this.#lsn) throw new StrataError("corrupt", "lsn-order", `record ending at ${lsnToString(endLsn)} comes after ${lsnToString(this.#lsn)}`);
    this.#recordStart = startLsn;
    this.#lsn = endLsn;
  }

  /** The directories that every timeline has, empty: the first thing put on a new one. */
  initializeEmpty(): void {
    this.datadir.startEmpty();
    this.relations.initialize();
    this.slrus.initialize();
    this.twoPhase.initialize();
  }

  put(key: Key, value: Value): void {
    if (isPageKey(key)) {
      this.#batch.add(key, this.#lsn, value);
      return;
    }
    const entry = { key, lsn: this.#lsn, value };
    const id = metadataId(key);
    const known = this.#metadata.get(id);
    if (known !== undefined && known.entry.lsn === this.#lsn && known.at >= 0) {
      known.entry = entry;
      this.#batch.setValue(known.at, value);
    } else {
      this.#metadata.set(id, { entry, at: this.#batch.add(key, this.#lsn, value) });
    }
  }

  /** Where values are put without an object for each, at `lsn`. */
  get batch(): ValueBatch {
    return this.#batch;
  }

  putImage(key: Key, bytes: Uint8Array): void {
    this.put(key, { kind: "image", bytes });
  }

  /**
   * A value that this record's own value for the same key builds upon: stored `steps` below the record's LSN, which
   * lies inside the record, where no other value can be. Comes before any other put of the record.
   */
  putBefore(key: Key, value: Value, steps: number): void {
    const { count, lsns } = this.#batch;
    const lsn = this.#lsn - steps;
    invariant(steps < 8 && (count === 0 || lsns[count - 1] <= lsn), "a value below the record's LSN must come first");
    this.#batch.add(key, lsn, value);
  }

  /** The newest value of a metadata key. @throws StrataError not-found `missing-key` */
  async get(key: Key): Promise<Uint8Array> {
    const known = this.#metadata.get(metadataId(key));
    if (known !== undefined) {
      invariant(known.entry.value.kind === "image", "metadata is stored as images only");
      return known.entry.value.bytes;
    }
    return this.datadir.store.get(key, this.datadir.store.lastRecordLsn, CONTEXT);
  }

  /** Reads through this modification: metadata as changed so far, pages as last committed. */
  reader(): DatadirReader {
    const { store, version, sizes } = this.datadir;
    return new DatadirReader({
      lsn: this.#lsn,
      version,
      sizes,
      get: (key) => this.get(key),
      getVectored: (keys) => this.#getVectored(keys),
      scan: (range) => store.scan(range, store.lastRecordLsn, CONTEXT),
    });
  }

  #getVectored(keys: readonly Key[]): Promise<(Uint8Array | Error)[]> {
    const dataOnly = keys.every(isPageKey);
    if (dataOnly) return this.datadir.store.getVectored(keys, this.datadir.store.lastRecordLsn, CONTEXT);
    return Promise.all(keys.map((key) => this.get(key).catch((error: unknown) => error as Error)));
  }

  // --- single keys

  putControlFile(bytes: Uint8Array): void {
    this.putImage(CONTROL_FILE_KEY, bytes);
  }

  putCheckpoint(bytes: Uint8Array): void {
    this.putImage(CHECKPOINT_KEY, bytes);
  }

  /** @param remoteLsn 0 drops the origin */
  setReplOrigin(originId: number, remoteLsn: Lsn): void {
    this.putImage(replOriginKey(originId), new ByteWriter(8).lsnBe(remoteLsn).finish());
  }

  /** LSN up to which the origin was replayed, 0 for an unknown one. */
  async replOrigin(originId: number): Promise<Lsn> {
    try {
      return new ByteReader(await this.get(replOriginKey(originId)), "replication origin").lsnBe();
    } catch (error) {
      if (isStrataError(error, "missing-key")) return 0;
      throw error;
    }
  }

  /** Empty content removes the file. */
  async putAuxFile(path: string, content: Uint8Array): Promise<void> {
    const key = auxFileKey(path);
    let old: Uint8Array = new Uint8Array(0);
    try {
      old = await this.get(key);
    } catch (error) {
      if (!isStrataError(error, "missing-key")) throw error;
    }
    const updated = updateAuxFiles(old, path, content);
    const { count, sizeBytes } = this.datadir.auxFiles;
    this.datadir.auxFiles = { count: count + decodeAuxFiles(updated).length - decodeAuxFiles(old).length, sizeBytes: sizeBytes + updated.length - old.length };
    this.putImage(key, updated);
  }

  /** Ingest's count of how relation sizes changed, for the logical size. */
  addBlocks(blocks: number): void {
    this.#pendingBlocks += blocks;
  }

  // --- committing

  /** Hands values over early when many wait, so that one record (or an import) may be larger than memory. */
  async relieve(): Promise<void> {
    if (this.pendingBytes > MAX_PENDING_BYTES) await this.flushPages();
  }

  /** Hands the values over without moving the timeline on. Metadata of the current LSN waits: it may change again. */
  async flushPages(): Promise<void> {
    const waiting = [...this.#metadata.values()].filter(({ entry, at }) => at >= 0 && entry.lsn === this.#lsn);
    this.#batch.remove(new Set(waiting.map(({ at }) => at)));
    for (const known of this.#metadata.values()) known.at = -1;
    this.#count();
    const wait = this.datadir.store.putBatch(this.#batch);
    if (wait !== undefined) await wait;
    this.#batch.clear();
    for (const known of waiting) known.at = this.#batch.add(known.entry.key, known.entry.lsn, known.entry.value);
  }

  /** Hands everything over and makes it readable. Nothing may be put until that is done. */
  commit(): Promise<void> | undefined {
    if (!this.hasPending) return undefined;
    this.#count();
    const wait = this.datadir.store.putBatch(this.#batch);
    if (wait !== undefined) return wait.then(() => this.#committed());
    this.#committed();
    return undefined;
  }

  #count(): void {
    const counts = this.datadir.ingestCounts;
    if (counts !== null) countValues(this.#batch, counts);
  }

  #committed(): void {
    this.#batch.clear();
    this.#metadata.clear();
    this.datadir.store.advance(this.#lsn, this.#recordStart);
    this.datadir.addBlocks(this.#pendingBlocks);
    this.#pendingBlocks = 0;
  }
}

function isPageKey(key: Key): boolean {
  return isRelBlockKey(key) || isSlruBlockKey(key);
}

function metadataId(key: Key): string {
  return `${key.field1}/${key.field2}/${key.field3}/${key.field4}/${key.field5}/${key.field6}`;
}
