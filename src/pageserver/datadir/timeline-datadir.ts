/**
 * One timeline seen as a PostgreSQL data directory: readers at any LSN, and what is shared between them and ingest.
 */
import type { PgMajor } from "../../postgres/versions/major.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { ShardIdentity } from "../../keyspace/shard.ts";
import { PAGE_SIZE } from "../../keyspace/relation.ts";
import type { ReadContext, TimelineStore } from "../timeline/timeline-store.ts";
import { DatadirReader } from "./datadir-reader.ts";
import { RelationSizeCache } from "./relation-size-cache.ts";

export class TimelineDatadir {
  readonly store: TimelineStore;
  readonly version: PgMajor;
  readonly shard: ShardIdentity;
  readonly sizes: RelationSizeCache;
  readonly #sizeBaseLsn: Lsn;
  #sizeBaseBlocks: Promise<number> | null = null;
  #blocksSinceBase = 0;

  constructor(store: TimelineStore, options: { version: PgMajor; shard: ShardIdentity }) {
    this.store = store;
    this.version = options.version;
    this.shard = options.shard;
    this.sizes = new RelationSizeCache(store.lastRecordLsn);
    this.#sizeBaseLsn = store.lastRecordLsn;
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
    this.#sizeBaseBlocks = Promise.resolve(0);
    this.#blocksSinceBase = 0;
  }

  /** Bytes in all relation forks now: counted once at the LSN the timeline was loaded at, kept by ingest after that. */
  async currentLogicalSizeBytes(context: ReadContext): Promise<number> {
    this.#sizeBaseBlocks ??= this.#countBlocks(this.#sizeBaseLsn, context).catch((error: unknown) => {
      this.#sizeBaseBlocks = null;
      throw error;
    });
    const base = await this.#sizeBaseBlocks;
    return (base + this.#blocksSinceBase) * PAGE_SIZE;
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
