/** Names of relations and SLRUs, and the file paths PostgreSQL gives them (PostgreSQL common/relpath.c). */

export const PAGE_SIZE = 8192;
/** Blocks in one relation segment file: RELSEG_SIZE of a default build, 1 GiB. */
export const RELATION_SEGMENT_BLOCKS = 131072;
/** SLRU_PAGES_PER_SEGMENT. */
export const SLRU_SEGMENT_BLOCKS = 32;

export const MAIN_FORK = 0;
export const FSM_FORK = 1;
export const VM_FORK = 2;
export const INIT_FORK = 3;
const FORK_SUFFIXES = ["", "_fsm", "_vm", "_init"];

export const DEFAULT_TABLESPACE_OID = 1663;
export const GLOBAL_TABLESPACE_OID = 1664;

export interface RelTag {
  readonly spcOid: number;
  readonly dbOid: number;
  readonly relNumber: number;
  /** 0 main, 1 fsm, 2 vm, 3 init */
  readonly fork: number;
}

export type SlruKind = "clog" | "multixact-members" | "multixact-offsets" | "commit-ts";

/** In the order of their numbers in keys and page requests. */
export const SLRU_KINDS: readonly SlruKind[] = ["clog", "multixact-members", "multixact-offsets", "commit-ts"];

const SLRU_DIRECTORIES: Readonly<Record<SlruKind, string>> = {
  clog: "pg_xact",
  "multixact-members": "pg_multixact/members",
  "multixact-offsets": "pg_multixact/offsets",
  "commit-ts": "pg_commit_ts",
};

export function slruDirectory(kind: SlruKind): string {
  return SLRU_DIRECTORIES[kind];
}

/** Four hex digits at least, as SlruFileName writes them. */
export function slruSegmentName(segment: number): string {
  return segment.toString(16).toUpperCase().padStart(4, "0");
}

export function relTagToString(rel: RelTag): string {
  return `${rel.spcOid}/${rel.dbOid}/${rel.relNumber}${FORK_SUFFIXES[rel.fork] ?? `_fork${rel.fork}`}`;
}

/** A map key for a relation fork: unique, cheap to make. */
export function relTagId(rel: RelTag): string {
  return `${rel.spcOid}/${rel.dbOid}/${rel.relNumber}/${rel.fork}`;
}

/** The directory of a database below the data directory. @param versionDirectory e.g. `PG_17_202406281`, for other tablespaces */
export function databaseDirectory(spcOid: number, dbOid: number, versionDirectory: string): string {
  if (spcOid === GLOBAL_TABLESPACE_OID) return "global";
  if (spcOid === DEFAULT_TABLESPACE_OID) return `base/${dbOid}`;
  return `pg_tblspc/${spcOid}/${versionDirectory}/${dbOid}`;
}

/** `1259_vm.2`: the file name of one segment of a relation fork. */
export function relationFileName(relNumber: number, fork: number, segment: number): string {
  return `${relNumber}${FORK_SUFFIXES[fork] ?? ""}${segment === 0 ? "" : `.${segment}`}`;
}

/** The reverse of `relationFileName`; null for anything else (`t3_16384` of temporary relations among them). */
export function parseRelationFileName(name: string): { relNumber: number; fork: number; segment: number } | null {
  const match = /^(\d{1,10})(_fsm|_vm|_init)?(?:\.(\d{1,6}))?$/.exec(name);
  if (match === null) return null;
  const relNumber = Number(match[1]);
  if (relNumber === 0 || relNumber > 0xffffffff) return null;
  return { relNumber, fork: FORK_SUFFIXES.indexOf(match[2] ?? ""), segment: Number(match[3] ?? 0) };
}
