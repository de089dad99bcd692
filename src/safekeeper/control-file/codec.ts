/**
 * The control file `safekeeper.control` of a timeline, the peer's format: little-endian, fixed-width integers, strings
 * and lists led by a u64 length, enum variants as u32 (bincode's fixint form).
 *
 * | offset | field |
 * | --- | --- |
 * | 0 | u32 magic CAFECEEF |
 * | 4 | u32 format version |
 * | 8 | body |
 * | end − 4 | u32 CRC-32C of everything before it |
 *
 * | body, in order | versions |
 * | --- | --- |
 * | string tenant id, string timeline id (hex) | 4– |
 * | configuration: u32 generation, list of members, u8 present + list of new members; member = u64 id, string host, u16 port | 10 |
 * | u64 term, list of (u64 term, u64 LSN) (version 1: u64 term, u64 epoch) | 1– |
 * | u32 PG_VERSION_NUM, u64 system id, [2 × 16 bytes (1, 2) or hex strings (3): tenant, timeline], u32 WAL segment size | 1– |
 * | proposer uuid: 16 bytes (1, 2) or hex string; also holds fields of ours, `own-fields.ts` | 1– |
 * | u64 timeline start LSN, u64 local start LSN | 5– |
 * | u64 commit LSN | 1– |
 * | u64 backup LSN | 4– |
 * | u64 peer horizon LSN (truncate LSN up to 3) | 1– |
 * | u64 WAL start LSN (not used) | 1–3 |
 * | u64 remote consistent LSN | 4– |
 * | list of peers: u64 id, u64 backup LSN, u64 term, u64 flush LSN, u64 commit LSN (not used) | 4–9 |
 * | list of partial segments: u32 status, string name, u64 commit LSN, u64 flush LSN, u64 term | 8– |
 * | u32 0 = present, or u32 1 + u64 flush LSN = offloaded | 9– |
 * | creation time: u64 seconds, u32 nanoseconds | 10 |
 *
 * Written: version 10, or 9 for a timeline without a configuration, as the peer does so that older releases read it.
 *
 * Source: the peer safekeeper/src/{control_file,control_file_upgrade,state}.rs.
 */
