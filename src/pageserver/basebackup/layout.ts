/** What a data directory holds besides databases: directories, and small files that a server wants to find. */
import { ByteReader, ByteWriter, utf8 } from "../../kit/bytes.ts";
import { crc32c } from "../../kit/crc32c.ts";
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { type ControlFile, encodeControlFile } from "../../postgres/control-file/control-file.ts";
import type { CheckPoint } from "../../postgres/control-file/checkpoint.ts";
import type { PgMajor } from "../../postgres/versions/major.ts";
import { WAL_PAGE_SIZE } from "../../postgres/wal/constants.ts";
import { encodePageHeader, LONG_HEADER_SIZE, pageHeaderSize, skipPageHeader, XLP_FIRST_IS_CONTRECORD } from "../../postgres/wal/page-header.ts";

const WAL_TIMELINE = 1;
/** REPLICATION_STATE_MAGIC, replication/logical/origin.c. */
const REPLICATION_STATE_MAGIC = 0x1257dade;
const REPLICATION_STATE_BYTES = 16;
/** Offset of restart_lsn in ReplicationSlotOnDisk (replication/slot.c). */
const SLOT_RESTART_LSN = 96;

const DIRECTORIES = [
  "global", "base", "pg_wal", "pg_wal/archive_status", "pg_commit_ts", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_subtrans",
  "pg_twophase", "pg_multixact", "pg_multixact/members", "pg_multixact/offsets", "pg_replslot", "pg_tblspc", "pg_stat", "pg_stat_tmp", "pg_xact",
  "pg_logical", "pg_logical/snapshots", "pg_logical/mappings",
];

/** Those that initdb makes (bin/initdb/initdb.c, subdirs). */
export function dataDirectories(version: PgMajor): readonly string[] {
  return version >= 17 ? [...DIRECTORIES, "pg_wal/summaries"] : DIRECTORIES;
}

const HBA = `# Who may connect is decided by whoever starts this server; until then: this machine.
local all all trust
host all all 127.0.0.1/32 trust
host all all ::1/128 trust
local replication all trust
host replication all 127.0.0.1/32 trust
host replication all ::1/128 trust
`;

export const CONFIGURATION_FILES: readonly (readonly [string, Uint8Array])[] = [
  ["pg_hba.conf", utf8(HBA)],
  ["pg_ident.conf", new Uint8Array(0)],
  ["postgresql.conf", new Uint8Array(0)],
  ["postgresql.auto.conf", new Uint8Array(0)],
];

/** PG_VERSION: the newline came with 16 in what the peer writes; PostgreSQL reads both. */
export function versionFile(version: PgMajor): Uint8Array {
  return utf8(version <= 15 ? `${version}` : `${version}\n`);
}

/** PG_17_202406281: where a tablespace keeps its databases (TABLESPACE_VERSION_DIRECTORY). */
export function tablespaceVersionDirectory(control: ControlFile): string {
  return `PG_${control.version}_${control.catalogVersion}`;
}

/**
 * pg_control of a server that was shut down at `lsn`.
 * @param at.forPeer as a patched server wants it: no checkpoint record, redo behind a page header; else redo is `lsn` itself
 */
export function shutDownControlFile(control: ControlFile, checkpoint: CheckPoint, at: { readonly lsn: Lsn; readonly forPeer: boolean }): Uint8Array {
  const redo = at.forPeer ? skipPageHeader(at.lsn, control.segmentSize) : at.lsn;
  return encodeControlFile({
    ...control,
    state: "shut-down",
    checkpointLsn: at.forPeer ? 0 : redo,
    checkpoint: { ...checkpoint, redo },
    minRecoveryPoint: 0,
    minRecoveryPointTimelineId: 0,
    backupStartPoint: 0,
    backupEndPoint: 0,
    backupEndRequired: false,
  });
}

/** neon.signal: where the record before the backup's LSN starts, for its successor's link back. */
export function signalFile(previous: Lsn, isBranchPoint: boolean): Uint8Array {
  if (previous !== 0) return utf8(`PREV LSN: ${lsnToString(previous)}`);
  return utf8(isBranchPoint ? "PREV LSN: none" : "PREV LSN: invalid");
}

