/**
 * What the rest of the pageserver (ingest, page service, base backup, import, size and GC) may ask of one timeline's
 * storage: a map from (key, LSN) to values, read at an LSN. `Timeline` implements it; tests may use a naive map.
 *
 * LSN rules: a value written at LSN x is seen by reads at LSN ≥ x. Writes come from one writer, in rising LSN order,
 * and become readable when `advance` moves `lastRecordLsn` over them. Reads at an LSN above `lastRecordLsn` must wait
 * for it first (`waitLsn`); below `gcCutoffLsn` they are refused by the callers unless a lease covers them.
 */
import type { TenantShardId, TimelineId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { KeyValue } from "../../interpret/value.ts";
import type { ValueBatch } from "../../interpret/value-batch.ts";
import type { Key, KeyRange } from "../../keyspace/key.ts";

export interface ReadContext {
  /** Who reads, for metrics and logs: "page-service", "basebackup", "compaction" … */
  readonly task: string;
  readonly signal?: AbortSignal;
  /** Pages may come from the page cache, and are kept in it. For who reads what will be read again. */
  readonly cachePages?: boolean;
}

/** Where a page is to be put. */
export interface PageTarget {
  bytes: Uint8Array;
  at: number;
}

export interface TimelineStore {
  readonly tenantShardId: TenantShardId;
  readonly timelineId: TimelineId;
  readonly ancestor: { readonly timelineId: TimelineId; readonly lsn: Lsn } | null;
  /** End of the last record ingested: everything below is readable. */
  readonly lastRecordLsn: Lsn;
  /** Start of that record (its prev link goes into the base backup's starter segment). */
  readonly prevRecordLsn: Lsn;
  /** Everything below is in layer files on the local disk. */
  readonly diskConsistentLsn: Lsn;
  /** Everything below is in object storage and named by an uploaded index_part. */
  readonly remoteConsistentLsn: Lsn;
  /** History below may be gone. */
  readonly gcCutoffLsn: Lsn;

  /** Adds values, in rising LSN order; each above `lastRecordLsn`. Waits when flushing lags (back-pressure). */
  put(values: readonly KeyValue[]): Promise<void>;
  /** The same for a batch, which the caller may use again once this has returned nothing, or its promise resolved. */
  putBatch(batch: ValueBatch): Promise<void> | undefined;
  /** Makes all that was put at or below `lastRecordLsn` readable and wakes waiters. */
  advance(lastRecordLsn: Lsn, prevRecordLsn: Lsn): void;
  /** Resolves once lastRecordLsn ≥ lsn. @throws StrataError retry `wait-lsn-timeout` naming both LSNs */
  waitLsn(lsn: Lsn, options: { timeoutMs?: number; signal?: AbortSignal; who: string }): Promise<void>;

  /** The page or blob of `key` as of `lsn`, reconstructed; owned by the caller.
   *  @throws StrataError not-found `missing-key` with key, LSN and layers visited */
  get(key: Key, lsn: Lsn, context: ReadContext): Promise<Uint8Array>;
  /** Copies the page (8192 bytes) of `key` as of `lsn` to `target` if that needs no waiting, by the page cache; false: ask `getVectored`, for
   *  whatever reason. The caller has checked the LSN as for a read. */
  readPageNow(key: Key, lsn: Lsn, target: PageTarget): boolean;
  /** Many keys at one LSN; results in the order of `keys`, each bytes or the error that key met. */
  getVectored(keys: readonly Key[], lsn: Lsn, context: ReadContext): Promise<(Uint8Array | Error)[]>;
  /** All keys present in a sparse range as of `lsn`, in key order (aux files, replication origins, dropped keys absent). */
  scan(range: KeyRange, lsn: Lsn, context: ReadContext): Promise<{ key: Key; bytes: Uint8Array }[]>;

  /** Freezes the open layer and flushes everything put so far to delta layers on disk, uploads scheduled. */
  freezeAndFlush(): Promise<void>;
  /** After `freezeAndFlush`: waits until object storage has it too. */
  waitUploaded(signal?: AbortSignal): Promise<void>;
}
