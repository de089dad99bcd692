/**
 * Applies interpreted WAL records to a timeline, in order. Each record's values are stored at the record's END LSN.
 *
 *   const ingest = await WalIngest.start(datadir);
 *   await ingest.ingest(record); …; await ingest.commit();
 *
 * Invariants: one instance per timeline; records rise; nothing is readable before `commit`; the stored checkpoint
 * lies at or beyond everything the records before it used. A record that no redo is known for is stored all the same:
 * whoever reads its page gets the error.
 *
 * Sources: PostgreSQL's redo functions of the managers named; the peer's pageserver walingest module.
 */
import type { RelationRef } from "../../postgres/effects/reading.ts";
import { type ControlFile, decodeControlFile, encodeControlFile } from "../../postgres/control-file/control-file.ts";
import type { WalEffect } from "../../postgres/effects/effect.ts";
import type { ParameterChange } from "../../postgres/effects/xlog.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { WalRecord } from "../../postgres/wal/record.ts";
import { type InterpretedBlock, type InterpretedRecord, interpretRecord, needsCommittedPages } from "../../interpret/interpret-record.ts";
import { CONTROL_FILE_KEY } from "../../keyspace/mapping.ts";
import { INIT_FORK, MAIN_FORK, type RelTag } from "../../keyspace/relation.ts";
import { DatadirModification, MAX_PENDING_BYTES } from "../datadir/datadir-modification.ts";
import type { TimelineDatadir } from "../datadir/timeline-datadir.ts";
import { CheckpointTracker } from "./checkpoint-tracker.ts";
import { CommitTimestamps, DO_NOT_REPLICATE_ORIGIN } from "./commit-timestamps.ts";
import { copyDatabase } from "./copy-database.ts";
import { QuickIngest } from "./quick-ingest.ts";
import { ingestClogTruncate, ingestMultiXactCreate, ingestMultiXactTruncate, ingestXactFinish, PreInitializedPage } from "./slru-effects.ts";
import { clearVisibilityMap, truncateRelation } from "./truncate-and-visibility.ts";

/** Records in one commit, at most. */
const MAX_BATCH_RECORDS = 1024;

export class WalIngest {
  readonly #datadir: TimelineDatadir;
  readonly #modification: DatadirModification;
  readonly #checkpoint: CheckpointTracker;
  readonly #commitTs: CommitTimestamps;
  readonly #preInitialized = new PreInitializedPage();
  readonly #quick: QuickIngest;
  #records = 0;

  private constructor(datadir: TimelineDatadir, state: { readonly checkpoint: Uint8Array; readonly control: ControlFile }) {
    this.#datadir = datadir;
    this.#modification = new DatadirModification(datadir);
    this.#checkpoint = new CheckpointTracker(state.checkpoint, datadir.version);
    this.#commitTs = new CommitTimestamps({ slrus: this.#modification.slrus, checkpoint: this.#checkpoint, active: state.control.trackCommitTimestamp });
    this.#quick = new QuickIngest({ modification: this.#modification, checkpoint: this.#checkpoint, commitTs: this.#commitTs });
  }

  /** Takes up where the timeline's last record ends. @throws StrataError not-found `missing-key` on a timeline without data */
  static async start(datadir: TimelineDatadir): Promise<WalIngest> {
    // An instance before this one may have ended inside a record.
    datadir.sizes.reset(datadir.store.lastRecordLsn);
    const reader = datadir.at(datadir.store.lastRecordLsn, { task: "ingest" });
    return new WalIngest(datadir, { checkpoint: await reader.checkpoint(), control: decodeControlFile(await reader.controlFile()) });
  }

  /** End of the last record taken, committed or not. */
  get lsn(): Lsn {
    return this.#modification.lsn;
  }

