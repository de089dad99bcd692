/**
 * pg_commit_ts as PostgreSQL keeps it: only while the cluster tracks commit timestamps, which pg_control says, and records of
 * changed settings. Turned off, everything is forgotten. Turned on, PostgreSQL makes the page of the next transaction; here
 * pages come with their first entry, and a server that starts makes the one it needs itself.
 *
 * A transaction's timestamp is the one that the server itself answers with: that of the origin it was replayed from, if the
 * origin had one, else the time of the commit.
 *
 * Sources: PostgreSQL access/transam/commit_ts.c (ActivateCommitTs, DeactivateCommitTs, commit_ts_redo), access/transam/xact.c
 * (RecordTransactionCommit).
 */
import { PAGE_SIZE } from "../../keyspace/relation.ts";
import type { CommitTsEffect } from "../../postgres/effects/commit-ts.ts";
import type { XactFinish } from "../../postgres/effects/xact.ts";
import { COMMIT_TS_XACTS_PER_PAGE } from "../../postgres/slru/commit-ts.ts";
import { slruPagePrecedes } from "../../postgres/slru/segments.ts";
import { type SlruChanges, slruPage } from "../datadir/slru-changes.ts";
import type { CheckpointTracker } from "./checkpoint-tracker.ts";
import { truncateSlru, xidsByPage } from "./slru-effects.ts";

/** DoNotReplicateId: marks changes, but is no origin. */
export const DO_NOT_REPLICATE_ORIGIN = 0xffff;

export class CommitTimestamps {
  readonly #slrus: SlruChanges;
  readonly #checkpoint: CheckpointTracker;
  #active: boolean;

  /** @param to.active what pg_control says where ingest starts */
  constructor(to: { readonly slrus: SlruChanges; readonly checkpoint: CheckpointTracker; readonly active: boolean }) {
    this.#slrus = to.slrus;
    this.#checkpoint = to.checkpoint;
    this.#active = to.active;
    if (to.active && to.checkpoint.current.oldestCommitTsXid === 0) to.checkpoint.startCommitTs();
  }

  get isActive(): boolean {
    return this.#active;
  }

  /** The setting was logged as `active`. */
  async setActive(active: boolean): Promise<void> {
    if (active && !this.#active) this.#checkpoint.startCommitTs();
    if (!active && this.#active) await this.#deactivate();
    this.#active = active;
  }

  async #deactivate(): Promise<void> {
    this.#checkpoint.stopCommitTs();
    for (const segment of await this.#slrus.segments("commit-ts")) await this.#slrus.drop("commit-ts", segment);
  }

  async commit(effect: XactFinish): Promise<void> {
    if (!this.#active) return;
    const origin = effect.origin?.originId === DO_NOT_REPLICATE_ORIGIN ? null : effect.origin;
    const timestamp = origin === null || origin.timestamp === 0n ? effect.time : origin.timestamp;
    const originId = effect.origin?.originId ?? 0;
    for (const [page, xids] of xidsByPage([effect.xid, ...effect.subxids], COMMIT_TS_XACTS_PER_PAGE)) {
      await this.#slrus.putRecords(slruPage("commit-ts", page), [{ type: "commit-ts-set", xids, timestamp, originId }]);
    }
  }

  async apply(effect: CommitTsEffect): Promise<void> {
    if (effect.kind === "commit-ts-zero-page") return this.#slrus.putPage(slruPage("commit-ts", effect.page), new Uint8Array(PAGE_SIZE));
    this.#checkpoint.oldestCommitTs(effect.oldestXid);
    const precedes = (a: number, b: number): boolean => slruPagePrecedes(a, b, COMMIT_TS_XACTS_PER_PAGE);
    await truncateSlru(this.#slrus, "commit-ts", { cutoffPage: effect.page, precedes });
  }
}
