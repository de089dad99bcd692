/**
 * SLRU files: pages of 8192 bytes, 32 to a file, the file named by its number in hex, at least four digits.
 *
 * Source: PostgreSQL access/slru.h, access/transam/slru.c (SlruFileName).
 */
export const SLRU_PAGE_SIZE = 8192;
export const SLRU_PAGES_PER_SEGMENT = 32;
export const SLRU_SEGMENT_SIZE = SLRU_PAGE_SIZE * SLRU_PAGES_PER_SEGMENT;

export const SLRU_DIRECTORIES = {
  clog: "pg_xact",
  commitTs: "pg_commit_ts",
  multiXactOffsets: "pg_multixact/offsets",
  multiXactMembers: "pg_multixact/members",
} as const;

export interface SlruPlace {
  readonly segment: number;
  /** Page within the segment, 0 to 31. */
  readonly block: number;
}

export function slruPlace(page: number): SlruPlace {
  return { segment: Math.floor(page / SLRU_PAGES_PER_SEGMENT), block: page % SLRU_PAGES_PER_SEGMENT };
}

export function slruSegmentName(segment: number): string {
  return segment.toString(16).toUpperCase().padStart(4, "0");
}

/** Null for anything that is not a segment's name. */
export function parseSlruSegmentName(name: string): number | null {
  return /^[0-9A-F]{4,6}$/.test(name) ? Number.parseInt(name, 16) : null;
}

/**
 * Whether page `a` is older than `b`. Pages count something that wraps at 2^32 (transaction or multixact ids, `perPage` to a
 * page), so this is modular, for ids not more than 2^31 apart. Source: access/transam/clog.c (CLOGPagePrecedes).
 */
export function slruPagePrecedes(a: number, b: number, perPage: number): boolean {
  const distance = (a - b) * perPage;
  return (distance | 0) < 0 && ((distance - perPage + 1) | 0) < 0;
}
