/**
 * One timeline seen as a PostgreSQL data directory: readers at any LSN, and what is shared between them and ingest.
 */
import type { PgMajor } from "../../postgres/versions/major.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { ShardIdentity } from "../../keyspace/shard.ts";
import { PAGE_SIZE } from "../../keyspace/relation.ts";
import { abortable } from "../layers/layer.ts";
import type { ReadContext, TimelineStore } from "../timeline/timeline-store.ts";
import { DatadirReader } from "./datadir-reader.ts";
import { RelationSizeCache } from "./relation-size-cache.ts";

export class TimelineDatadir {
  readonly store: TimelineStore;
  readonly version: PgMajor;
  readonly shard: ShardIdentity;
  readonly sizes: RelationSizeCache;
  /** All relations' blocks when they were counted, and what ingest has changed since that count began. */
  #baseBlocks: number | null = null;
  #blocksSinceBase = 0;
  #counting: Promise<void> | null = null;

  constructor(store: TimelineStore, options: { version: PgMajor; shard: ShardIdentity }) {
    this.store = store;
    this.version = options.version;
    this.shard = options.shard;
    this.sizes = new RelationSizeCache(store.lastRecordLsn);
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
    });
  }

  /** Ingest committed a change of `blocks` in the sum of all relation sizes. */
  addBlocks(blocks: number): void {
    this.#blocksSinceBase += blocks;
  }

  /** The timeline holds nothing yet: sizes are counted from zero. */
  startEmpty(): void {
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
    if (this.#baseBlocks === null) await abortable((this.#counting ??= this.#countBase().finally(() => (this.#counting = null))), context.signal);
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
  async #countBase(): Promise<void> {
    const { lastRecordLsn } = this.store;
    this.#blocksSinceBase = 0;
    this.#baseBlocks = await this.#countBlocks(lastRecordLsn, { task: "logical-size" });
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
