/** Applies the effects of WAL records to transaction status, commit timestamp and multixact pages, as replay would. */
import type { MultiXactEffect } from "../../src/postgres/effects/multixact.ts";
import type { WalEffect } from "../../src/postgres/effects/effect.ts";
import type { XactFinish } from "../../src/postgres/effects/xact.ts";
import { XACT_ABORTED, XACT_COMMITTED, clogPageOf, setClogStatus } from "../../src/postgres/slru/clog.ts";
import { commitTsPageOf, setCommitTs } from "../../src/postgres/slru/commit-ts.ts";
import {
  multiXactMembersPageOf,
  multiXactOffsetsPageOf,
  nextMemberOffset,
  nextMultiXid,
  setMultiXactMember,
  setMultiXactOffset,
} from "../../src/postgres/slru/multixact.ts";
import { SLRU_PAGE_SIZE } from "../../src/postgres/slru/segments.ts";

export interface SlruPages {
  readonly clog: Map<number, Uint8Array>;
  readonly commitTs: Map<number, Uint8Array>;
  readonly offsets: Map<number, Uint8Array>;
  readonly members: Map<number, Uint8Array>;
}

export class SlruReplay {
  readonly pages: SlruPages;

  constructor(pages: SlruPages) {
    this.pages = pages;
  }

  apply(effect: WalEffect): void {
    if (effect.kind === "clog-zero-page") this.pages.clog.set(effect.page, new Uint8Array(SLRU_PAGE_SIZE));
    else if (effect.kind === "commit-ts-zero-page") this.pages.commitTs.set(effect.page, new Uint8Array(SLRU_PAGE_SIZE));
    else if (effect.kind === "multixact-zero-offsets-page") this.pages.offsets.set(effect.page, new Uint8Array(SLRU_PAGE_SIZE));
    else if (effect.kind === "multixact-zero-members-page") this.pages.members.set(effect.page, new Uint8Array(SLRU_PAGE_SIZE));
    else if (effect.kind === "xact-commit" || effect.kind === "xact-abort") this.#finish(effect);
    else if (effect.kind === "multixact-create") this.#createMultiXact(effect);
  }

  #finish(effect: XactFinish): void {
    if (effect.xid === 0) return;
    const committed = effect.kind === "xact-commit";
    for (const xid of [effect.xid, ...effect.subxids]) {
      setClogStatus(page(this.pages.clog, clogPageOf(xid)), xid, committed ? XACT_COMMITTED : XACT_ABORTED);
      const timestamp = effect.origin?.timestamp || effect.time;
      if (committed) setCommitTs(page(this.pages.commitTs, commitTsPageOf(xid)), xid, { timestamp, originId: effect.origin?.originId ?? 0 });
    }
  }

  #createMultiXact(effect: Extract<MultiXactEffect, { kind: "multixact-create" }>): void {
    const { multiXid, memberOffset, members } = effect;
    const next = nextMultiXid(multiXid);
    setMultiXactOffset(page(this.pages.offsets, multiXactOffsetsPageOf(multiXid)), { multiXid, memberOffset });
    setMultiXactOffset(page(this.pages.offsets, multiXactOffsetsPageOf(next)), { multiXid: next, memberOffset: nextMemberOffset(memberOffset, members.length) });
    members.forEach((member, index) => {
      const offset = (memberOffset + index) >>> 0;
      setMultiXactMember(page(this.pages.members, multiXactMembersPageOf(offset)), offset, member);
    });
  }
}

function page(pages: Map<number, Uint8Array>, number: number): Uint8Array {
  const found = pages.get(number);
  if (found === undefined) throw new Error(`page ${number} was never made`);
  return found;
}
