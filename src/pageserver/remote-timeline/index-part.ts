/**
 * index_part.json: the truth about a timeline at a generation. JSON; unknown fields are kept, so that a newer minor
 * addition of the peer's survives a rewrite by us.
 *
 * | field | content |
 * | --- | --- |
 * | version | 10; 1 to 15 are read |
 * | layer_metadata | layer name → { file_size, generation?, shard? ("NNCC"), strata_crc? } |
 * | disk_consistent_lsn | "X/X", also in the metadata |
 * | metadata_bytes (or metadata) | the timeline's metadata: an object; in old versions an array of 512 bytes |
 * | lineage, gc_blocking?, last_aux_file_policy?, import_pgdata? | as in the peer |
 * | deleted_at?, archived_at? | ISO date without zone, UTC |
 *
 * The document carries a checksum of ours (checked-json.ts). `strata_crc` is ours, too: the checksum of the layer's first block, 8 hex digits. It says that the layer has checksums at
 * all, so that damage cannot pass for a layer of the peer's. Old metadata arrays hold, big-endian: u32 CRC-32C of the
 * body, u16 size (header and body), u16 format (3 or 4); the body: u64 disk_consistent, option u64 prev_record, option
 * 16-byte ancestor, u64 ancestor LSN, u64 GC cutoff, u64 initdb LSN, and from format 4 u32 pg_version.
 *
 * Source: the peer's remote_timeline_client/index and metadata modules.
 */
import { ByteReader } from "../../kit/bytes.ts";
import { crc32c } from "../../kit/crc32c.ts";
import { StrataError } from "../../kit/errors.ts";
import { idFromBytes, parseTimelineId, type ShardIndex, shardIndexToString, type TimelineId, UNSHARDED } from "../../kit/ids.ts";
import { type Lsn, lsnToString, parseLsn } from "../../kit/lsn.ts";
import { allSteps } from "../../kit/steps.ts";
import type { LayerMetadata } from "../layers/layer.ts";
import { type LayerName, layerNameToString, parseLayerName } from "../layers/layer-name.ts";
import { decodeCheckedJson, encodeCheckedJsonInSteps } from "./checked-json.ts";

export const INDEX_PART_VERSION = 10;
const NEWEST_KNOWN_VERSION = 15;
/** Far beyond any real one: 100,000 layers take 20 MB. */
export const INDEX_PART_MAX_BYTES = 256 * 1024 * 1024;
const LAYERS_PER_STEP = 64;

export interface TimelineMetadata {
  readonly diskConsistentLsn: Lsn;
  /** Known when everything ingested was flushed at the time. */
  readonly prevRecordLsn: Lsn | null;
  readonly ancestor: { readonly timelineId: TimelineId; readonly lsn: Lsn } | null;
  readonly latestGcCutoffLsn: Lsn;
  readonly initdbLsn: Lsn;
  /** Major version number as the peer writes it: 14 to 17. */
  readonly pgVersion: number;
}

export interface IndexLayer {
  readonly name: LayerName;
  readonly metadata: LayerMetadata;
}

export interface IndexPart {
  readonly metadata: TimelineMetadata;
  /** By layer name, bare. */
  readonly layers: ReadonlyMap<string, IndexLayer>;
  readonly deletedAt: string | null;
  readonly archivedAt: string | null;
  /** All other fields, as found. */
  readonly other: Readonly<Record<string, unknown>>;
}

const OWN_FIELDS = new Set(["version", "layer_metadata", "disk_consistent_lsn", "metadata_bytes", "metadata", "deleted_at", "archived_at"]);

/** UTC without a zone, milliseconds. */
export function indexTime(wallMs: number): string {
  return new Date(wallMs).toISOString().replace("Z", "");
}

export function encodeIndexPart(index: IndexPart): Uint8Array {
  return allSteps(encodeIndexPartInSteps(index));
}

