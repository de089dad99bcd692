/**
 * What pages must be, from the images PostgreSQL logs: the content of a page at the end LSN of the record that carries its
 * image, and from there on until the next record that changes it. Kept as hashes of masked pages, so that an hour's worth fits.
 *
 * A version without an image (some records of vacuum have none, and heap records clear bits of the visibility map without
 * naming its page) is "unknown": nothing is compared until the next image.
 */
import { heapBlockToVmBlock } from "../../../src/interpret/apply-neon-record.ts";
import { MAIN_FORK, PAGE_SIZE, type RelTag, relTagToString, VM_FORK } from "../../../src/keyspace/relation.ts";
import type { Lsn } from "../../../src/kit/lsn.ts";
import type { Random } from "../../../src/platform/random.ts";
import type { WalEffect } from "../../../src/postgres/effects/effect.ts";
import type { RelationRef } from "../../../src/postgres/effects/reading.ts";
import { restoreImage } from "../../../src/postgres/page/restore-image.ts";
import { maskPage } from "../../../src/postgres/redo/masking/masking.ts";
import type { WalRecord } from "../../../src/postgres/wal/record.ts";

const UNKNOWN = -1;

/** One page's versions, in LSN order, in columns. */
export class PageHistory {
  readonly rel: RelTag;
  readonly block: number;
  readonly name: string;
  readonly relation: string;
  readonly lsns: Lsn[] = [];
  /** Manager whose mask applies, or UNKNOWN. */
  readonly managers: number[] = [];
  /** Of the masked page; visibility maps are kept whole instead, without trailing zeros. */
  readonly hashes: number[] = [];
  readonly maps: Uint8Array[] | null;

  constructor(rel: RelTag, block: number) {
    this.rel = rel;
    this.block = block;
    this.name = pageName(rel, block);
    this.relation = relationName(rel);
    this.maps = rel.fork === VM_FORK ? [] : null;
  }

  push(version: { readonly lsn: Lsn; readonly manager: number; readonly hash: number; readonly map: Uint8Array }): void {
    this.lsns.push(version.lsn);
    this.managers.push(version.manager);
    this.hashes.push(version.hash);
    this.maps?.push(version.map);
  }

  /** Newest version at or below `lsn`; -1 without one. */
  at(lsn: Lsn): number {
    return newestAtOrBelow(this.lsns, lsn);
  }
}

/** A page to be read at an LSN, and what it must be. */
export interface Question {
  readonly page: PageHistory;
  readonly version: number;
  readonly lsn: Lsn;
}

export class Truth {
  /** The history this one branched off, and where. */
  readonly #parent: { readonly truth: Truth; readonly lsn: Lsn } | null;
  readonly #pages = new Map<string, PageHistory>();
  readonly #list: PageHistory[] = [];
  /** Ends of records, in order. */
  readonly recordEnds: Lsn[] = [];
  /** Known up to here: above it pages may be other than said. */
  toldLsn: Lsn = 0;
  /** LSNs at which a relation was cut or dropped: its pages are not what their last image said. */
  readonly #barriers = new Map<string, Lsn[]>();
  readonly #scratch = new Uint8Array(PAGE_SIZE);
  images = 0;

  constructor(parent: { readonly truth: Truth; readonly lsn: Lsn } | null = null) {
    this.#parent = parent;
    this.toldLsn = parent?.lsn ?? 0;
  }

  /** Records come in order; those that come again after a restart are known already. */
  observe(record: WalRecord, effect: WalEffect | null): void {
    if (record.endLsn <= this.toldLsn) return;
    this.toldLsn = record.endLsn;
    this.recordEnds.push(record.endLsn);
    for (let id = 0; id < record.blockCount; id++) {
      const ref = record.blocks[id];
      if (!ref.inUse) continue;
      const page = this.#page(ref, ref.blockNumber);
      if (!ref.hasImage) {
        page.push({ lsn: record.endLsn, manager: UNKNOWN, hash: 0, map: EMPTY });
        continue;
      }
      restoreImage(record, ref, this.#scratch);
      const { hash, map } = digest(this.#scratch, record.rmid, page);
      page.push({ lsn: record.endLsn, manager: record.rmid, hash, map });
      this.images++;
    }
    if (effect !== null) this.#observeEffect(effect, record.endLsn);
  }

  #observeEffect(effect: WalEffect, lsn: Lsn): void {
    if (effect.kind === "xact-commit" || effect.kind === "xact-abort") {
      for (const relation of effect.droppedRelations) this.#addBarrier(relation, lsn);
    } else if (effect.kind === "smgr-truncate" || effect.kind === "smgr-create") {
      this.#addBarrier(effect.relation, lsn);
    } else if (effect.kind === "clear-visibility-map") {
      for (const heapBlock of [effect.newHeapBlock, effect.oldHeapBlock]) {
        if (heapBlock === null) continue;
        const page = this.#page({ ...effect.relation, fork: VM_FORK }, heapBlockToVmBlock(heapBlock));
        if (page.lsns.at(-1) !== lsn) page.push({ lsn, manager: UNKNOWN, hash: 0, map: EMPTY });
      }
    }
  }

  #addBarrier(relation: RelationRef, lsn: Lsn): void {
    const name = relationName({ ...relation, fork: MAIN_FORK });
    const lsns = this.#barriers.get(name);
    if (lsns === undefined) this.#barriers.set(name, [lsn]);
    else lsns.push(lsn);
  }

