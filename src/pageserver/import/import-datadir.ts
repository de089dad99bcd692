/**
 * A PostgreSQL data directory, cleanly shut down, becomes the first contents of an empty timeline.
 *
 * Everything is stored at one LSN, the end of the shutdown checkpoint's record: the timeline's WAL goes on from there,
 * and that record is the one its first record points back to. Tablespaces are directories below pg_tblspc (their files in the place
 * of the links that a server may have there). Left out: temporary relations, the contents of unlogged ones, relation cache files,
 * everything that belongs to the machine and not to the database (configuration, WAL, statistics, lock files), and replication slots,
 * whose WAL is another server's.
 *
 * Source: the peer's pageserver import_datadir module (which refuses tablespaces, and takes no progress of replication origins).
 */
import { StrataError } from "../../kit/errors.ts";
import { utf8ToString } from "../../kit/bytes.ts";
import { type Lsn, lsnToString, parseLsn } from "../../kit/lsn.ts";
import type { PgMajor } from "../../postgres/versions/major.ts";
import {
  DEFAULT_TABLESPACE_OID, GLOBAL_TABLESPACE_OID, INIT_FORK, MAIN_FORK, PAGE_SIZE, parseRelationFileName, RELATION_SEGMENT_BLOCKS, type RelTag,
  SLRU_KINDS, SLRU_SEGMENT_BLOCKS, slruDirectory, type SlruKind,
} from "../../keyspace/relation.ts";
import { relBlockKey } from "../../keyspace/mapping.ts";
import { isKeyLocal } from "../../keyspace/shard.ts";
import type { FileSystem } from "../../platform/files.ts";
import { encodeCheckPoint } from "../../postgres/control-file/checkpoint.ts";
import { CONTROL_FILE_SIZE, type ControlFile, decodeControlFile } from "../../postgres/control-file/control-file.ts";
import { WAL_PAGE_SIZE } from "../../postgres/wal/constants.ts";
import { WalRecord } from "../../postgres/wal/record.ts";
import { WalStreamDecoder } from "../../postgres/wal/stream-decoder.ts";
import { replicationOriginsOf, tablespaceVersionDirectory, twoPhaseStateOf } from "../basebackup/layout.ts";
import type { DatadirModification } from "../datadir/datadir-modification.ts";
import { DatadirFiles } from "./datadir-files.ts";

const PAGES_PER_READ = 128;
const WAL_TIMELINE = 1;
/** A checkpoint's record has 114 bytes, and page headers between them. */
const CHECKPOINT_RECORD_BYTES = 2 * WAL_PAGE_SIZE;
const RELMAP_MAX_BYTES = 4096;
const SIGNAL_MAX_BYTES = 1024;
/** Of a prepared transaction: its locks, files and invalidations. */
const TWO_PHASE_MAX_BYTES = 16 * 1024 * 1024;
/** 65,535 origins are possible. */
const ORIGINS_MAX_BYTES = 2 * 1024 * 1024;

export interface ShutDownDatadir {
  readonly control: ControlFile;
  readonly controlFile: Uint8Array;
  /** Start and end of the shutdown checkpoint's record. */
  readonly checkpointLsn: Lsn;
  readonly endLsn: Lsn;
}

/** What a data directory says of itself. @throws StrataError fix-input `not-shut-down`, `bad-archive`; corrupt from pg_control or the WAL */
export async function inspectDatadir(files: FileSystem, directory: string): Promise<ShutDownDatadir> {
  const from = new DatadirFiles(files, directory);
  const controlFile = await from.read("global/pg_control", CONTROL_FILE_SIZE);
  const control = decodeControlFile(controlFile);
  if (control.state !== "shut-down") throw new StrataError("fix-input", "not-shut-down", `${directory} was not shut down cleanly (${control.state})`);
  const wal = await from.part(`pg_wal/${walFileName(control.checkpointLsn, control.segmentSize)}`, { offset: control.checkpointLsn % control.segmentSize, maxBytes: CHECKPOINT_RECORD_BYTES });
  const decoder = new WalStreamDecoder(control.checkpointLsn, control.version, control.segmentSize);
  const record = new WalRecord();
  decoder.feed(wal);
  if (!decoder.next(record)) throw new StrataError("corrupt", "truncated", `the checkpoint at ${lsnToString(control.checkpointLsn)} is not whole`);
  return { control, controlFile, checkpointLsn: control.checkpointLsn, endLsn: record.endLsn };
}

/** XLogFileName: timeline, then the segment number's two parts, 8 hex digits each. */
export function walFileName(lsn: Lsn, segmentSize: number): string {
  const segment = Math.floor(lsn / segmentSize);
  const perId = 0x1_0000_0000 / segmentSize;
  const parts = [WAL_TIMELINE, Math.floor(segment / perId), segment % perId];
  return parts.map((part) => part.toString(16).toUpperCase().padStart(8, "0")).join("");
}

