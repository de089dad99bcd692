/**
 * A PostgreSQL data directory, cleanly shut down, becomes the first contents of an empty timeline.
 *
 * Everything is stored at one LSN, the end of the shutdown checkpoint's record: the timeline's WAL goes on from there,
 * and that record is the one its first record points back to. Left out: temporary relations, the contents of unlogged
 * ones, relation cache files, and everything that belongs to the machine and not to the database (configuration, WAL,
 * statistics, lock files).
 *
 * Source: the peer's pageserver import_datadir module.
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
import { type ControlFile, decodeControlFile } from "../../postgres/control-file/control-file.ts";
import { WalRecord } from "../../postgres/wal/record.ts";
import { WalStreamDecoder } from "../../postgres/wal/stream-decoder.ts";
import type { DatadirModification } from "../datadir/datadir-modification.ts";

const PAGES_PER_READ = 128;
const WAL_TIMELINE = 1;

export interface ShutDownDatadir {
  readonly control: ControlFile;
  readonly controlFile: Uint8Array;
  /** Start and end of the shutdown checkpoint's record. */
  readonly checkpointLsn: Lsn;
  readonly endLsn: Lsn;
}

/** What a data directory says of itself. @throws StrataError fix-input `not-shut-down`, corrupt from pg_control or the WAL */
export async function inspectDatadir(files: FileSystem, directory: string): Promise<ShutDownDatadir> {
  const controlFile = await files.readFile(`${directory}/global/pg_control`);
  const control = decodeControlFile(controlFile);
  if (control.state !== "shut-down") throw new StrataError("fix-input", "not-shut-down", `${directory} was not shut down cleanly (${control.state})`);
  const segment = await files.readFile(`${directory}/pg_wal/${walFileName(control.checkpointLsn, control.segmentSize)}`);
  const decoder = new WalStreamDecoder(control.checkpointLsn, control.version, control.segmentSize);
  const record = new WalRecord();
  decoder.feed(segment.subarray(control.checkpointLsn % control.segmentSize));
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
  await importFiles(modification, { files, directory }, { startLsn: inspected.checkpointLsn, endLsn: inspected.endLsn });
  return inspected;
}

/**
 * The same for a base backup, which need not be of a server that was shut down: the pages in it are of any LSN up to the backup's end,
 * and WAL from `lsn` on, imported next, makes them one state.
 * @throws StrataError fix-input `wrong-version`
 */
export async function importBaseBackup(modification: DatadirModification, from: { readonly files: FileSystem; readonly directory: string }, at: { readonly lsn: Lsn; readonly version: PgMajor }): Promise<void> {
  const { version } = decodeControlFile(await from.files.readFile(`${from.directory}/global/pg_control`));
  if (version !== at.version) throw new StrataError("fix-input", "wrong-version", `the backup is of PostgreSQL ${version}, not ${at.version}`);
  await importFiles(modification, from, { startLsn: await previousRecord(from), endLsn: at.lsn });
}

/** Where the record before the backup starts, as archives made here say; else not known. */
async function previousRecord({ files, directory }: { readonly files: FileSystem; readonly directory: string }): Promise<Lsn> {
  const path = `${directory}/neon.signal`;
  const match = (await files.exists(path)) ? /^PREV LSN: ([0-9A-F]+\/[0-9A-F]+)/.exec(utf8ToString(await files.readFile(path))) : null;
  return match === null ? 0 : parseLsn(match[1]);
}

/** @param record that the content is as of */
async function importFiles(modification: DatadirModification, from: { readonly files: FileSystem; readonly directory: string }, record: { readonly startLsn: Lsn; readonly endLsn: Lsn }): Promise<void> {
  const { files, directory } = from;
  const controlFile = await files.readFile(`${directory}/global/pg_control`);
  const { checkpoint, version } = decodeControlFile(controlFile);
  const importer = new Importer(modification, files, directory);
  modification.beginRecord(record.startLsn, record.endLsn);
  modification.initializeEmpty();
  await importer.database(GLOBAL_TABLESPACE_OID, 0, "global");
  for (const name of await files.list(`${directory}/base`)) {
    if (/^\d{1,10}$/.test(name)) await importer.database(DEFAULT_TABLESPACE_OID, Number(name), `base/${name}`);
  }
  for (const kind of SLRU_KINDS) await importer.slru(kind);
  await importer.twoPhaseFiles();
  modification.putControlFile(controlFile);
  modification.putCheckpoint(encodeCheckPoint(checkpoint, version));
  await modification.commit();
}

class Importer {
  readonly #modification: DatadirModification;
  readonly #files: FileSystem;
  readonly #directory: string;

  constructor(modification: DatadirModification, files: FileSystem, directory: string) {
    this.#modification = modification;
    this.#files = files;
    this.#directory = directory;
  }

  async database(spcOid: number, dbOid: number, path: string): Promise<void> {
    const names = await this.#files.list(`${this.#directory}/${path}`);
    if (names.includes("pg_filenode.map")) {
      await this.#modification.relations.putRelmapFile(spcOid, dbOid, await this.#files.readFile(`${this.#directory}/${path}/pg_filenode.map`));
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
    const { sizeBytes } = await this.#files.stat(`${this.#directory}/${path}`);
    if (sizeBytes % PAGE_SIZE !== 0) throw new StrataError("corrupt", "partial-page", `${path} has ${sizeBytes} bytes, no multiple of ${PAGE_SIZE}`);
    return sizeBytes / PAGE_SIZE;
  }

  /** Gives each page of the file to `take`, which owns it. */
  async #pages(path: string, blocks: number, take: (block: number, page: Uint8Array) => void): Promise<void> {
    const file = await this.#files.open(`${this.#directory}/${path}`, "read");
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
    for (const name of await this.#files.list(`${this.#directory}/${directory}`)) {
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
    for (const name of await this.#files.list(`${this.#directory}/pg_twophase`)) {
      if (!/^(?:[0-9A-F]{8}|[0-9A-F]{16})$/.test(name)) continue;
      const bytes = await this.#files.readFile(`${this.#directory}/pg_twophase/${name}`);
      // The file ends with a CRC-32C, which base backups compute anew.
      await this.#modification.twoPhase.put(BigInt(`0x${name}`), bytes.subarray(0, bytes.length - 4));
    }
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
