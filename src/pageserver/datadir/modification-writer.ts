/** What the parts of a modification (relations, SLRUs, prepared transactions) may do to the whole; see datadir-modification.ts. */
import type { Lsn } from "../../kit/lsn.ts";
import type { Value } from "../../interpret/value.ts";
import type { Key } from "../../keyspace/key.ts";
import type { PgMajor } from "../../postgres/versions/major.ts";
import type { TimelineDatadir } from "./timeline-datadir.ts";

export interface ModificationWriter {
  readonly lsn: Lsn;
  readonly version: PgMajor;
  readonly datadir: TimelineDatadir;
  put(key: Key, value: Value): void;
  putImage(key: Key, bytes: Uint8Array): void;
  putBefore(key: Key, value: Value, steps: number): void;
  relieve(): Promise<void>;
  get(key: Key): Promise<Uint8Array>;
  addBlocks(blocks: number): void;
}