/** The same in short steps, however many layers there are. */
export function* encodeIndexPartInSteps(index: IndexPart): Generator<void, Uint8Array> {
  const json: Record<string, unknown> = {
    version: INDEX_PART_VERSION,
    ...(index.deletedAt === null ? {} : { deleted_at: index.deletedAt }),
    ...(index.archivedAt === null ? {} : { archived_at: index.archivedAt }),
    layer_metadata: {},
    disk_consistent_lsn: lsnToString(index.metadata.diskConsistentLsn),
    metadata_bytes: metadataJson(index.metadata),
    lineage: {},
    ...index.other,
  };
  return yield* encodeCheckedJsonInSteps(json, { name: "layer_metadata", entries: layerEntries(index) });
}

function* layerEntries({ layers }: IndexPart): Generator<string, void> {
  for (const [name, { metadata }] of layers) yield `"${name}":${JSON.stringify(layerJson(metadata))}`;
}

function layerJson(metadata: LayerMetadata): Record<string, unknown> {
  return {
    file_size: metadata.sizeBytes,
    ...(metadata.generation === null ? {} : { generation: metadata.generation }),
    ...(metadata.shard.count === 0 ? {} : { shard: shardIndexToString(metadata.shard) }),
    ...(metadata.crc === null ? {} : { strata_crc: metadata.crc.toString(16).padStart(8, "0") }),
  };
}

function metadataJson(metadata: TimelineMetadata): Record<string, unknown> {
  return {
    disk_consistent_lsn: lsnToString(metadata.diskConsistentLsn),
    prev_record_lsn: metadata.prevRecordLsn === null ? null : lsnToString(metadata.prevRecordLsn),
    ancestor_timeline: metadata.ancestor?.timelineId ?? null,
    ancestor_lsn: lsnToString(metadata.ancestor?.lsn ?? 0),
    latest_gc_cutoff_lsn: lsnToString(metadata.latestGcCutoffLsn),
    initdb_lsn: lsnToString(metadata.initdbLsn),
    pg_version: metadata.pgVersion,
  };
}

/** @throws StrataError corrupt `bad-index-part`; fix-input `index-part-too-new` */
export function decodeIndexPart(bytes: Uint8Array): IndexPart {
  return allSteps(decodeIndexPartInSteps(bytes));
}

/** The same in steps, of which only the first, reading the JSON, grows with the document: ten milliseconds for ten thousand layers. */
export function* decodeIndexPartInSteps(bytes: Uint8Array): Generator<void, IndexPart> {
  const json = decodeCheckedJson(bytes, { what: "index_part.json", code: "bad-index-part", required: false });
  yield;
  const version = json.version ?? 0;
  if (typeof version !== "number" || !Number.isInteger(version) || version < 0) throw bad(`version ${JSON.stringify(version)}`);
  if (version > NEWEST_KNOWN_VERSION) {
    throw new StrataError("fix-input", "index-part-too-new", `index_part.json of version ${version}, the newest known is ${NEWEST_KNOWN_VERSION}`, { details: { version } });
  }
  try {
    const other = Object.fromEntries(Object.entries(json).filter(([field]) => !OWN_FIELDS.has(field)));
    return {
      metadata: readMetadata(json.metadata_bytes ?? json.metadata),
      layers: yield* readLayers(json.layer_metadata),
      deletedAt: readTime(json.deleted_at),
      archivedAt: readTime(json.archived_at),
      other,
    };
  } catch (error) {
    if (error instanceof StrataError && error.code === "bad-index-part") throw error;
    throw bad("a field is malformed", error);
  }
}

function asObject(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw bad(`${what} is not an object`);
  return value as Record<string, unknown>;
}

function asString(value: unknown, what: string): string {
  if (typeof value !== "string") throw bad(`${what} is not a string`);
  return value;
}

function asCount(value: unknown, what: string, max = Number.MAX_SAFE_INTEGER): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value > max) throw bad(`${what} is not a number in range`);
  return value;
}

function readTime(value: unknown): string | null {
  if (value === undefined || value === null) return null;
  const text = asString(value, "time");
  if (Number.isNaN(Date.parse(`${text}Z`))) throw bad(`"${text}" is not a time`);
  return text;
}