  /** Takes one record as it was decoded, which is not needed any more when this returns. Otherwise as `ingest`. */
  ingestRecord(record: WalRecord): Promise<void> | undefined {
    if (this.#quick.take(record)) return this.#recordTaken();
    const interpreted = interpretRecord(record, this.#datadir.shard);
    if (this.#datadir.shard.count > 1 && hasNothing(interpreted)) this.#datadir.countFiltered();
    return this.ingest(interpreted);
  }

  #recordTaken(): Promise<void> | undefined {
    this.#records++;
    return this.#records >= MAX_BATCH_RECORDS || this.#modification.pendingBytes >= MAX_PENDING_BYTES ? this.commit() : undefined;
  }

  /** Takes one record; commits by itself when a batch is full. Comes again only when what it returned has resolved. */
  async ingest(record: InterpretedRecord): Promise<void> {
    if (needsCommittedPages(record)) await this.commit();
    this.#modification.beginRecord(record.startLsn, record.endLsn);
    if (record.effect !== null) await this.#applyEffect(record.effect);
    if (record.blocks.length > 0) await this.#putBlocks(record.blocks);
    this.#checkpoint.seenXid(record.xid);
    const checkpoint = this.#checkpoint.takeChanged();
    if (checkpoint !== null) this.#modification.putCheckpoint(checkpoint);
    await this.#recordTaken();
  }

  /** Makes everything taken so far readable. */
  commit(): Promise<void> | undefined {
    this.#records = 0;
    return this.#modification.commit();
  }

  async #putBlocks(blocks: readonly InterpretedBlock[]): Promise<void> {
    /** Sizes of the blocks' forks before the record. */
    const before: number[] = [];
    for (let at = 0; at < blocks.length; at++) {
      const { rel } = blocks[at];
      const known = blocks.findIndex((other) => sameFork(other.rel, rel));
      before.push(known < at ? before[known] : await this.#extend(rel, blocks));
    }
    for (let at = 0; at < blocks.length; at++) {
      const { rel, block, value } = blocks[at];
      if (value === null) continue;
      // A page past the old end starts as zeros; what an earlier, longer life of the relation left under its key must not show.
      const isNew = block >= before[at] && value.kind === "postgres" && !value.willInit;
      this.#modification.relations.putPage(rel, block, isNew ? { ...value, willInit: true } : value);
    }
  }

  /** Grows the fork to hold all blocks that the record has of it; returns the size it had. */
  async #extend(rel: RelTag, blocks: readonly InterpretedBlock[]): Promise<number> {
    let last = 0;
    for (const other of blocks) if (other.block > last && sameFork(other.rel, rel)) last = other.block;
    const size = this.#datadir.sizes.latest(rel);
    if (size !== undefined && last < size) return size;
    const written = (block: number): boolean => blocks.some((other) => other.block === block && sameFork(other.rel, rel));
    return this.#modification.relations.extend(rel, last + 1, written);
  }

  async #applyEffect(effect: WalEffect): Promise<void> {
    const { relations, slrus, twoPhase } = this.#modification;
    switch (effect.kind) {
      case "clear-visibility-map":
        return clearVisibilityMap(this.#modification, effect);
      case "smgr-create":
        return relations.create({ ...effect.relation, fork: effect.fork });
      case "smgr-truncate":
        return truncateRelation(this.#modification, effect);
      case "dbase-create-copy":
        return copyDatabase(this.#modification, effect);
      case "dbase-create-empty":
        return relations.ensureDatabase(effect.spcOid, effect.dbOid, false);
      case "dbase-drop":
        for (const spcOid of effect.spcOids) await relations.dropDatabase(spcOid, effect.dbOid);
        return;
      case "tablespace-create":
        return relations.createTablespace(effect.spcOid);
      case "tablespace-drop":
        return relations.dropTablespace(effect.spcOid);
      case "relmap-update":
        return relations.putRelmapFile(effect.spcOid, effect.dbOid, effect.map);
      case "xact-prepare":
        return twoPhase.put(this.#stateFileXid(effect.xid), effect.state);
      case "xact-commit":
      case "xact-abort":
        return this.#finishTransaction(effect);
      case "clog-zero-page":
      case "multixact-zero-offsets-page":
      case "multixact-zero-members-page":
        return this.#preInitialized.zeroPage(slrus, effect);
      case "commit-ts-zero-page":
      case "commit-ts-truncate":
        return this.#commitTs.apply(effect);
      case "parameter-change":
        return this.#changeParameters(effect);
      case "clog-truncate":
        this.#checkpoint.oldestXid(effect.oldestXid, effect.oldestXidDb);
        return ingestClogTruncate(slrus, effect, this.#checkpoint.current);
      case "multixact-create":
        return ingestMultiXactCreate(slrus, effect, { checkpoint: this.#checkpoint, preInitialized: this.#preInitialized });
      case "multixact-truncate":
        this.#checkpoint.oldestMulti(effect.endMulti, effect.oldestMultiDb);
        return ingestMultiXactTruncate(slrus, effect);
      case "aux-file":
        return this.#modification.putAuxFile(effect.path, effect.content);
      case "replorigin-set":
        return this.#setReplOrigin(effect);
      case "replorigin-drop":
        return this.#modification.setReplOrigin(effect.originId, 0);
      case "checkpoint-shutdown":
        return this.#checkpoint.apply(effect, await twoPhase.xids());
      default:
        return this.#checkpoint.apply(effect, []);
    }
  }

  async #finishTransaction(effect: Extract<WalEffect, { kind: "xact-commit" | "xact-abort" }>): Promise<void> {
    const modification = this.#modification;
    await ingestXactFinish(modification.slrus, effect);
    if (effect.kind === "xact-commit") await this.#commitTs.commit(effect);
    for (const xid of [effect.xid, ...effect.subxids]) this.#checkpoint.seenXid(xid);
    for (const [spcOid, dbOid, forks] of forksByDatabase(effect.droppedRelations)) await modification.relations.drop(spcOid, dbOid, forks);
    const originId = effect.origin?.originId ?? 0;
    if (effect.origin !== null && originId !== 0 && originId !== DO_NOT_REPLICATE_ORIGIN) modification.setReplOrigin(originId, effect.origin.originLsn);
    if (effect.prepared) await modification.twoPhase.drop(this.#stateFileXid(effect.xid));
  }

  /** The server runs with other settings than the last one: pg_control keeps them (XLogReportParameters). */
  async #changeParameters(effect: ParameterChange): Promise<void> {
    const control = decodeControlFile(await this.#modification.get(CONTROL_FILE_KEY));
    const { kind: _, ...settings } = effect;
    this.#modification.putControlFile(encodeControlFile({ ...control, ...settings }));
    this.#checkpoint.apply(effect, []);
    await this.#commitTs.setActive(effect.trackCommitTimestamp);
  }

  /** PostgreSQL 17 names state files by the full transaction id. */
  #stateFileXid(xid: number): bigint {
    return this.#datadir.version >= 17 ? this.#checkpoint.toFullXid(xid) : BigInt(xid);
  }

  async #setReplOrigin(effect: Extract<WalEffect, { kind: "replorigin-set" }>): Promise<void> {
    const known = effect.force ? 0 : await this.#modification.replOrigin(effect.originId);
    if (effect.remoteLsn > known) this.#modification.setReplOrigin(effect.originId, effect.remoteLsn);
  }
}

/** Whether there is nothing in a record for the shard. */
function hasNothing({ effect, blocks }: InterpretedRecord): boolean {
  return effect === null && blocks.length === 0;
}

function sameFork(a: RelTag, b: RelTag): boolean {
  return a.relNumber === b.relNumber && a.fork === b.fork && a.dbOid === b.dbOid && a.spcOid === b.spcOid;
}

function forksByDatabase(relations: readonly RelationRef[]): Iterable<[number, number, RelTag[]]> {
  const byDatabase = new Map<string, [number, number, RelTag[]]>();
  for (const relation of relations) {
    const id = `${relation.spcOid}/${relation.dbOid}`;
    const entry = byDatabase.get(id) ?? [relation.spcOid, relation.dbOid, []];
    for (let fork = MAIN_FORK; fork <= INIT_FORK; fork++) entry[2].push({ ...relation, fork });
    byDatabase.set(id, entry);
  }
  return byDatabase.values();
}
