/**
 * Effects on pg_xact and pg_multixact, as PostgreSQL's redo has them.
 *
 * Sources: PostgreSQL access/transam/{clog.c,multixact.c,slru.c}.
 */
import type { NeonRecord } from "../../interpret/value.ts";
import { CLOG_XACTS_PER_PAGE, MULTIXACT_MEMBERS_PER_PAGE, MULTIXACT_OFFSETS_PER_PAGE } from "../../interpret/apply-neon-record.ts";
import { PAGE_SIZE, SLRU_SEGMENT_BLOCKS, type SlruKind } from "../../keyspace/relation.ts";
import type { CheckPoint } from "../../postgres/control-file/checkpoint.ts";
import type { ClogEffect } from "../../postgres/effects/clog.ts";
import type { MultiXactEffect } from "../../postgres/effects/multixact.ts";
import type { XactFinish } from "../../postgres/effects/xact.ts";
import { type SlruChanges, slruPage } from "../datadir/slru-changes.ts";
import type { CheckpointTracker } from "./checkpoint-tracker.ts";

const U32 = 0x1_0000_0000;
const FIRST_NORMAL_XID = 3;
const FIRST_MULTI_XID = 1;
const LAST_MEMBER_SEGMENT = Math.floor(Math.floor((U32 - 1) / MULTIXACT_MEMBERS_PER_PAGE) / SLRU_SEGMENT_BLOCKS);

function precedes(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}

/** Commit or abort of a transaction and its subtransactions: two bits each, and on commits the page's timestamp. */
export async function ingestXactFinish(slrus: SlruChanges, effect: XactFinish): Promise<void> {
  for (const [page, xids] of xidsByPage([effect.xid, ...effect.subxids], CLOG_XACTS_PER_PAGE)) {
    const record: NeonRecord = effect.kind === "xact-commit" ? { type: "clog-set-committed", xids, timestamp: effect.time } : { type: "clog-set-aborted", xids };
    await slrus.putRecords(slruPage("clog", page), [record]);
  }
}

/** Ids of normal transactions by the page they have their entries on. */
export function xidsByPage(xids: readonly number[], xactsPerPage: number): Map<number, number[]> {
  const byPage = new Map<number, number[]>();
  for (const xid of xids) {
    if (xid < FIRST_NORMAL_XID) continue;
    const page = Math.floor(xid / xactsPerPage);
    const onPage = byPage.get(page);
    if (onPage === undefined) byPage.set(page, [xid]);
    else onPage.push(xid);
  }
  return byPage;
}

type Truncation = { readonly cutoffPage: number; readonly precedes: (page1: number, page2: number) => boolean };

/** SimpleLruTruncate: segments all of whose pages precede the cutoff go. */
export async function truncateSlru(slrus: SlruChanges, kind: SlruKind, truncation: Truncation): Promise<void> {
  for (const segment of await slrus.segments(kind)) {
    const firstPage = segment * SLRU_SEGMENT_BLOCKS;
    const lastPage = firstPage + SLRU_SEGMENT_BLOCKS - 1;
    const goes = truncation.precedes(firstPage, truncation.cutoffPage) && truncation.precedes(lastPage, truncation.cutoffPage);
    if (goes) await slrus.drop(kind, segment);
  }
}

function clogPagePrecedes(page1: number, page2: number): boolean {
  const first = page1 * CLOG_XACTS_PER_PAGE + FIRST_NORMAL_XID + 1;
  const second = page2 * CLOG_XACTS_PER_PAGE + FIRST_NORMAL_XID + 1;
  return precedes(first, second) && precedes(first, second + CLOG_XACTS_PER_PAGE - 1);
}

function offsetsPagePrecedes(page1: number, page2: number): boolean {
  const first = page1 * MULTIXACT_OFFSETS_PER_PAGE + FIRST_MULTI_XID + 1;
  const second = page2 * MULTIXACT_OFFSETS_PER_PAGE + FIRST_MULTI_XID + 1;
  return precedes(first, second) && precedes(first, second + MULTIXACT_OFFSETS_PER_PAGE - 1);
}

export async function ingestClogTruncate(slrus: SlruChanges, effect: Extract<ClogEffect, { kind: "clog-truncate" }>, checkpoint: CheckPoint): Promise<void> {
  const latestPage = Math.floor(Number(checkpoint.nextFullXid & 0xffffffffn) / CLOG_XACTS_PER_PAGE);
  // An apparent wraparound: PostgreSQL leaves everything as it is.
  if (clogPagePrecedes(latestPage, effect.page)) return;
  await truncateSlru(slrus, "clog", { cutoffPage: effect.page, precedes: clogPagePrecedes });
}

