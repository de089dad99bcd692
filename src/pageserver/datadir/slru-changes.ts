/**
 * The part of a modification that changes SLRU segments. SLRUs live on shard 0; elsewhere every change is dropped.
 */
import { applyNeonRecord } from "../../interpret/apply-neon-record.ts";
import type { NeonRecord } from "../../interpret/value.ts";
import type { Key } from "../../keyspace/key.ts";
import { slruBlockKey, slruDirectoryKey, slruSegmentSizeKey } from "../../keyspace/mapping.ts";
import { PAGE_SIZE, SLRU_KINDS, SLRU_SEGMENT_BLOCKS, type SlruKind } from "../../keyspace/relation.ts";
import type { ModificationWriter } from "./modification-writer.ts";
import { decodeBlockCount, encodeBlockCount, encodeSegmentDirectory } from "./directory-codec.ts";
import { ZERO_PAGE } from "./relation-changes.ts";
import { loadSegmentDirectory } from "./segment-directory.ts";

export interface SlruPage {
  readonly kind: SlruKind;
  readonly segment: number;
  /** Within the segment. */
  readonly block: number;
}

/** The place of a page by its number in the whole SLRU. */
export function slruPage(kind: SlruKind, pageNumber: number): SlruPage {
  return { kind, segment: Math.floor(pageNumber / SLRU_SEGMENT_BLOCKS), block: pageNumber % SLRU_SEGMENT_BLOCKS };
}

export class SlruChanges {
  readonly #to: ModificationWriter;
  readonly #segments = new Map<SlruKind, Set<number>>();
  /** Sizes by `kind/segment`: at most as many as there are segments. */
  readonly #sizes = new Map<string, number>();
  #drops = 0;

  constructor(to: ModificationWriter) {
    this.#to = to;
  }

  get #here(): boolean {
    return this.#to.datadir.shard.number === 0;
  }

  /** The directories of an empty timeline. */
  initialize(): void {
    if (!this.#here) return;
    for (const kind of SLRU_KINDS) {
      this.#segments.set(kind, new Set());
      this.#to.putImage(slruDirectoryKey(kind), encodeSegmentDirectory(new Set()));
    }
  }

  async #load(kind: SlruKind): Promise<Set<number>> {
    let segments = this.#segments.get(kind);
    if (segments === undefined) {
      segments = (await loadSegmentDirectory((key) => this.#to.get(key), kind)) ?? new Set();
      this.#segments.set(kind, segments);
    }
    return segments;
  }

  async #size(kind: SlruKind, segment: number): Promise<number> {
    const id = `${kind}/${segment}`;
    const cached = this.#sizes.get(id);
    if (cached !== undefined) return cached;
    if (!(await this.#load(kind)).has(segment)) return 0;
    const blocks = decodeBlockCount(await this.#to.get(slruSegmentSizeKey(kind, segment)));
    this.#sizes.set(id, blocks);
    return blocks;
  }

  async segments(kind: SlruKind): Promise<number[]> {
    if (!this.#here) return [];
    return [...(await this.#load(kind))].sort((a, b) => a - b);
  }

  /** Adds the segment if missing and makes it at least `blocks` long; blocks left out in between become zero pages. */
  async #ensure(kind: SlruKind, segment: number, block: number): Promise<void> {
    const segments = await this.#load(kind);
    const old = await this.#size(kind, segment);
    if (!segments.has(segment)) {
      segments.add(segment);
      this.#to.putImage(slruDirectoryKey(kind), encodeSegmentDirectory(segments));
      this.#to.datadir.noteDirectory(kind, segments.size);
    }
    if (block < old) return;
    for (let gap = old; gap < block; gap++) this.#to.putImage(slruBlockKey(kind, segment, gap), ZERO_PAGE);
    this.#sizes.set(`${kind}/${segment}`, block + 1);
    this.#to.putImage(slruSegmentSizeKey(kind, segment), encodeBlockCount(block + 1));
  }

  async putPage(page: SlruPage, image: Uint8Array): Promise<void> {
    if (!this.#here) return;
    const { kind, segment, block } = page;
    await this.#ensure(kind, segment, block);
    this.#to.putImage(slruBlockKey(kind, segment, block), image);
  }

  async pageExists(page: SlruPage): Promise<boolean> {
    return this.#here && page.block < (await this.#size(page.kind, page.segment));
  }

  /** Records on one page, in order; a page that does not exist yet starts as zeros. */
  async putRecords(page: SlruPage, records: readonly NeonRecord[]): Promise<void> {
    if (!this.#here || records.length === 0) return;
    const { kind, segment, block } = page;
    const key = slruBlockKey(kind, segment, block);
    if (block < (await this.#size(kind, segment))) {
      records.forEach((record, index) => {
        const steps = records.length - 1 - index;
        if (steps === 0) this.#to.put(key, { kind: "neon", record });
        else this.#to.putBefore(key, { kind: "neon", record }, steps);
      });
      return;
    }
    let image: Uint8Array = new Uint8Array(PAGE_SIZE);
    for (const record of records) image = applyNeonRecord(key, record, image, this.#to.lsn);
    await this.putPage(page, image);
  }

  /** Whether the page exists, as far as that is known without a look at storage; true where SLRUs are not kept. */
  hasPageNow(kind: SlruKind, pageNumber: number): boolean {
    if (!this.#here) return true;
    const blocks = this.#sizes.get(`${kind}/${Math.floor(pageNumber / SLRU_SEGMENT_BLOCKS)}`);
    return blocks !== undefined && pageNumber % SLRU_SEGMENT_BLOCKS < blocks;
  }

  /**
   * The key of a page that `hasPageNow`; null where SLRUs are not kept. The page is there until
   * `drops` changes.
   */
  keyOfPageNow(kind: SlruKind, pageNumber: number): Key | null {
    if (!this.#here) return null;
    const { segment, block } = slruPage(kind, pageNumber);
    return slruBlockKey(kind, segment, block);
  }

  /** Rises when a segment goes. */
  get drops(): number {
    return this.#drops;
  }

  async drop(kind: SlruKind, segment: number): Promise<void> {
    if (!this.#here) return;
    const segments = await this.#load(kind);
    if (!segments.delete(segment)) return;
    this.#drops++;
    this.#sizes.delete(`${kind}/${segment}`);
    this.#to.datadir.noteDirectory(kind, segments.size);
    this.#to.putImage(slruDirectoryKey(kind), encodeSegmentDirectory(segments));
  }
}
