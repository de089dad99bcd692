/**
 * Numbers of the WAL record format that are the same in PostgreSQL 14 to 18.
 *
 * Source: PostgreSQL access/xlogrecord.h, access/rmgrlist.h, access/rmgr.h, catalog/pg_control.h.
 */

/** SizeOfXLogRecord. */
export const RECORD_HEADER_SIZE = 24;
export const WAL_PAGE_SIZE = 8192;
/** BLCKSZ: size of a relation page. */
export const PAGE_SIZE = 8192;
/** XLogRecordMaxSize. */
export const RECORD_SIZE_MAX = 1020 * 1024 * 1024;

/** Resource managers; custom ones are 128 to 255 (from PostgreSQL 15). */
export const RMGR = {
  XLOG: 0,
  XACT: 1,
  SMGR: 2,
  CLOG: 3,
  DBASE: 4,
  TBLSPC: 5,
  MULTIXACT: 6,
  RELMAP: 7,
  STANDBY: 8,
  HEAP2: 9,
  HEAP: 10,
  BTREE: 11,
  HASH: 12,
  GIN: 13,
  GIST: 14,
  SEQ: 15,
  SPGIST: 16,
  BRIN: 17,
  COMMIT_TS: 18,
  REPLORIGIN: 19,
  GENERIC: 20,
  LOGICALMSG: 21,
  /** Custom manager under which the peer's patched PostgreSQL 16 and 17 log heap changes with their command id. */
  NEON: 134,
} as const;

export const RMGR_MAX_BUILTIN = 21;
export const RMGR_MIN_CUSTOM = 128;

/** xl_info: the low half belongs to the WAL machinery, the high half to the manager. */
export const XLR_INFO_MASK = 0x0f;
export const XLR_RMGR_INFO_MASK = 0xf0;
export const XLR_SPECIAL_REL_UPDATE = 0x01;
export const XLR_CHECK_CONSISTENCY = 0x02;

export const XLR_MAX_BLOCK_ID = 32;
export const XLR_BLOCK_ID_DATA_SHORT = 255;
export const XLR_BLOCK_ID_DATA_LONG = 254;
export const XLR_BLOCK_ID_ORIGIN = 253;
export const XLR_BLOCK_ID_TOPLEVEL_XID = 252;

export const BKPBLOCK_FORK_MASK = 0x0f;
export const BKPBLOCK_HAS_IMAGE = 0x10;
export const BKPBLOCK_HAS_DATA = 0x20;
export const BKPBLOCK_WILL_INIT = 0x40;
export const BKPBLOCK_SAME_REL = 0x80;

/** bimg_info; APPLY and the compression bits moved in 15, when lz4 and zstd came. */
export const BKPIMAGE_HAS_HOLE = 0x01;
export const BKPIMAGE_14_IS_COMPRESSED = 0x02;
export const BKPIMAGE_14_APPLY = 0x04;
export const BKPIMAGE_15_APPLY = 0x02;
export const BKPIMAGE_15_COMPRESS_PGLZ = 0x04;
export const BKPIMAGE_15_COMPRESS_LZ4 = 0x08;
export const BKPIMAGE_15_COMPRESS_ZSTD = 0x10;

export const FORK_MAIN = 0;
export const FORK_FSM = 1;
export const FORK_VISIBILITY_MAP = 2;
export const FORK_INIT = 3;

/** info bits of the XLOG manager that the WAL machinery itself must know. */
export const XLOG_CHECKPOINT_SHUTDOWN = 0x00;
export const XLOG_SWITCH = 0x40;
