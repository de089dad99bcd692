/**
 * Every kind of WAL record that changes a page, and the blocks it may refer to: what a run of the redo check has to have
 * seen, or to say why not.
 *
 * Source: PostgreSQL's access/*_xlog.h.
 */
import { RMGR } from "../../../src/postgres/wal/constants.ts";

export interface RecordKind {
  readonly rmid: number;
  readonly manager: string;
  readonly info: number;
  readonly name: string;
  /** Block ids that occur. */
  readonly blocks: readonly number[];
}

type Row = readonly [info: number, name: string, blocks: readonly number[]];

const HEAP2_UNTIL_16: readonly Row[] = [[0x10, "prune", [0]], [0x20, "vacuum", [0]], [0x30, "freeze_page", [0]]];
const HEAP2_FROM_17: readonly Row[] = [[0x10, "prune_on_access", [0]], [0x20, "prune_vacuum_scan", [0]], [0x30, "prune_vacuum_cleanup", [0]]];
const HEAP2: readonly Row[] = [[0x40, "visible", [0, 1]], [0x50, "multi_insert", [0]], [0x60, "lock_updated", [0]]];

const MANAGERS: readonly (readonly [rmid: number, name: string, rows: readonly Row[]])[] = [
  [RMGR.XLOG, "xlog", [[0xa0, "fpi_for_hint", [0]], [0xb0, "fpi", [0]]]],
  [RMGR.HEAP, "heap", [
    [0x00, "insert", [0]], [0x10, "delete", [0]], [0x20, "update", [0, 1]], [0x40, "hot_update", [0]], [0x50, "confirm", [0]],
    [0x60, "lock", [0]], [0x70, "inplace", [0]],
  ]],
  [RMGR.BTREE, "btree", [
    [0x00, "insert_leaf", [0]], [0x10, "insert_upper", [0, 1]], [0x20, "insert_meta", [0, 1, 2]], [0x30, "split_l", [0, 1, 2, 3]],
    [0x40, "split_r", [0, 1, 2, 3]], [0x50, "insert_post", [0]], [0x60, "dedup", [0]], [0x70, "delete", [0]],
    [0x80, "unlink_page", [0, 1, 2, 3]], [0x90, "unlink_page_meta", [0, 2, 4]], [0xa0, "newroot", [0, 1, 2]],
    [0xb0, "mark_page_halfdead", [0, 1]], [0xc0, "vacuum", [0]], [0xe0, "meta_cleanup", [0]],
  ]],
  [RMGR.HASH, "hash", [
    [0x00, "init_meta_page", [0]], [0x10, "init_bitmap_page", [0, 1]], [0x20, "insert", [0, 1]], [0x30, "add_ovfl_page", [0, 1, 2, 3, 4]],
    [0x40, "split_allocate_page", [0, 1, 2]], [0x50, "split_page", [0]], [0x60, "split_complete", [0, 1]],
    [0x70, "move_page_contents", [0, 1, 2]], [0x80, "squeeze_page", [0, 1, 2, 3, 4, 5, 6]], [0x90, "delete", [0, 1]],
    [0xa0, "split_cleanup", [0]], [0xb0, "update_meta_page", [0]], [0xc0, "vacuum_one_page", [0, 1]],
  ]],
  [RMGR.GIN, "gin", [
    [0x10, "create_ptree", [0]], [0x20, "insert", [0, 1]], [0x30, "split", [0, 1, 2, 3]], [0x40, "vacuum_page", [0]],
    [0x50, "delete_page", [0, 1, 2]], [0x60, "update_meta_page", [0, 1]], [0x70, "insert_listpage", [0]],
    [0x80, "delete_listpage", [0, 1]], [0x90, "vacuum_data_leaf_page", [0]],
  ]],
  [RMGR.GIST, "gist", [
    [0x00, "page_update", [0, 1]], [0x10, "delete", [0]], [0x30, "page_split", [0, 1, 2, 3]], [0x60, "page_delete", [0, 1]],
  ]],
  [RMGR.SEQ, "sequence", [[0x00, "log", [0]]]],
  [RMGR.SPGIST, "spgist", [
    [0x10, "add_leaf", [0, 1]], [0x20, "move_leafs", [0, 1, 2]], [0x30, "add_node", [0, 1, 2]], [0x40, "split_tuple", [0, 1]],
    [0x50, "picksplit", [0, 1, 2, 3]], [0x60, "vacuum_leaf", [0]], [0x70, "vacuum_root", [0]], [0x80, "vacuum_redirect", [0]],
  ]],
  [RMGR.BRIN, "brin", [
    [0x00, "create_index", [0]], [0x10, "insert", [0, 1]], [0x20, "update", [0, 1, 2]], [0x30, "samepage_update", [0]],
    [0x40, "revmap_extend", [0, 1]], [0x50, "desummarize", [0, 1]],
  ]],
  [RMGR.GENERIC, "generic", [[0x00, "delta", [0, 1]]]],
];

export function recordKinds(major: number): RecordKind[] {
  const heap2 = [...(major >= 17 ? HEAP2_FROM_17 : HEAP2_UNTIL_16), ...HEAP2];
  const managers: (typeof MANAGERS)[number][] = [...MANAGERS, [RMGR.HEAP2, "heap2", heap2]];
  return managers
    .sort((a, b) => a[0] - b[0])
    .flatMap(([rmid, manager, rows]) => rows.map(([info, name, blocks]) => ({ rmid, manager, info, name, blocks })));
}

/** A manager's operation within its info bits: in heap, heap2 and brin the top bit only says that the page is new. */
export function operationOf(rmid: number, info: number): number {
  return info & (rmid === RMGR.HEAP || rmid === RMGR.HEAP2 || rmid === RMGR.BRIN ? 0x70 : 0xf0);
}

/** Kinds, or blocks of kinds (`manager.name/block`), that no SQL of ours reaches, and why. */
export const UNREACHED: Readonly<Record<string, string>> = {
  "hash.add_ovfl_page/3": "a second bitmap page takes 32,768 overflow pages, 256 MB of index and many GB of images",
  "hash.squeeze_page/4": "vacuum only ever frees the last overflow page of a chain, which has no next one",
};
