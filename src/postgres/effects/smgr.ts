/**
 * Creation and truncation of relation files. Main data: create: 3 × u32 relation, i32 fork; truncate: u32 new length in
 * blocks, 3 × u32 relation, u32 flags. Source: PostgreSQL catalog/storage_xlog.h, catalog/storage.c (smgr_redo).
 */
import { FORK_INIT, XLR_RMGR_INFO_MASK } from "../wal/constants.ts";
import type { WalRecord } from "../wal/record.ts";
import { type RelationRef, badEffect, mainDataReader, readRelation, unknownInfo } from "./reading.ts";

const TRUNCATE_HEAP = 1;
const TRUNCATE_VISIBILITY_MAP = 2;
const TRUNCATE_FSM = 4;

export type SmgrEffect =
  | { readonly kind: "smgr-create"; readonly relation: RelationRef; readonly fork: number }
  | {
      readonly kind: "smgr-truncate";
      readonly relation: RelationRef;
      /** New length of the main fork; the other forks shrink to what describes it. */
      readonly blocks: number;
      readonly main: boolean;
      readonly visibilityMap: boolean;
      readonly fsm: boolean;
    };

/** @throws StrataError corrupt `truncated`, `wal-bad-effect`, `wal-unknown-record` */
export function decodeSmgrRecord(record: WalRecord): SmgrEffect {
  const reader = mainDataReader(record, "storage record");
  switch (record.info & XLR_RMGR_INFO_MASK) {
    case 0x10: {
      const relation = readRelation(reader);
      const fork = reader.i32le();
      if (fork < 0 || fork > FORK_INIT) throw badEffect(record, `unknown fork ${fork}`);
      return { kind: "smgr-create", relation, fork };
    }
    case 0x20: {
      const blocks = reader.u32le();
      const relation = readRelation(reader);
      const flags = reader.u32le();
      return {
        kind: "smgr-truncate",
        relation,
        blocks,
        main: (flags & TRUNCATE_HEAP) !== 0,
        visibilityMap: (flags & TRUNCATE_VISIBILITY_MAP) !== 0,
        fsm: (flags & TRUNCATE_FSM) !== 0,
      };
    }
    default:
      throw unknownInfo(record);
  }
}
