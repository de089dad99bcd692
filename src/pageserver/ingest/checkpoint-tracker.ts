/**
 * The CheckPoint struct as it would be written now, kept current record by record and stored when it changed, so that
 * a compute can start at any LSN with counters that lie beyond everything used before.
 *
 * The next transaction id is stored rounded up, so that not every transaction stores a checkpoint; ids left out are
 * never used and count as aborted. The rounding divides a clog page, so no page is left out.
 *
 * Sources: PostgreSQL access/transam/xlog.c (xlog_redo); the peer's pageserver walingest and postgres_ffi xlog_utils.
 */
import { type CheckPoint, decodeCheckPoint, encodeCheckPoint } from "../../postgres/control-file/checkpoint.ts";
import type { WalEffect } from "../../postgres/effects/effect.ts";
import type { PgMajor } from "../../postgres/versions/major.ts";

const XID_ROUNDING = 1024;
const FIRST_NORMAL_XID = 3;
const FIRST_MULTI_XID = 1;
const U32 = 0x1_0000_0000;

function xidOf(checkpoint: CheckPoint): number {
  return Number(checkpoint.nextFullXid & 0xffffffffn);
}

/** The modulo-2^32 order of transaction and multixact ids. */
function precedes(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}

export class CheckpointTracker {
  readonly #version: PgMajor;
  #current: CheckPoint;
  #changed = false;
  /** The next transaction id, without its epoch: looked at for every record. */
  #nextXid = 0;
  /** Ids from here to the next one change nothing, so most records are done with a comparison. */
  #coveredFrom = 0;

  constructor(bytes: Uint8Array, version: PgMajor) {
    this.#version = version;
    this.#current = decodeCheckPoint(bytes, version);
    this.#noteNextXid();
  }