/**
 * Imports `directory` into the empty timeline of `modification`, whose last record LSN is the directory's
 * `checkpointLsn`, and commits.
 */
export async function importDatadir(modification: DatadirModification, files: FileSystem, directory: string): Promise<ShutDownDatadir> {
  const inspected = await inspectDatadir(files, directory);
  await importFiles(modification, new DatadirFiles(files, directory), { startLsn: inspected.checkpointLsn, endLsn: inspected.endLsn });
  return inspected;
}

/**
 * The same for a base backup, which need not be of a server that was shut down: the pages in it are of any LSN up to the backup's end,
 * and WAL from `lsn` on, imported next, makes them one state.
 * @throws StrataError fix-input `wrong-version`
 */
export async function importBaseBackup(modification: DatadirModification, source: { readonly files: FileSystem; readonly directory: string }, at: { readonly lsn: Lsn; readonly version: PgMajor }): Promise<void> {
  const from = new DatadirFiles(source.files, source.directory);
  const { version } = decodeControlFile(await from.read("global/pg_control", CONTROL_FILE_SIZE));
  if (version !== at.version) throw new StrataError("fix-input", "wrong-version", `the backup is of PostgreSQL ${version}, not ${at.version}`);
  await importFiles(modification, from, { startLsn: await previousRecord(from), endLsn: at.lsn });
}

/** Where the record before the backup starts, as archives made here and at the peer's say; else not known. */
async function previousRecord(from: DatadirFiles): Promise<Lsn> {
  for (const name of ["neon.signal", "zenith.signal"]) {
    const bytes = await from.readIfThere(name, SIGNAL_MAX_BYTES);
    const match = bytes === null ? null : /^PREV LSN: ([0-9A-F]+\/[0-9A-F]+)/.exec(utf8ToString(bytes));
    if (match !== null) return parseLsn(match[1]);
  }
  return 0;
}

/** @param record that the content is as of */
async function importFiles(modification: DatadirModification, from: DatadirFiles, record: { readonly startLsn: Lsn; readonly endLsn: Lsn }): Promise<void> {
  const controlFile = await from.read("global/pg_control", CONTROL_FILE_SIZE);
  const control = decodeControlFile(controlFile);
  const importer = new Importer(modification, from);
  modification.beginRecord(record.startLsn, record.endLsn);
  modification.initializeEmpty();
  await importer.database(GLOBAL_TABLESPACE_OID, 0, "global");
  await importer.databases(DEFAULT_TABLESPACE_OID, "base");
  for (const name of await from.list("pg_tblspc")) {
    if (/^\d{1,10}$/.test(name)) await importer.databases(Number(name), `pg_tblspc/${name}/${tablespaceVersionDirectory(control)}`);
  }
  for (const kind of SLRU_KINDS) await importer.slru(kind);
  await importer.twoPhaseFiles();
  await importer.replicationOrigins();
  modification.putControlFile(controlFile);
  modification.putCheckpoint(encodeCheckPoint(control.checkpoint, control.version));
  await modification.commit();
}

class Importer {
  readonly #modification: DatadirModification;
  readonly #from: DatadirFiles;

  constructor(modification: DatadirModification, from: DatadirFiles) {
    this.#modification = modification;
    this.#from = from;
  }

  /** Those of one tablespace. */
  async databases(spcOid: number, path: string): Promise<void> {
    for (const name of await this.#from.list(path)) {
      if (/^\d{1,10}$/.test(name)) await this.database(spcOid, Number(name), `${path}/${name}`);
    }
  }

  async database(spcOid: number, dbOid: number, path: string): Promise<void> {
    const names = await this.#from.list(path);
    if (names.includes("pg_filenode.map")) {
      await this.#modification.relations.putRelmapFile(spcOid, dbOid, await this.#from.read(`${path}/pg_filenode.map`, RELMAP_MAX_BYTES));
    } else {
      await this.#modification.relations.ensureDatabase(spcOid, dbOid, false);
    }
    for (const { rel, segments } of relationForks(names, spcOid, dbOid)) await this.#relation(rel, path, segments);
  }