export async function ingestMultiXactTruncate(slrus: SlruChanges, effect: Extract<MultiXactEffect, { kind: "multixact-truncate" }>): Promise<void> {
  const end = memberSegment(effect.endMember);
  for (let segment = memberSegment(effect.startMember); segment !== end; segment = segment === LAST_MEMBER_SEGMENT ? 0 : segment + 1) {
    await slrus.drop("multixact-members", segment);
  }
  const lastGone = effect.endMulti <= FIRST_MULTI_XID ? U32 - 1 : effect.endMulti - 1;
  await truncateSlru(slrus, "multixact-offsets", { cutoffPage: Math.floor(lastGone / MULTIXACT_OFFSETS_PER_PAGE), precedes: offsetsPagePrecedes });
}

function memberSegment(memberOffset: number): number {
  return Math.floor(Math.floor(memberOffset / MULTIXACT_MEMBERS_PER_PAGE) / SLRU_SEGMENT_BLOCKS);
}

type ZeroPage = Extract<ClogEffect | MultiXactEffect, { kind: "clog-zero-page" | "multixact-zero-offsets-page" | "multixact-zero-members-page" }>;

/**
 * An offsets page that came to be because the last multixact of the page before wrote its successor's offset. The
 * record that zeroes it may come only afterwards, and must not wipe that out (multixact_redo, pre_initialized_offsets_page).
 */
export class PreInitializedPage {
  #page: number | null = null;

  set(page: number): void {
    this.#page = page;
  }

  async zeroPage(slrus: SlruChanges, effect: ZeroPage): Promise<void> {
    if (effect.kind === "multixact-zero-offsets-page" && effect.page === this.#page) {
      this.#page = null;
      return;
    }
    const kind = effect.kind === "clog-zero-page" ? "clog" : effect.kind === "multixact-zero-offsets-page" ? "multixact-offsets" : "multixact-members";
    await slrus.putPage(slruPage(kind, effect.page), new Uint8Array(PAGE_SIZE));
  }
}

/** Where a new multixact's offsets go: its own, and its successor's, which newer minor releases write ahead. */
export async function ingestMultiXactCreate(
  slrus: SlruChanges,
  effect: Extract<MultiXactEffect, { kind: "multixact-create" }>,
  state: { readonly checkpoint: CheckpointTracker; readonly preInitialized: PreInitializedPage },
): Promise<void> {
  const { multiXid, memberOffset, members } = effect;
  const next = Math.max((multiXid + 1) % U32, FIRST_MULTI_XID);
  // Offset 0 means "not set": PostgreSQL skips it.
  const nextOffset = (memberOffset + members.length) % U32 || 1;
  const own: NeonRecord = { type: "multixact-offset-create", multiXid, memberOffset };
  const successor: NeonRecord = { type: "multixact-offset-create", multiXid: next, memberOffset: nextOffset };
  const page = slruPage("multixact-offsets", Math.floor(multiXid / MULTIXACT_OFFSETS_PER_PAGE));
  const nextPageNumber = Math.floor(next / MULTIXACT_OFFSETS_PER_PAGE);
  const nextPage = slruPage("multixact-offsets", nextPageNumber);
  if (nextPage.segment === page.segment && nextPage.block === page.block) {
    await slrus.putRecords(page, [successor, own]);
  } else {
    await slrus.putRecords(page, [own]);
    if (!(await slrus.pageExists(nextPage))) state.preInitialized.set(nextPageNumber);
    await slrus.putRecords(nextPage, [successor]);
  }
  await putMembers(slrus, effect);
  state.checkpoint.seenMultiXact(multiXid, memberOffset, members.length);
  for (const member of members) state.checkpoint.seenXid(member.xid);
}

async function putMembers(slrus: SlruChanges, effect: Extract<MultiXactEffect, { kind: "multixact-create" }>): Promise<void> {
  for (let done = 0; done < effect.members.length; ) {
    const offset = (effect.memberOffset + done) % U32;
    const room = Math.min(MULTIXACT_MEMBERS_PER_PAGE - (offset % MULTIXACT_MEMBERS_PER_PAGE), U32 - offset);
    const members = effect.members.slice(done, done + room);
    const page = slruPage("multixact-members", Math.floor(offset / MULTIXACT_MEMBERS_PER_PAGE));
    await slrus.putRecords(page, [{ type: "multixact-members-create", memberOffset: offset, members }]);
    done += members.length;
  }
}