function* readLayers(value: unknown): Generator<void, Map<string, IndexLayer>> {
  const layers = new Map<string, IndexLayer>();
  for (const [text, entry] of Object.entries(asObject(value, "layer_metadata"))) {
    const name = parseLayerName(text);
    const fields = asObject(entry, "layer entry");
    const metadata: LayerMetadata = {
      sizeBytes: asCount(fields.file_size, "file_size"),
      generation: fields.generation === undefined ? null : asCount(fields.generation, "generation", 0xffffffff),
      shard: fields.shard === undefined ? UNSHARDED : readShard(asString(fields.shard, "shard")),
      crc: fields.strata_crc === undefined ? null : readCrc(asString(fields.strata_crc, "strata_crc")),
    };
    layers.set(layerNameToString(name), { name, metadata });
    if (layers.size % LAYERS_PER_STEP === 0) yield;
  }
  return layers;
}

function readShard(text: string): ShardIndex {
  if (!/^[0-9a-fA-F]{4}$/.test(text)) throw bad(`shard "${text}"`);
  return { number: Number.parseInt(text.slice(0, 2), 16), count: Number.parseInt(text.slice(2), 16) };
}

function readCrc(text: string): number {
  if (!/^[0-9a-f]{8}$/.test(text)) throw bad(`strata_crc "${text}"`);
  return Number.parseInt(text, 16);
}

function readMetadata(value: unknown): TimelineMetadata {
  if (Array.isArray(value)) return readOldMetadata(value);
  const json = asObject(value, "metadata");
  const prev = json.prev_record_lsn;
  const ancestor = json.ancestor_timeline;
  const ancestorLsn = parseLsn(asString(json.ancestor_lsn, "ancestor_lsn"));
  return {
    diskConsistentLsn: parseLsn(asString(json.disk_consistent_lsn, "disk_consistent_lsn")),
    prevRecordLsn: prev === null || prev === undefined ? null : parseLsn(asString(prev, "prev_record_lsn")),
    ancestor: ancestor === null || ancestor === undefined ? null : { timelineId: parseTimelineId(asString(ancestor, "ancestor_timeline")), lsn: ancestorLsn },
    latestGcCutoffLsn: parseLsn(asString(json.latest_gc_cutoff_lsn, "latest_gc_cutoff_lsn")),
    initdbLsn: parseLsn(asString(json.initdb_lsn, "initdb_lsn")),
    pgVersion: asCount(json.pg_version, "pg_version", 0xffffffff),
  };
}

const OLD_METADATA_SIZE = 512;
const OLD_HEADER_SIZE = 8;

function readOldMetadata(values: readonly unknown[]): TimelineMetadata {
  if (values.length !== OLD_METADATA_SIZE) throw bad(`metadata of ${values.length} bytes`);
  const bytes = Uint8Array.from(values, (value) => asCount(value, "metadata byte", 255));
  const r = new ByteReader(bytes, "timeline metadata");
  const crc = r.u32be();
  const size = r.u16be();
  const format = r.u16be();
  if (size < OLD_HEADER_SIZE || size > OLD_METADATA_SIZE || crc32c(bytes, OLD_HEADER_SIZE, size) !== crc) throw bad("metadata checksum does not match");
  if (format !== 3 && format !== 4) throw bad(`metadata format ${format}`);
  const diskConsistentLsn = r.lsnBe();
  const prevRecordLsn = r.u8() === 1 ? r.lsnBe() : null;
  const ancestorId = r.u8() === 1 ? idFromBytes(r.bytes(16)) : null;
  const ancestorLsn = r.lsnBe();
  return {
    diskConsistentLsn,
    prevRecordLsn,
    ancestor: ancestorId === null ? null : { timelineId: ancestorId, lsn: ancestorLsn },
    latestGcCutoffLsn: r.lsnBe(),
    initdbLsn: r.lsnBe(),
    pgVersion: format === 3 ? 14 : r.u32be(),
  };
}

function bad(what: string, cause?: unknown): StrataError {
  return new StrataError("corrupt", "bad-index-part", `index_part.json: ${what}`, { cause });
}
