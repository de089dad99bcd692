/**
 * Truncation of relations, and the visibility-map bits that heap records clear without naming the map's page.
 *
 * Sources: PostgreSQL catalog/storage.c (smgr_redo), access/heap/visibilitymap.c (visibilitymap_prepare_truncate,
 * visibilitymap_clear), storage/freespace/freespace.c (fsm_logical_to_physical).
 */
import { heapBlockToVmBlock, vmTruncatePosition } from "../../interpret/apply-neon-record.ts";
import { relBlockKey } from "../../keyspace/mapping.ts";
import { FSM_FORK, MAIN_FORK, type RelTag, VM_FORK } from "../../keyspace/relation.ts";
import { isKeyLocal } from "../../keyspace/shard.ts";
import type { ClearVisibilityMap } from "../../postgres/effects/heap-visibility.ts";
import type { SmgrEffect } from "../../postgres/effects/smgr.ts";
import type { DatadirModification } from "../datadir/datadir-modification.ts";
import { NO_RELATION } from "../datadir/relation-size-cache.ts";
import { ZERO_PAGE } from "../datadir/relation-changes.ts";

/** Slots of the lowest level on one page of the free-space map; the tree has three levels. */
const FSM_SLOTS_PER_PAGE = 4069;

export async function truncateRelation(modification: DatadirModification, effect: Extract<SmgrEffect, { kind: "smgr-truncate" }>): Promise<void> {
  if (effect.main) await modification.relations.truncate({ ...effect.relation, fork: MAIN_FORK }, effect.blocks);
  if (effect.fsm) await truncateFreeSpaceMap(modification, { ...effect.relation, fork: FSM_FORK }, effect.blocks);
  if (effect.visibilityMap) await truncateVisibilityMap(modification, { ...effect.relation, fork: VM_FORK }, effect.blocks);
}

/** The page that describes both what stays and what goes is cleared whole: the map is a hint, and PostgreSQL mends it. */
async function truncateFreeSpaceMap(modification: DatadirModification, rel: RelTag, heapBlocks: number): Promise<void> {
  const page = fsmPage(Math.floor(heapBlocks / FSM_SLOTS_PER_PAGE));
  const keepsPart = heapBlocks % FSM_SLOTS_PER_PAGE !== 0;
  const size = await modification.relations.size(rel);
  if (keepsPart && page < size && isKeyLocal(relBlockKey(rel, page), modification.datadir.shard)) {
    modification.relations.putPage(rel, page, { kind: "image", bytes: ZERO_PAGE });
  }
  await modification.relations.truncate(rel, keepsPart ? page + 1 : page);
}

function fsmPage(logicalPage: number): number {
  let pages = 0;
  let page = logicalPage;
  for (let level = 0; level < 3; level++) {
    pages += page + 1;
    page = Math.floor(page / FSM_SLOTS_PER_PAGE);
  }
  return pages - 1;
}

async function truncateVisibilityMap(modification: DatadirModification, rel: RelTag, heapBlocks: number): Promise<void> {
  const { block, byte, bit } = vmTruncatePosition(heapBlocks);
  const keepsPart = byte !== 0 || bit !== 0;
  const size = await modification.relations.size(rel);
  if (keepsPart && block < size && isKeyLocal(relBlockKey(rel, block), modification.datadir.shard)) {
    modification.relations.putPage(rel, block, { kind: "neon", record: { type: "truncate-visibility-map", truncByte: byte, truncOffset: bit } });
  }
  await modification.relations.truncate(rel, keepsPart ? block + 1 : block);
}

/**
 * PostgreSQL sets the flag in heap records even where the map has no page yet: then there is nothing to clear, and a
 * record without a page below it could never be applied.
 */
export async function clearVisibilityMap(modification: DatadirModification, effect: ClearVisibilityMap): Promise<void> {
  clearVisibilityMapOf(modification, effect, await modification.relations.size({ ...effect.relation, fork: VM_FORK }));
}

/** @param size blocks of the map; NO_RELATION without one */
export function clearVisibilityMapOf(modification: DatadirModification, effect: ClearVisibilityMap, size: number): void {
  const rel: RelTag = { ...effect.relation, fork: VM_FORK };
  const { ingestCounts } = modification.datadir;
  const within = (heapBlock: number | null): number | null => (heapBlock !== null && heapBlockToVmBlock(heapBlock) < size ? heapBlock : null);
  const newHeapBlock = within(effect.newHeapBlock);
  const oldHeapBlock = within(effect.oldHeapBlock);
  if (ingestCounts !== null) {
    if (size === NO_RELATION) ingestCounts.unknownMapRelations++;
    else {
      if (newHeapBlock !== effect.newHeapBlock) ingestCounts.unknownNewPages++;
      if (oldHeapBlock !== effect.oldHeapBlock) ingestCounts.unknownOldPages++;
    }
  }
  const put = (newBlock: number | null, oldBlock: number | null): void => {
    const heapBlock = newBlock ?? oldBlock;
    if (heapBlock === null) return;
    const record = { type: "clear-visibility-map-flags" as const, newHeapBlock: newBlock, oldHeapBlock: oldBlock, flags: effect.flags };
    modification.relations.putPage(rel, heapBlockToVmBlock(heapBlock), { kind: "neon", record });
  };
  const samePage = newHeapBlock !== null && oldHeapBlock !== null && heapBlockToVmBlock(newHeapBlock) === heapBlockToVmBlock(oldHeapBlock);
  if (samePage) return put(newHeapBlock, oldHeapBlock);
  put(newHeapBlock, null);
  put(null, oldHeapBlock);
}