/** Bytes of a file, the rest of which is zeros. */
export interface Placed {
  readonly at: number;
  readonly bytes: Uint8Array;
}

/** The segment that holds `lsn`, with no records: its first header, and that of the page of `lsn`. All else is void. By rising place. */
export function headersOnlyWal(lsn: Lsn, control: ControlFile): Placed[] {
  const { version, systemId, segmentSize } = control;
  const segmentLsn = lsn - (lsn % segmentSize);
  const pageLsn = lsn - (lsn % WAL_PAGE_SIZE);
  return [...new Set([segmentLsn, pageLsn])].map((start) => {
    const before = start === pageLsn ? lsn - pageLsn - pageHeaderSize(pageLsn, segmentSize) : 0;
    const header = {
      pageLsn: start,
      info: before > 0 ? XLP_FIRST_IS_CONTRECORD : 0,
      timelineId: WAL_TIMELINE,
      remainingLength: Math.max(before, 0),
      systemId,
    };
    const bytes = new Uint8Array(LONG_HEADER_SIZE);
    encodePageHeader(header, { version, segmentSize }, new DataView(bytes.buffer));
    return { at: start - segmentLsn, bytes };
  });
}

/** pg_logical/replorigin_checkpoint: magic, (u16 id, 6 bytes padding, u64 LSN) each, CRC-32C. */
export function replicationOriginFile(origins: ReadonlyMap<number, Lsn>): Uint8Array {
  const writer = new ByteWriter().u32le(REPLICATION_STATE_MAGIC);
  for (const [id, lsn] of origins) writer.u16le(id).zeros(6).lsnLe(lsn);
  const content = writer.finish().slice();
  return new ByteWriter(content.length + 4).bytes(content).u32le(crc32c(content)).finish();
}

/** A prepared transaction's state file: what the log has of it, and its CRC-32C. */
export function twoPhaseFile(state: Uint8Array): Uint8Array {
  return new ByteWriter(state.length + 4).bytes(state).u32le(crc32c(state)).finish();
}

/** The other way round; a view into `file`. @throws StrataError corrupt `bad-checksum` */
export function twoPhaseStateOf(file: Uint8Array): Uint8Array {
  return withoutChecksum(file, "a prepared transaction's state file");
}

/** What `replicationOriginFile` makes. @throws StrataError corrupt `bad-checksum`, `bad-origin-file` */
export function replicationOriginsOf(file: Uint8Array): Map<number, Lsn> {
  const reader = new ByteReader(withoutChecksum(file, "replorigin_checkpoint"), "replorigin_checkpoint");
  if (reader.remaining % REPLICATION_STATE_BYTES !== 4 || reader.u32le() !== REPLICATION_STATE_MAGIC) throw new StrataError("corrupt", "bad-origin-file", `replorigin_checkpoint of ${file.length} bytes`);
  const origins = new Map<number, Lsn>();
  while (reader.remaining > 0) {
    const id = reader.u16le();
    reader.skip(6);
    origins.set(id, reader.lsnLe());
  }
  return origins;
}

function withoutChecksum(file: Uint8Array, what: string): Uint8Array {
  const content = file.subarray(0, Math.max(0, file.length - 4));
  if (file.length < 4 || crc32c(content) !== new ByteReader(file.subarray(content.length), what).u32le()) throw new StrataError("corrupt", "bad-checksum", `${what} of ${file.length} bytes does not have its checksum`);
  return content;
}

/** Eight hex digits, sixteen from 17 on. */
export function twoPhaseFileName(xid: bigint, version: PgMajor): string {
  return xid.toString(16).toUpperCase().padStart(version >= 17 ? 16 : 8, "0");
}

/** restart_lsn of a replication slot's state file, null when it is too short to have one. */
export function slotRestartLsn(content: Uint8Array): bigint | null {
  if (content.length < SLOT_RESTART_LSN + 8) return null;
  return new DataView(content.buffer, content.byteOffset, content.length).getBigUint64(SLOT_RESTART_LSN, true);
}