  #page(ref: { readonly spcOid: number; readonly dbOid: number; readonly relNumber: number; readonly fork: number }, block: number): PageHistory {
    const name = pageName(ref, block);
    let page = this.#pages.get(name);
    if (page === undefined) {
      page = new PageHistory({ spcOid: ref.spcOid, dbOid: ref.dbOid, relNumber: ref.relNumber, fork: ref.fork }, block);
      this.#pages.set(name, page);
      this.#list.push(page);
    }
    return page;
  }

  /** Up to `count` different pages whose content at `lsn` is known: scattered, or neighbours in the order they appeared. */
  draw(random: Random, lsn: Lsn, count: number): Question[] {
    const list = this.#listToDraw(random);
    const wanted = Math.min(count, list.length);
    const start = list.length === 0 ? 0 : random.below(list.length);
    const step = random.below(2) === 0 ? 1 : Math.max(1, Math.floor(list.length / Math.max(1, wanted)));
    const questions: Question[] = [];
    for (let i = 0; i < wanted; i++) {
      const known = this.#knownAt(list[(start + i * step) % list.length], lsn);
      if (known !== null) questions.push({ ...known, lsn });
    }
    return questions;
  }

  /** Our pages, or those of the history we branched off. */
  #listToDraw(random: Random): readonly PageHistory[] {
    if (this.#parent !== null && (this.#list.length === 0 || random.below(3) === 0)) return this.#parent.truth.#listToDraw(random);
    return this.#list;
  }

  /** What `page`, one of ours or of a history below, must be at `lsn`; null when that is not known. */
  #knownAt(page: PageHistory, lsn: Lsn): { readonly page: PageHistory; readonly version: number } | null {
    const own = this.#pages.get(page.name);
    const version = own === undefined ? -1 : own.at(lsn);
    if (own !== undefined && version >= 0) {
      // Cut or dropped since: what follows is not what the last image said.
      const gone = own.managers[version] === UNKNOWN || this.#barrierBetween(page, own.lsns[version], lsn);
      return gone ? null : { page: own, version };
    }
    if (this.#parent === null || this.#barrierBetween(page, this.#parent.lsn, lsn)) return null;
    return this.#parent.truth.#knownAt(page, Math.min(lsn, this.#parent.lsn));
  }

  /** A known version of any page, at exactly the record that made it, which lies in [low, high]. */
  pickRecord(random: Random, low: Lsn, high: Lsn): Question | null {
    if (this.#list.length === 0) return null;
    const page = this.#list[random.below(this.#list.length)];
    const version = page.at(low + random.below(high - low + 1));
    if (version < 0 || page.lsns[version] < low || page.managers[version] === UNKNOWN) return null;
    return { page, version, lsn: page.lsns[version] };
  }

  #barrierBetween(page: PageHistory, after: Lsn, upTo: Lsn): boolean {
    const lsns = this.#barriers.get(page.relation);
    if (lsns === undefined) return false;
    const at = newestAtOrBelow(lsns, upTo);
    return at >= 0 && lsns[at] > after;
  }
}

const EMPTY = new Uint8Array(0);

function pageName(rel: { readonly spcOid: number; readonly dbOid: number; readonly relNumber: number; readonly fork: number }, block: number): string {
  return `${rel.spcOid}/${rel.dbOid}/${rel.relNumber}/${rel.fork}/${block}`;
}

function relationName(rel: RelTag): string {
  return `${rel.spcOid}/${rel.dbOid}/${rel.relNumber}`;
}

function newestAtOrBelow(lsns: readonly Lsn[], lsn: Lsn): number {
  let low = 0;
  let high = lsns.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (lsns[middle] <= lsn) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Changes `bytes`. */
function digest(bytes: Uint8Array, manager: number, page: PageHistory): { hash: number; map: Uint8Array } {
  maskPage(bytes, manager, { fork: page.rel.fork, blockNumber: page.block });
  if (page.maps === null) return { hash: Number(Bun.hash.wyhash(bytes) & 0x1f_ffff_ffff_ffffn), map: EMPTY };
  let end = PAGE_SIZE;
  while (end > 24 && bytes[end - 1] === 0) end--;
  return { hash: 0, map: bytes.slice(0, end) };
}

/**
 * Whether `bytes`, read for `question`, is what PostgreSQL had. A visibility map may have bits that the image lacks: a
 * backend clears them before it logs the record that says so, and another's image may come between.
 */
export function isRight(question: Question, bytes: Uint8Array): boolean {
  const { page, version } = question;
  const found = digest(bytes.slice(), page.managers[version], page);
  if (page.maps === null) return found.hash === page.hashes[version];
  const expected = page.maps[version];
  for (let at = 24; at < expected.length; at++) if ((expected[at] & ~(found.map[at] ?? 0)) !== 0) return false;
  return true;
}

export function describeQuestion({ page, version, lsn }: Question): string {
  return `${relTagToString(page.rel)} block ${page.block} at ${lsn.toString(16)} (image of manager ${page.managers[version]} at ${page.lsns[version].toString(16)})`;
}
