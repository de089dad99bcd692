/**
 * Replays WAL on pages in memory with our redo and compares each with the image PostgreSQL logged beside the record.
 *
 * A page comes into being from an image that is to be applied, or from a record that initializes it. When neither was
 * seen (full_page_writes off), the first check image is taken as the start and counted as adopted, not as compared.
 */
import { dataViewOf } from "../../../src/kit/bytes.ts";
import { describeError } from "../../../src/kit/errors.ts";
import { lsnToString } from "../../../src/kit/lsn.ts";
import { restoreImage } from "../../../src/postgres/page/restore-image.ts";
import { PAGE_HEADER_SIZE, PAGE_SIZE, pageLsn, setPageLsn } from "../../../src/postgres/page/page-layout.ts";
import { ALL_FROZEN, HEAP_PAGES_PER_MAP_PAGE, VISIBILITY_BITS, clearVisibility, visibilityMapBlock } from "../../../src/postgres/redo/heap/visibility-map.ts";
import { maskPage } from "../../../src/postgres/redo/masking/masking.ts";
import { redoManagerName, redoRecord } from "../../../src/postgres/redo/redo.ts";
import { FORK_MAIN, FORK_VISIBILITY_MAP, RMGR } from "../../../src/postgres/wal/constants.ts";
import type { BlockRef, WalRecord } from "../../../src/postgres/wal/record.ts";
import { operationOf } from "./record-kinds.ts";

export type ImageUse = "compared" | "restored" | "adopted" | "none";

export interface CoverageRow {
  readonly rmid: number;
  readonly operation: number;
  readonly blockId: number;
  readonly init: boolean;
  readonly image: ImageUse;
  count: number;
}

const SMGR_TRUNCATE = 0x20;
const MAX_DIFFERENCES_KEPT = 20;

export class Replay {
  readonly differences: string[] = [];
  differenceCount = 0;
  comparedCount = 0;
  recordCount = 0;
  readonly coverage = new Map<string, CoverageRow>();
  readonly #relations = new Map<string, Map<number, Uint8Array>>();
  /**
   * Visibility bits an image has clear and we have set. A backend clears them before it logs the record that says so;
   * another's image may come between. That record must follow.
   */
  readonly #earlyClears = new Set<string>();
  readonly #ours = new Uint8Array(PAGE_SIZE);
  readonly #theirs = new Uint8Array(PAGE_SIZE);