  #noteNextXid(): void {
    this.#nextXid = xidOf(this.#current);
    this.#coveredFrom = this.#nextXid % XID_ROUNDING === 0 ? this.#nextXid - XID_ROUNDING : this.#nextXid;
  }

  get current(): CheckPoint {
    return this.#current;
  }

  /** The bytes to store, when something changed since the last call. */
  takeChanged(): Uint8Array | null {
    if (!this.#changed) return null;
    this.#changed = false;
    return encodeCheckPoint(this.#current, this.#version);
  }

  /** The next transaction id, without its epoch. */
  get nextXid(): number {
    return this.#nextXid;
  }

  #set(change: Partial<CheckPoint>): void {
    this.#current = { ...this.#current, ...change };
    this.#noteNextXid();
    this.#changed = true;
  }

  /** `xid` was seen in the log. */
  seenXid(xid: number): void {
    if (xid < FIRST_NORMAL_XID || (xid >= this.#coveredFrom && xid < this.#nextXid)) return;
    const rounded = (Math.ceil((xid + 1) / XID_ROUNDING) * XID_ROUNDING) % U32;
    const next = Math.max(rounded, FIRST_NORMAL_XID);
    const oldXid = this.nextXid;
    if (!precedes(oldXid, next)) return;
    const epoch = (this.#current.nextFullXid >> 32n) + (next < oldXid ? 1n : 0n);
    this.#set({ nextFullXid: (epoch << 32n) | BigInt(next) });
  }

  /** `multiXid` with members at `memberOffset` was created. */
  seenMultiXact(multiXid: number, memberOffset: number, members: number): void {
    const nextMulti = Math.max((multiXid + 1) % U32, FIRST_MULTI_XID);
    const nextMultiOffset = (memberOffset + members) % U32;
    if (precedes(this.#current.nextMulti, nextMulti)) this.#set({ nextMulti });
    if (precedes(this.#current.nextMultiOffset, nextMultiOffset)) this.#set({ nextMultiOffset });
  }

  oldestXid(oldestXid: number, oldestXidDb: number): void {
    this.#set({ oldestXid, oldestXidDb });
  }

  oldestMulti(oldestMulti: number, oldestMultiDb: number): void {
    this.#set({ oldestMulti, oldestMultiDb });
  }

  oldestActiveXid(oldestActiveXid: number): void {
    if (this.#current.oldestActiveXid !== oldestActiveXid) this.#set({ oldestActiveXid });
  }

  /** Commit timestamps are kept from now on. */
  startCommitTs(): void {
    this.#set({ oldestCommitTsXid: this.nextXid, newestCommitTsXid: this.nextXid });
  }

  stopCommitTs(): void {
    this.#set({ oldestCommitTsXid: 0, newestCommitTsXid: 0 });
  }

  /** Commit timestamps before `xid` are gone (AdvanceOldestCommitTsXid). */
  oldestCommitTs(xid: number): void {
    const now = this.#current.oldestCommitTsXid;
    if (now !== 0 && precedes(now, xid)) this.#set({ oldestCommitTsXid: xid });
  }

  /** A 32-bit id of a running transaction with its epoch (AdjustToFullTransactionId). */
  toFullXid(xid: number): bigint {
    const { nextXid } = this;
    const epoch = this.#current.nextFullXid >> 32n;
    const ofEpoch = xid > nextXid && epoch > 0n ? epoch - 1n : epoch;
    return (ofEpoch << 32n) | BigInt(xid);
  }

  /** Effects that change nothing but counters. `preparedXids` are those in the two-phase directory. */
  apply(effect: WalEffect, preparedXids: readonly bigint[]): void {
    switch (effect.kind) {
      case "next-oid":
        if (this.#current.nextOid !== effect.nextOid) this.#set({ nextOid: effect.nextOid });
        return;
      case "full-page-writes":
        this.#set({ fullPageWrites: effect.enabled });
        return;
      case "parameter-change":
        if (this.#version >= 17) this.#set({ walLevel: effect.walLevel });
        return;
      case "end-of-recovery":
        if (effect.walLevel !== null) this.#set({ walLevel: effect.walLevel });
        return;
      case "running-xacts":
        this.oldestActiveXid(effect.oldestRunningXid);
        return;
      case "checkpoint-online":
        this.#adopt(effect.checkpoint);
        this.oldestActiveXid(effect.checkpoint.oldestActiveXid);
        return;
      case "checkpoint-shutdown":
        this.#adopt(effect.checkpoint);
        this.oldestActiveXid(effect.checkpoint.oldestActiveXid || this.#oldestPrepared(preparedXids));
    }
  }

  /** Takes over what lies ahead of what we have; limits and settings as they are. */
  #adopt(seen: CheckPoint): void {
    const now = this.#current;
    this.#set({
      nextFullXid: seen.nextFullXid > now.nextFullXid ? seen.nextFullXid : now.nextFullXid,
      nextMulti: precedes(now.nextMulti, seen.nextMulti) ? seen.nextMulti : now.nextMulti,
      nextMultiOffset: precedes(now.nextMultiOffset, seen.nextMultiOffset) ? seen.nextMultiOffset : now.nextMultiOffset,
      ...(precedes(now.oldestXid, seen.oldestXid) ? { oldestXid: seen.oldestXid, oldestXidDb: seen.oldestXidDb } : {}),
      ...(precedes(now.oldestMulti, seen.oldestMulti) ? { oldestMulti: seen.oldestMulti, oldestMultiDb: seen.oldestMultiDb } : {}),
      fullPageWrites: seen.fullPageWrites,
      walLevel: this.#version >= 17 ? seen.walLevel : now.walLevel,
      timeSeconds: seen.timeSeconds,
      oldestCommitTsXid: seen.oldestCommitTsXid,
      newestCommitTsXid: seen.newestCommitTsXid,
    });
  }

  /** After a shutdown only prepared transactions run. */
  #oldestPrepared(preparedXids: readonly bigint[]): number {
    let oldest = this.nextXid;
    for (const xid of preparedXids) {
      const narrow = Number(xid & 0xffffffffn);
      if (precedes(narrow, oldest)) oldest = narrow;
    }
    return oldest;
  }
}
