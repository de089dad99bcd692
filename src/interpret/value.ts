/**
 * What the pageserver stores at (key, LSN): an image, or a record to apply on what was there before.
 * The byte form (the peer's bincode of its `Value`) is in `value-codec.ts`.
 */
import type { Lsn } from "../kit/lsn.ts";
import type { Key } from "../keyspace/key.ts";

export type Value =
  | { readonly kind: "image"; readonly bytes: Uint8Array }
  /** A PostgreSQL WAL record, whole, as it was in the log. */
  | { readonly kind: "postgres"; readonly willInit: boolean; readonly record: Uint8Array }
  /** A record of the peer's own, or ours, for pages that PostgreSQL changes by rule, not by record. */
  | { readonly kind: "neon"; readonly record: NeonRecord };

export type NeonRecord =
  | { readonly type: "clear-visibility-map-flags"; readonly newHeapBlock: number | null; readonly oldHeapBlock: number | null; readonly flags: number }
  | { readonly type: "clog-set-committed"; readonly xids: readonly number[]; readonly timestamp: bigint }
  | { readonly type: "clog-set-aborted"; readonly xids: readonly number[] }
  | { readonly type: "multixact-offset-create"; readonly multiXid: number; readonly memberOffset: number }
  | { readonly type: "multixact-members-create"; readonly memberOffset: number; readonly members: readonly { readonly xid: number; readonly status: number }[] }
  | { readonly type: "aux-file"; readonly path: string; readonly content: Uint8Array | null }
  | { readonly type: "truncate-visibility-map"; readonly truncByte: number; readonly truncOffset: number }
  /** Ours: the peer keeps no commit timestamps. */
  | { readonly type: "commit-ts-set"; readonly xids: readonly number[]; readonly timestamp: bigint; readonly originId: number };

export interface KeyValue {
  readonly key: Key;
  readonly lsn: Lsn;
  readonly value: Value;
}

/** True when nothing below this value is needed to read it. */
export function valueWillInit(value: Value): boolean {
  if (value.kind === "image") return true;
  return value.kind === "postgres" && value.willInit;
}