  /** Forgets all pages: right after a checkpoint, when the next record of each brings its image. */
  forgetPages(): void {
    this.#relations.clear();
    for (const early of this.#earlyClears) this.#note(`visibility bits of ${early} are clear in an image, but no record cleared them`);
    this.#earlyClears.clear();
  }

  apply(record: WalRecord): void {
    this.recordCount++;
    for (let id = 0; id < record.blockCount; id++) if (record.blocks[id].inUse) this.#applyBlock(record, id);
    if (record.rmid === RMGR.HEAP || record.rmid === RMGR.HEAP2) this.#clearImplied(record);
    if (record.rmid === RMGR.SMGR && (record.info & 0xf0) === SMGR_TRUNCATE) this.#truncate(record);
    for (let id = 0; id < record.blockCount; id++) {
      const ref = record.blocks[id];
      if (ref.inUse && ref.hasImage && !ref.applyImage) this.#compare(record, id, ref);
    }
  }

  /**
   * Compares the pages we have of a relation (tablespace/database/relation) with its file, after a checkpoint with
   * nothing going on.
   */
  compareFile(relation: { name: string; fork: number; rmid: number }, file: Uint8Array): void {
    const { name, fork, rmid } = relation;
    for (const [blockNumber, page] of this.#relations.get(`${name}/${fork}`) ?? []) {
      const theirs = file.subarray(blockNumber * PAGE_SIZE, (blockNumber + 1) * PAGE_SIZE);
      // The SP-GiST meta page remembers where there was room, and does not log it.
      if (rmid === RMGR.SPGIST && blockNumber === 0) continue;
      const place = `${name} fork ${fork} block ${blockNumber}`;
      this.comparedCount++;
      if (theirs.length !== PAGE_SIZE) {
        this.#note(`${place} is not in the server's file`);
        continue;
      }
      this.#ours.set(page);
      this.#theirs.set(theirs);
      maskPage(this.#ours, rmid, { fork, blockNumber });
      maskPage(this.#theirs, rmid, { fork, blockNumber });
      if (Buffer.compare(this.#ours, this.#theirs) !== 0) this.#note(`${place} against the server's file: ${describeDifference(this.#ours, this.#theirs)}`);
    }
  }

  #pages(ref: BlockRef, fork: number): Map<number, Uint8Array> {
    const name = `${ref.spcOid}/${ref.dbOid}/${ref.relNumber}/${fork}`;
    let pages = this.#relations.get(name);
    if (pages === undefined) {
      pages = new Map();
      this.#relations.set(name, pages);
    }
    return pages;
  }

  #applyBlock(record: WalRecord, id: number): void {
    const ref = record.blocks[id];
    const pages = this.#pages(ref, ref.fork);
    let page = pages.get(ref.blockNumber);
    let use: ImageUse = ref.hasImage ? (ref.applyImage ? "restored" : "compared") : "none";
    if (page === undefined) {
      page = new Uint8Array(PAGE_SIZE);
      if (use === "none" && !ref.willInit) return;
      pages.set(ref.blockNumber, page);
      if (use === "compared" && !ref.willInit) use = "adopted";
    }
    this.#count(record, id, use);
    if (use === "adopted") {
      restoreImage(record, ref, page);
      return;
    }
    try {
      redoRecord(page, record, id, record.endLsn);
    } catch (error) {
      this.#differ(record, id, describeError(error));
      if (ref.hasImage) restoreImage(record, ref, page);
      else pages.delete(ref.blockNumber);
    }
  }

  #count(record: WalRecord, blockId: number, image: ImageUse): void {
    const operation = operationOf(record.rmid, record.info);
    const init = record.blocks[blockId].willInit;
    const key = `${record.rmid} ${operation} ${blockId} ${init} ${image}`;
    const row = this.coverage.get(key);
    if (row === undefined) this.coverage.set(key, { rmid: record.rmid, operation, blockId, init, image, count: 1 });
    else row.count++;
  }

  #compare(record: WalRecord, id: number, ref: BlockRef): void {
    const page = this.#pages(ref, ref.fork).get(ref.blockNumber);
    if (page === undefined) return;
    this.#ours.set(page);
    restoreImage(record, ref, this.#theirs);
    this.comparedCount++;
    try {
      maskPage(this.#ours, record.rmid, ref);
      maskPage(this.#theirs, record.rmid, ref);
    } catch (error) {
      this.#differ(record, id, `masking: ${describeError(error)}`);
    }
    if (Buffer.compare(this.#ours, this.#theirs) === 0) return;
    if (ref.fork === FORK_VISIBILITY_MAP && this.#onlyEarlyClears(ref)) return;
    this.#differ(record, id, describeDifference(this.#ours, this.#theirs));
    const stamped = pageLsn(dataViewOf(page));
    restoreImage(record, ref, page);
    setPageLsn(dataViewOf(page), stamped);
  }

  /** Notes the heap pages whose bits only we have set; false when theirs has any that we have not. */
  #onlyEarlyClears(ref: BlockRef): boolean {
    for (let at = 0; at < PAGE_SIZE; at++) if ((this.#theirs[at] & ~this.#ours[at]) !== 0) return false;
    for (let at = PAGE_HEADER_SIZE; at < PAGE_SIZE; at++) {
      const early = this.#ours[at] & ~this.#theirs[at];
      for (let pair = 0; pair < 4; pair++) {
        const heapBlock = ref.blockNumber * HEAP_PAGES_PER_MAP_PAGE + (at - PAGE_HEADER_SIZE) * 4 + pair;
        if (((early >> (pair * 2)) & VISIBILITY_BITS) !== 0) this.#earlyClears.add(`${ref.spcOid}/${ref.dbOid}/${ref.relNumber} block ${heapBlock}`);
      }
    }
    return true;
  }

  #differ(record: WalRecord, id: number, what: string): void {
    const ref = record.blocks[id];
    const kind = `${redoManagerName(record.rmid)} info 0x${record.info.toString(16)}`;
    const place = `${ref.spcOid}/${ref.dbOid}/${ref.relNumber} fork ${ref.fork} block ${ref.blockNumber}`;
    this.#note(`${lsnToString(record.lsn)} ${kind} block id ${id} (${place}): ${what}`);
  }

  #note(difference: string): void {
    this.differenceCount++;
    if (this.differences.length < MAX_DIFFERENCES_KEPT) this.differences.push(difference);
  }

  /** Bits of the visibility map that heap records clear without naming its page. */
  #clearImplied(record: WalRecord): void {
    for (let id = 0; id < record.blockCount; id++) if (record.blocks[id].inUse && record.blocks[id].fork === FORK_VISIBILITY_MAP) return;
    const operation = operationOf(record.rmid, record.info);
    const heap = record.rmid === RMGR.HEAP;
    const flagsAt = heap ? (operation === 0 ? 2 : 7) : operation === 0x50 ? 0 : 7;
    const clears = heap ? operation === 0 || operation === 0x10 || operation === 0x20 || operation === 0x40 || operation === 0x60 : operation >= 0x50 && operation <= 0x60;
    if (!clears || record.mainDataLength <= flagsAt || record.blockCount === 0) return;
    const flags = record.view.getUint8(record.mainDataOffset + flagsAt);
    const bits = operation === 0x60 ? ALL_FROZEN : VISIBILITY_BITS;
    const isUpdate = heap && (operation === 0x20 || operation === 0x40);
    const old = isUpdate && record.blockCount > 1 && record.blocks[1].inUse && record.blocks[1].fork === FORK_MAIN ? record.blocks[1] : record.blocks[0];
    if ((flags & 1) !== 0) this.#clearBits(old, bits);
    if (isUpdate && (flags & 2) !== 0) this.#clearBits(record.blocks[0], bits);
  }

  #clearBits(ref: BlockRef, bits: number): void {
    const page = this.#pages(ref, FORK_VISIBILITY_MAP).get(visibilityMapBlock(ref.blockNumber));
    if (page !== undefined) clearVisibility(page, ref.blockNumber, bits);
    this.#earlyClears.delete(`${ref.spcOid}/${ref.dbOid}/${ref.relNumber} block ${ref.blockNumber}`);
  }

  /** xl_smgr_truncate: 0 u32 blocks left · 4 u32 × 3 relation. */
  #truncate(record: WalRecord): void {
    const at = record.mainDataOffset;
    const left = record.view.getUint32(at, true);
    const relation = [4, 8, 12].map((offset) => record.view.getUint32(at + offset, true)).join("/");
    const main = this.#relations.get(`${relation}/${FORK_MAIN}`);
    for (const block of main?.keys() ?? []) if (block >= left) main?.delete(block);
    const map = this.#relations.get(`${relation}/${FORK_VISIBILITY_MAP}`);
    // A map page of which nothing would be left goes as well (visibilitymap_prepare_truncate).
    const mapBlocksLeft = Math.ceil(left / HEAP_PAGES_PER_MAP_PAGE);
    for (const [block, page] of map ?? []) {
      if (block >= mapBlocksLeft) map?.delete(block);
      else if (block === visibilityMapBlock(left)) {
        for (let heapBlock = left; heapBlock < (block + 1) * HEAP_PAGES_PER_MAP_PAGE; heapBlock++) clearVisibility(page, heapBlock, VISIBILITY_BITS);
      }
    }
  }
}

function describeDifference(ours: Uint8Array, theirs: Uint8Array): string {
  let first = -1;
  let count = 0;
  for (let at = 0; at < PAGE_SIZE; at++) {
    if (ours[at] === theirs[at]) continue;
    if (first < 0) first = at;
    count++;
  }
  const hex = (page: Uint8Array): string => Buffer.from(page.subarray(first, first + 16)).toString("hex");
  return `${count} bytes differ, the first at ${first}: ours ${hex(ours)}, theirs ${hex(theirs)}`;
}