  /** `segments`: file names by segment number. */
  async #relation(rel: RelTag, path: string, segments: readonly string[]): Promise<void> {
    const sizes: number[] = [];
    for (const name of segments) sizes.push(await this.#fileBlocks(`${path}/${name}`));
    if (sizes.slice(0, -1).some((blocks) => blocks !== RELATION_SEGMENT_BLOCKS)) {
      throw new StrataError("corrupt", "short-segment", `a segment of ${path}/${segments[0]} that is not the last is not full`);
    }
    await this.#modification.relations.create(rel, sizes.reduce((sum, blocks) => sum + blocks, 0));
    for (let segment = 0; segment < segments.length; segment++) {
      await this.#pages(`${path}/${segments[segment]}`, sizes[segment], (block, page) => {
        const number = segment * RELATION_SEGMENT_BLOCKS + block;
        if (!isKeyLocal(relBlockKey(rel, number), this.#modification.datadir.shard)) return;
        this.#modification.relations.putPage(rel, number, { kind: "image", bytes: page });
      });
    }
  }

  async #fileBlocks(path: string): Promise<number> {
    const sizeBytes = await this.#from.sizeBytes(path);
    if (sizeBytes % PAGE_SIZE !== 0) throw new StrataError("corrupt", "partial-page", `${path} has ${sizeBytes} bytes, no multiple of ${PAGE_SIZE}`);
    return sizeBytes / PAGE_SIZE;
  }

  /** Gives each page of the file to `take`, which owns it. */
  async #pages(path: string, blocks: number, take: (block: number, page: Uint8Array) => void): Promise<void> {
    const file = await this.#from.open(path);
    try {
      for (let start = 0; start < blocks; start += PAGES_PER_READ) {
        const chunk = new Uint8Array(Math.min(PAGES_PER_READ, blocks - start) * PAGE_SIZE);
        const read = await file.read(chunk, start * PAGE_SIZE);
        if (read !== chunk.length) throw new StrataError("corrupt", "truncated", `${path} became shorter while it was read`);
        for (let at = 0; at < chunk.length; at += PAGE_SIZE) take(start + at / PAGE_SIZE, chunk.subarray(at, at + PAGE_SIZE));
        await this.#modification.relieve();
      }
    } finally {
      await file.close();
    }
  }

  async slru(kind: SlruKind): Promise<void> {
    const directory = slruDirectory(kind);
    for (const name of await this.#from.list(directory)) {
      if (!/^[0-9A-F]{4,6}$/.test(name)) continue;
      const segment = Number.parseInt(name, 16);
      const pages: Uint8Array[] = [];
      const blocks = await this.#fileBlocks(`${directory}/${name}`);
      if (blocks > SLRU_SEGMENT_BLOCKS) throw new StrataError("corrupt", "long-segment", `${directory}/${name} has ${blocks} pages`);
      await this.#pages(`${directory}/${name}`, blocks, (_, page) => pages.push(page));
      for (let block = 0; block < pages.length; block++) await this.#modification.slrus.putPage({ kind, segment, block }, pages[block]);
    }
  }

  async twoPhaseFiles(): Promise<void> {
    for (const name of await this.#from.list("pg_twophase")) {
      if (!/^(?:[0-9A-F]{8}|[0-9A-F]{16})$/.test(name)) continue;
      const bytes = await this.#from.read(`pg_twophase/${name}`, TWO_PHASE_MAX_BYTES);
      // The file ends with a CRC-32C, which base backups compute anew.
      await this.#modification.twoPhase.put(BigInt(`0x${name}`), twoPhaseStateOf(bytes));
    }
  }

  /** How far each origin was followed: without it a subscriber would take in again what it has. */
  async replicationOrigins(): Promise<void> {
    const bytes = await this.#from.readIfThere("pg_logical/replorigin_checkpoint", ORIGINS_MAX_BYTES);
    if (bytes === null) return;
    for (const [id, lsn] of replicationOriginsOf(bytes)) this.#modification.setReplOrigin(id, lsn);
  }
}

/** Relation forks among a database directory's files, by relation; of unlogged relations only the init fork. */
export function relationForks(names: readonly string[], spcOid: number, dbOid: number): { rel: RelTag; segments: string[] }[] {
  const forks = new Map<string, { rel: RelTag; segments: string[] }>();
  for (const name of names) {
    const parsed = parseRelationFileName(name);
    if (parsed === null) continue;
    const id = `${parsed.relNumber}/${parsed.fork}`;
    const entry = forks.get(id) ?? { rel: { spcOid, dbOid, relNumber: parsed.relNumber, fork: parsed.fork }, segments: [] };
    entry.segments[parsed.segment] = name;
    forks.set(id, entry);
  }
  const unlogged = (rel: RelTag): boolean => rel.fork !== INIT_FORK && forks.has(`${rel.relNumber}/${INIT_FORK}`);
  return [...forks.values()]
    .map((entry) => (unlogged(entry.rel) ? { rel: entry.rel, segments: [] } : entry))
    .filter(({ rel, segments }) => segments.length > 0 || rel.fork === MAIN_FORK)
    .sort((a, b) => a.rel.relNumber - b.rel.relNumber || a.rel.fork - b.rel.fork);
}
