/**
 * One timeline seen as a PostgreSQL data directory: readers at any LSN, and what is shared between them and ingest.
 */
import type { PgMajor } from "../../postgres/versions/major.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { ShardIdentity } from "../../keyspace/shard.ts";
import { PAGE_SIZE } from "../../keyspace/relation.ts";
import type { StorageCounts } from "../counts/storage-counts.ts";
import { abortable } from "../layers/layer.ts";
import type { ReadContext, TimelineStore } from "../timeline/timeline-store.ts";
import { DatadirReader } from "./datadir-reader.ts";
import { RelationSizeCache } from "./relation-size-cache.ts";

/** What a count of the logical size is for, in the peer's words. */
export type SizeCircumstances = "EmptyInitial" | "SkippedConcurrencyLimiter" | "AfterBackgroundTasksRateLimit";

/** Told what happens, for metrics. */
export interface DatadirWatch {
  readonly relationSizes: { hits: number; misses: number; missesOld: number };
  readonly ingest: StorageCounts["ingest"];
  /** @returns to be called when it has ended, with whether the size is known now */
  sizeCountBegins(attempt: number, circumstances: SizeCircumstances): (isKnown: boolean) => void;
}

export class TimelineDatadir {
  readonly store: TimelineStore;
  readonly version: PgMajor;
  readonly shard: ShardIdentity;
  readonly sizes: RelationSizeCache;
  /** All relations' blocks when they were counted, and what ingest has changed since that count began. */
  #baseBlocks: number | null = null;
  #blocksSinceBase = 0;
  #counting: Promise<void> | null = null;
  #attempts = 0;
  readonly #watch: DatadirWatch | null;
  /** Of directories that ingest has written, by name; and auxiliary files, as they were listed last and changed since. For metrics. */
  #directories: Map<string, number> | null = null;
  auxFiles = { count: 0, sizeBytes: 0 };

  constructor(store: TimelineStore, options: { version: PgMajor; shard: ShardIdentity; watch?: DatadirWatch }) {
    this.store = store;
    this.#watch = options.watch ?? null;
    this.version = options.version;
    this.shard = options.shard;
    this.sizes = new RelationSizeCache(store.lastRecordLsn, { counts: options.watch?.relationSizes });
  }

  /** What is counted of ingest, of all timelines together. */
  get ingestCounts(): StorageCounts["ingest"] | null {
    return this.#watch?.ingest ?? null;
  }

  /** The directory as of `lsn`; the caller has waited for it. */
  at(lsn: Lsn, context: ReadContext): DatadirReader {
    const { store, version, sizes } = this;
    return new DatadirReader({
      lsn,
      version,
      sizes,
      get: (key) => store.get(key, lsn, context),
      getVectored: (keys) => store.getVectored(keys, lsn, context),
      scan: (range) => store.scan(range, lsn, context),
      auxFilesListed: (files) => {
        if (lsn === store.lastRecordLsn) this.auxFiles = files;
      },
    });
  }

  /** A record had nothing for this shard. */
  countFiltered(): void {
    if (this.#watch !== null) this.#watch.ingest.recordsFiltered++;
  }

  noteDirectory(name: string, entries: number): void {
    (this.#directories ??= new Map()).set(name, entries);
  }

  /** By the peer's kinds of directories, in its order: databases, prepared transactions, relations, aux files, clog, multixact members and offsets. */
  directoryEntries(): number[] {
    const { databases = 0, "two-phase": twoPhase = 0, clog = 0, "multixact-members": members = 0, "multixact-offsets": offsets = 0, "commit-ts": _ours, ...relations } = Object.fromEntries(this.#directories ?? []);
    const inRelations = Object.values(relations).reduce((sum, entries) => sum + entries, 0);
    return [databases, twoPhase, inRelations, this.auxFiles.count, clog, members, offsets];
  }

  /** Ingest committed a change of `blocks` in the sum of all relation sizes. */
  addBlocks(blocks: number): void {
    this.#blocksSinceBase += blocks;
  }

  /** The timeline holds nothing yet: sizes are counted from zero. */
  startEmpty(): void {
    this.#watch?.sizeCountBegins(this.#attempts++, "EmptyInitial")(true);
    this.#baseBlocks = 0;
    this.#blocksSinceBase = 0;
  }

  /** The timeline begins where another one was, whose size is known: nothing was ingested into it yet. */
  startWithSize(sizeBytes: number): void {
    this.#baseBlocks ??= sizeBytes / PAGE_SIZE;
  }

  /** Bytes in all relation forks now: counted once, and kept by ingest after that. */
  async currentLogicalSizeBytes(context: ReadContext): Promise<number> {
    // The count is everybody's: it goes on when one of them gives up.
    if (this.#baseBlocks === null) await abortable((this.#counting ??= this.#countBase(context.task === "logical-size" ? "AfterBackgroundTasksRateLimit" : "SkippedConcurrencyLimiter").finally(() => (this.#counting = null))), context.signal);
    return this.knownLogicalSize.sizeBytes;
  }

  /** What is known without looking; not exact before the first count: only what ingest has added since the start then. */
  get knownLogicalSize(): { readonly sizeBytes: number; readonly isExact: boolean } {
    const blocks = (this.#baseBlocks ?? 0) + this.#blocksSinceBase;
    return { sizeBytes: Math.max(0, blocks) * PAGE_SIZE, isExact: this.#baseBlocks !== null };
  }

  /** The size if it is exact. */
  get knownLogicalSizeBytes(): number | null {
    const { sizeBytes, isExact } = this.knownLogicalSize;
    return isExact ? sizeBytes : null;
  }

  /** At the LSN of its start: GC may have passed the one of an earlier attempt. */
  async #countBase(circumstances: SizeCircumstances): Promise<void> {
    const { lastRecordLsn } = this.store;
    this.#blocksSinceBase = 0;
    const ended = this.#watch?.sizeCountBegins(this.#attempts++, circumstances);
    try {
      this.#baseBlocks = await this.#countBlocks(lastRecordLsn, { task: "logical-size" });
      ended?.(true);
    } catch (error) {
      ended?.(false);
      throw error;
    }
  }

  /** The same, counted at `lsn`. */
  async logicalSizeBytes(lsn: Lsn, context: ReadContext): Promise<number> {
    return (await this.#countBlocks(lsn, context)) * PAGE_SIZE;
  }

  async #countBlocks(lsn: Lsn, context: ReadContext): Promise<number> {
    const reader = this.at(lsn, context);
    let blocks = 0;
    for (const database of (await reader.listDatabases()).values()) blocks += await reader.databaseBlocks(database.spcOid, database.dbOid);
    return blocks;
  }
}
