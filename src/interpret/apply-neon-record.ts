/**
 * Redo of the peer's own records, and ours: changes that PostgreSQL makes to a page by rule, with no block reference in the log.
 *
 * A clog page on which a commit was recorded is 8200 bytes: the page, then the commit's timestamp (i64 big-endian,
 * microseconds since 2000-01-01), which is how an LSN is found for a point in time.
 *
 * Sources: PostgreSQL visibilitymap.c (visibilitymap_clear, visibilitymap_prepare_truncate), clog.c
 * (TransactionIdSetStatusBit), commit_ts.c (TransactionIdSetCommitTs), multixact.c (RecordNewMultiXact); the peer's pageserver walredo apply_neon module.
 */
import { dataViewOf } from "../kit/bytes.ts";
import { StrataError } from "../kit/errors.ts";
import { type Lsn, lsnHigh, lsnLow, lsnToString } from "../kit/lsn.ts";
import { type Key, keyToHex } from "../keyspace/key.ts";
import { isVmBlockKey, keyToSlruBlock } from "../keyspace/mapping.ts";
import { PAGE_SIZE, SLRU_SEGMENT_BLOCKS, type SlruKind } from "../keyspace/relation.ts";
import { commitTsPageOf, setCommitTs } from "../postgres/slru/commit-ts.ts";
import type { NeonRecord } from "./value.ts";

/** Size of a clog page that carries a commit timestamp. */
export const CLOG_PAGE_WITH_TIMESTAMP_SIZE = PAGE_SIZE + 8;
export const CLOG_XACTS_PER_PAGE = PAGE_SIZE * 4;
export const MULTIXACT_OFFSETS_PER_PAGE = PAGE_SIZE / 4;
/** 409 groups of 4 flag bytes and 4 xids. */
export const MULTIXACT_MEMBERS_PER_PAGE = 1636;

const PAGE_HEADER_SIZE = 24;
/** Heap pages whose bits share a byte, and a page, of the visibility map. */
const VM_HEAP_BLOCKS_PER_BYTE = 4;
const VM_HEAP_BLOCKS_PER_PAGE = (PAGE_SIZE - PAGE_HEADER_SIZE) * VM_HEAP_BLOCKS_PER_BYTE;
const MEMBER_GROUP_SIZE = 20;
const MEMBER_GROUPS_PER_PAGE = 409;
const STATUS_COMMITTED = 1;
const STATUS_ABORTED = 2;

/** The visibility-map block that holds the bits of a heap block. */
export function heapBlockToVmBlock(heapBlock: number): number {
  return Math.floor(heapBlock / VM_HEAP_BLOCKS_PER_PAGE);
}

/**
 * Where the map ends when the heap is cut to `heapBlocks`: the map block that keeps bits of the last heap blocks,
 * and the byte and bit in it from which bits must be cleared (both 0 when the block goes altogether).
 */
export function vmTruncatePosition(heapBlocks: number): { block: number; byte: number; bit: number } {
  const within = heapBlocks % VM_HEAP_BLOCKS_PER_PAGE;
  return { block: heapBlockToVmBlock(heapBlocks), byte: Math.floor(within / VM_HEAP_BLOCKS_PER_BYTE), bit: (within % VM_HEAP_BLOCKS_PER_BYTE) * 2 };
}

/**
 * Applies `record`, logged at `lsn` (its end), to `page`, which is changed in place. Positional parameters on purpose:
 * called once a record on the read path.
 *
 * Returns the page: `page` itself, except that a commit makes a clog page of 8192 bytes into a new array of 8200.
 * @throws StrataError corrupt `neon-record-mismatch` when the record does not belong to the key or the page
 */
export function applyNeonRecord(key: Key, record: NeonRecord, page: Uint8Array, lsn: Lsn): Uint8Array {
  if (page.length !== PAGE_SIZE && page.length !== CLOG_PAGE_WITH_TIMESTAMP_SIZE) throw mismatch({ key, record, lsn }, `the page has ${page.length} bytes`);
  switch (record.type) {
    case "clear-visibility-map-flags":
      return clearVisibilityMapFlags({ key, record, page, lsn });
    case "truncate-visibility-map":
      return truncateVisibilityMap({ key, record, page, lsn });
    case "clog-set-committed":
      setXactStatus({ key, record, page, lsn }, record.xids, STATUS_COMMITTED);
      return withTimestamp(page, record.timestamp);
    case "clog-set-aborted":
      setXactStatus({ key, record, page, lsn }, record.xids, STATUS_ABORTED);
      return page;
    case "multixact-offset-create":
      checkSlruPage({ key, record, page, lsn }, "multixact-offsets", Math.floor(record.multiXid / MULTIXACT_OFFSETS_PER_PAGE));
      dataViewOf(page).setUint32((record.multiXid % MULTIXACT_OFFSETS_PER_PAGE) * 4, record.memberOffset, true);
      return page;
    case "multixact-members-create":
      setMembers({ key, record, page, lsn });
      return page;
    case "commit-ts-set":
      for (const xid of record.xids) {
        checkSlruPage({ key, record, page, lsn }, "commit-ts", commitTsPageOf(xid));
        setCommitTs(page, xid, record);
      }
      return page;
    case "aux-file":
      throw mismatch({ key, record, lsn }, "version 1 of aux files is not supported");
  }
}