import { ByteReader, ByteWriter, dataViewOf, utf8, utf8ToString } from "../../kit/bytes.ts";
import { crc32c } from "../../kit/crc32c.ts";
import { StrataError } from "../../kit/errors.ts";
import { idFromBytes, parseTenantId, parseTimelineId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { majorFromVersionNum } from "../../postgres/versions/major.ts";
import { checkSegmentSize } from "../../postgres/wal/page-header.ts";
import { checkConfiguration, type Configuration, EMPTY_CONFIGURATION, INVALID_GENERATION, type Member } from "../api/membership.ts";
import { checkTermHistory, type TermHistory } from "../api/term-history.ts";
import { readU64le } from "../api/u64.ts";
import { ownFieldsOf, uuidWithOwnFields } from "./own-fields.ts";
import type { EvictionState, PartialRemoteSegment, TimelinePersistentState, UploadStatus } from "./state.ts";

const MAGIC = 0xcafeceef;
export const FORMAT_VERSION = 10;
const VERSION_WITHOUT_CONFIGURATION = 9;
const HEADER_BYTES = 8;
const CRC_BYTES = 4;
const MAX_STRING_BYTES = 4096;
const UPLOAD_STATUSES: readonly UploadStatus[] = ["in-progress", "uploaded", "deleting"];
/** What files of version 6 and older without a PostgreSQL version are taken for. */
const DEFAULT_PG_VERSION = 140005;
/** Stands for "unknown" in files upgraded from before the timeline start was kept. */
const UNKNOWN_START_LSN = 1;

export function encodeControlFile(state: TimelinePersistentState): Uint8Array {
  const version = state.configuration.generation === INVALID_GENERATION ? VERSION_WITHOUT_CONFIGURATION : FORMAT_VERSION;
  const writer = new ByteWriter(512);
  writer.u32le(MAGIC).u32le(version);
  writeString(writer, state.tenantId);
  writeString(writer, state.timelineId);
  if (version >= 10) writeConfiguration(writer, state.configuration);
  writer.u64le(BigInt(state.term));
  writeLength(writer, state.termHistory.length);
  for (const entry of state.termHistory) writer.u64le(BigInt(entry.term)).lsnLe(entry.lsn);
  writer.u32le(state.pgVersion).u64le(state.systemId).u32le(state.walSegmentSizeBytes);
  writeString(writer, uuidWithOwnFields(state));
  writer.lsnLe(state.timelineStartLsn).lsnLe(state.localStartLsn).lsnLe(state.commitLsn);
  writer.lsnLe(state.backupLsn).lsnLe(state.peerHorizonLsn).lsnLe(state.remoteConsistentLsn);
  if (version <= 9) writeLength(writer, 0);
  writePartialBackup(writer, state.partialBackup);
  if (state.evictionState.kind === "present") writer.u32le(0);
  else writer.u32le(1).lsnLe(state.evictionState.flushLsn);
  if (version >= 10) writer.u64le(BigInt(Math.floor(state.createdMs / 1000))).u32le(Math.floor(state.createdMs % 1000) * 1_000_000);
  writer.u32le(crc32c(writer.finish()));
  return writer.finish();
}

function writeLength(writer: ByteWriter, length: number): void {
  writer.u64le(BigInt(length));
}

function writeString(writer: ByteWriter, text: string): void {
  const bytes = utf8(text);
  writeLength(writer, bytes.length);
  writer.bytes(bytes);
}

function writeConfiguration(writer: ByteWriter, configuration: Configuration): void {
  writer.u32le(configuration.generation);
  writeMembers(writer, configuration.members);
  writer.u8(configuration.newMembers === null ? 0 : 1);
  if (configuration.newMembers !== null) writeMembers(writer, configuration.newMembers);
}

function writeMembers(writer: ByteWriter, members: readonly Member[]): void {
  writeLength(writer, members.length);
  for (const member of members) {
    writer.u64le(BigInt(member.nodeId));
    writeString(writer, member.host);
    writer.u16le(member.pgPort);
  }
}

function writePartialBackup(writer: ByteWriter, segments: readonly PartialRemoteSegment[]): void {
  writeLength(writer, segments.length);
  for (const segment of segments) {
    writer.u32le(UPLOAD_STATUSES.indexOf(segment.status));
    writeString(writer, segment.name);
    writer.lsnLe(segment.commitLsn).lsnLe(segment.flushLsn).u64le(BigInt(segment.term));
  }
}

/**
 * Reads a file of any version, upgraded to today's state.
 * @throws StrataError corrupt `bad-control-file`, `truncated`; fix-input `control-file-too-new` when a newer release wrote it
 */
export function decodeControlFile(bytes: Uint8Array): TimelinePersistentState {
  if (bytes.length < HEADER_BYTES + CRC_BYTES) throw bad(`${bytes.length} bytes are too few`);
  const end = bytes.length - CRC_BYTES;
  const view = dataViewOf(bytes);
  const magic = view.getUint32(0, true);
  if (magic !== MAGIC) throw bad(`magic number ${magic.toString(16)}`);
  const expected = view.getUint32(end, true);
  const actual = crc32c(bytes, 0, end);
  if (actual !== expected) throw bad(`checksum ${actual.toString(16)}, the file says ${expected.toString(16)}`);
  const version = view.getUint32(4, true);
  if (version > FORMAT_VERSION) {
    throw new StrataError("fix-input", "control-file-too-new", `control file is of version ${version}: this release reads up to ${FORMAT_VERSION}, start a newer one`);
  }
  if (version === 0) throw bad("version 0");
  const reader = new ByteReader(bytes.subarray(HEADER_BYTES, end), "control file");
  const state = checked(version <= 3 ? readOldBody(reader, version) : readBody(reader, version));
  if (reader.remaining > 0) throw bad(`${reader.remaining} bytes too many`);
  return state;
}

function readBody(reader: ByteReader, version: number): TimelinePersistentState {
  const tenantId = parseTenantId(readString(reader));
  const timelineId = parseTimelineId(readString(reader));
  const configuration = version >= 10 ? readConfiguration(reader) : EMPTY_CONFIGURATION;
  const term = readU64le(reader, "term");
  const termHistory = readTermHistory(reader);
  const pgVersion = reader.u32le();
  const systemId = reader.u64le();
  const walSegmentSizeBytes = reader.u32le();
  const ownFields = ownFieldsOf(readString(reader));
  const timelineStartLsn = version >= 5 ? reader.lsnLe() : 0;
  const localStartLsn = version >= 5 ? reader.lsnLe() : 0;
  const commitLsn = reader.lsnLe();
  const savedBackupLsn = reader.lsnLe();
  const peerHorizonLsn = reader.lsnLe();
  const remoteConsistentLsn = reader.lsnLe();
  if (version <= 9) for (let left = readLength(reader, 40); left > 0; left--) reader.skip(40);
  const noStart = version === 5 && timelineStartLsn === 0;
  return {
    tenantId, timelineId, configuration, term, termHistory, systemId, walSegmentSizeBytes, ...ownFields, commitLsn, peerHorizonLsn,
    pgVersion: version <= 6 && pgVersion === 0 ? DEFAULT_PG_VERSION : pgVersion,
    timelineStartLsn: noStart ? UNKNOWN_START_LSN : timelineStartLsn,
    localStartLsn: noStart ? UNKNOWN_START_LSN : localStartLsn,
    // Version 4 meant something else by it.
    backupLsn: version === 4 ? 0 : savedBackupLsn,
    remoteConsistentLsn: version === 4 ? 0 : remoteConsistentLsn,
    partialBackup: version >= 8 ? readPartialBackup(reader) : [],
    evictionState: version >= 9 ? readEvictionState(reader) : { kind: "present" },
    createdMs: version >= 10 ? readU64le(reader, "creation time") * 1000 + Math.floor(reader.u32le() / 1_000_000) : 0,
  };
}

function readOldBody(reader: ByteReader, version: number): TimelinePersistentState {
  const term = readU64le(reader, "term");
  const termHistory = version === 1 ? [{ term: readU64le(reader, "epoch"), lsn: 0 }] : readTermHistory(reader);
  const pgVersion = reader.u32le();
  const systemId = reader.u64le();
  const id = (): string => (version === 3 ? readString(reader) : idFromBytes(reader.bytes(16)));
  const tenantId = parseTenantId(id());
  const timelineId = parseTimelineId(id());
  const walSegmentSizeBytes = reader.u32le();
  const proposerUuid = id();
  const commitLsn = reader.lsnLe();
  const peerHorizonLsn = reader.lsnLe();
  reader.lsnLe();
  return {
    tenantId, timelineId, configuration: EMPTY_CONFIGURATION, term, termHistory, systemId, walSegmentSizeBytes, proposerUuid, commitLsn, peerHorizonLsn,
    pgVersion: pgVersion === 0 ? DEFAULT_PG_VERSION : pgVersion,
    timelineStartLsn: 0, localStartLsn: 0, backupLsn: 0, remoteConsistentLsn: 0,
    partialBackup: [], evictionState: { kind: "present" }, createdMs: 0, recovering: false, safekeeperCount: 0,
  };
}

/** What the rest of the program relies on without looking again. */
function checked(state: TimelinePersistentState): TimelinePersistentState {
  try {
    checkSegmentSize(state.walSegmentSizeBytes);
    majorFromVersionNum(state.pgVersion);
    checkTermHistory(state.termHistory);
    checkConfiguration(state.configuration);
  } catch (error) {
    throw bad("its content is impossible", error);
  }
  return state;
}

/** @param leastBytes of one element, so that a length can be judged by what is left */
function readLength(reader: ByteReader, leastBytes: number): number {
  const length = readU64le(reader, "length");
  if (length * leastBytes > reader.remaining) throw new StrataError("corrupt", "truncated", `control file: ${length} elements announced, ${reader.remaining} bytes left`);
  return length;
}

function readString(reader: ByteReader): string {
  const length = readLength(reader, 1);
  if (length > MAX_STRING_BYTES) throw bad(`a string of ${length} bytes`);
  return utf8ToString(reader.bytes(length));
}

function readTermHistory(reader: ByteReader): TermHistory {
  return Array.from({ length: readLength(reader, 16) }, () => ({ term: readU64le(reader, "term"), lsn: reader.lsnLe() as Lsn }));
}

function readConfiguration(reader: ByteReader): Configuration {
  const generation = reader.u32le();
  const members = readMembers(reader);
  return { generation, members, newMembers: reader.u8() === 0 ? null : readMembers(reader) };
}

function readMembers(reader: ByteReader): Member[] {
  return Array.from({ length: readLength(reader, 18) }, () => ({ nodeId: readU64le(reader, "node id"), host: readString(reader), pgPort: reader.u16le() }));
}

function readPartialBackup(reader: ByteReader): PartialRemoteSegment[] {
  return Array.from({ length: readLength(reader, 36) }, () => {
    const status = reader.u32le();
    if (status >= UPLOAD_STATUSES.length) throw bad(`upload status ${status}`);
    return { status: UPLOAD_STATUSES[status], name: readString(reader), commitLsn: reader.lsnLe(), flushLsn: reader.lsnLe(), term: readU64le(reader, "term") };
  });
}

function readEvictionState(reader: ByteReader): EvictionState {
  const variant = reader.u32le();
  if (variant > 1) throw bad(`eviction state ${variant}`);
  return variant === 0 ? { kind: "present" } : { kind: "offloaded", flushLsn: reader.lsnLe() };
}

function bad(what: string, cause?: unknown): StrataError {
  return new StrataError("corrupt", "bad-control-file", `control file: ${what}`, { cause });
}