interface Application<R extends NeonRecord = NeonRecord> {
  readonly key: Key;
  readonly record: R;
  readonly page: Uint8Array;
  readonly lsn: Lsn;
}

function clearVisibilityMapFlags(a: Application<Extract<NeonRecord, { type: "clear-visibility-map-flags" }>>): Uint8Array {
  const { key, record, page, lsn } = a;
  if (!isVmBlockKey(key)) throw mismatch({ key, record, lsn }, "not a page of a visibility map");
  for (const heapBlock of [record.newHeapBlock, record.oldHeapBlock]) {
    if (heapBlock === null) continue;
    if (heapBlockToVmBlock(heapBlock) !== key.field6) throw mismatch({ key, record, lsn }, `heap block ${heapBlock} has its bits on another page`);
    const { byte, bit } = vmTruncatePosition(heapBlock);
    page[PAGE_HEADER_SIZE + byte] &= ~(record.flags << bit);
  }
  if (!isNewPage(page)) setPageLsn(page, lsn);
  return page;
}

function truncateVisibilityMap(a: Application<Extract<NeonRecord, { type: "truncate-visibility-map" }>>): Uint8Array {
  const { key, record, page, lsn } = a;
  if (!isVmBlockKey(key)) throw mismatch({ key, record, lsn }, "not a page of a visibility map");
  const at = PAGE_HEADER_SIZE + record.truncByte;
  if (at >= PAGE_SIZE || record.truncOffset > 7) throw mismatch({ key, record, lsn }, "position outside the page");
  page.fill(0, at + 1, PAGE_SIZE);
  page[at] &= (1 << record.truncOffset) - 1;
  return page;
}

function setXactStatus(a: Application, xids: readonly number[], status: number): void {
  for (const xid of xids) {
    checkSlruPage(a, "clog", Math.floor(xid / CLOG_XACTS_PER_PAGE));
    const at = Math.floor((xid % CLOG_XACTS_PER_PAGE) / 4);
    const shift = (xid % 4) * 2;
    a.page[at] = (a.page[at] & ~(3 << shift)) | (status << shift);
  }
}

function withTimestamp(page: Uint8Array, timestamp: bigint): Uint8Array {
  let result = page;
  if (page.length === PAGE_SIZE) {
    result = new Uint8Array(CLOG_PAGE_WITH_TIMESTAMP_SIZE);
    result.set(page);
  }
  dataViewOf(result).setBigInt64(PAGE_SIZE, timestamp);
  return result;
}

function setMembers(a: Application<Extract<NeonRecord, { type: "multixact-members-create" }>>): void {
  const view = dataViewOf(a.page);
  a.record.members.forEach((member, index) => {
    const offset = (a.record.memberOffset + index) >>> 0;
    checkSlruPage(a, "multixact-members", Math.floor(offset / MULTIXACT_MEMBERS_PER_PAGE));
    const flagsAt = (Math.floor(offset / 4) % MEMBER_GROUPS_PER_PAGE) * MEMBER_GROUP_SIZE;
    const slot = offset % 4;
    a.page[flagsAt + slot] = member.status;
    view.setUint32(flagsAt + 4 + slot * 4, member.xid, true);
  });
}

function checkSlruPage(a: Application, kind: SlruKind, slruPage: number): void {
  const place = keyToSlruBlock(a.key);
  const matches = place.kind === kind && place.segment === Math.floor(slruPage / SLRU_SEGMENT_BLOCKS) && place.block === slruPage % SLRU_SEGMENT_BLOCKS;
  if (!matches) throw mismatch(a, `it belongs to page ${slruPage} of ${kind}`);
}

/** pd_upper of 0: PageIsNew. */
function isNewPage(page: Uint8Array): boolean {
  return page[14] === 0 && page[15] === 0;
}

function setPageLsn(page: Uint8Array, lsn: Lsn): void {
  const view = dataViewOf(page);
  view.setUint32(0, lsnHigh(lsn), true);
  view.setUint32(4, lsnLow(lsn), true);
}

function mismatch(at: { readonly key: Key; readonly record: NeonRecord; readonly lsn: Lsn }, reason: string): StrataError {
  const { key, record, lsn } = at;
  return new StrataError("corrupt", "neon-record-mismatch", `${record.type} at ${lsnToString(lsn)} cannot be applied to ${keyToHex(key)}: ${reason}`);
}
