/**
 * A data directory at an LSN, as a tar archive, made piece by piece.
 *
 * Three forms:
 * - `neon`: for the peer's patched servers. Without relations (they are asked for page by page), with zenith.signal and
 *   neon.signal and a WAL segment of headers only.
 * - `full`: all of that, and the relations.
 * - `stock`: for an unmodified server whose compute makes the first WAL segment itself: with relations, with the signal
 *   files (for the link back to the record before), without WAL.
 *
 * Tablespaces are directories below pg_tblspc, where a server finds them as well as behind a symbolic link: the place that
 * CREATE TABLESPACE named may be another machine's, or another branch's.
 *
 * Relations: main, visibility-map and init forks. Of an unlogged relation the main fork is a copy of its init fork.
 * Free-space maps are left out: they are hints, and a compute makes them from the pages. With data checksums every page
 * gets the right one.
 *
 * Sources: the peer's pageserver basebackup module; PostgreSQL storage/file/reinit.c for unlogged relations.
 */
import type { PgMajor } from "../../postgres/versions/major.ts";
import { StrataError } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";
import {
  databaseDirectory, DEFAULT_TABLESPACE_OID, FSM_FORK, GLOBAL_TABLESPACE_OID, INIT_FORK, MAIN_FORK, type RelTag,
  SLRU_KINDS, slruDirectory, slruSegmentName,
} from "../../keyspace/relation.ts";
import { type ControlFile, decodeControlFile } from "../../postgres/control-file/control-file.ts";
import { type CheckPoint, decodeCheckPoint } from "../../postgres/control-file/checkpoint.ts";
import { walSegmentName } from "../../postgres/wal/segment-name.ts";
import { newestCommitTsXid } from "../datadir/commit-ts-limits.ts";
import type { DatadirReader } from "../datadir/datadir-reader.ts";
import type { DatabaseEntry } from "../datadir/directory-codec.ts";
import {
  CONFIGURATION_FILES, dataDirectories, headersOnlyWal, replicationOriginFile, shutDownControlFile, signalFile, slotRestartLsn,
  tablespaceVersionDirectory, twoPhaseFile, twoPhaseFileName, versionFile,
} from "./layout.ts";
import { type RelationFork, relationPieces } from "./relation-files.ts";
import { tarEnd, tarFile, tarHeader, tarPadding } from "./tar.ts";
import { zeros } from "./zeros.ts";

export interface BaseBackupOptions {
  readonly form: "neon" | "full" | "stock";
  /** For a hot standby: no replication slots, which would hold back its WAL. */
  readonly replica: boolean;
  /** Form `neon` only: without SLRU segments, which the server asks for when it needs them. */
  readonly lazySlrus?: boolean;
  /** Start of the record before the backup's LSN, 0 when unknown. */
  readonly prevLsn: Lsn;
  /** The backup is of the branch point itself. */
  readonly isBranchPoint: boolean;
  readonly wallMs: number;
  /** For tests: a place where to fail or wait. */
  readonly beforeControlFile?: (() => Promise<void>) | undefined;
}

/** Pieces of the archive. @throws StrataError from the timeline; nothing that was given out must then be used */
export function baseBackup(reader: DatadirReader, options: BaseBackupOptions): AsyncGenerator<Uint8Array> {
  return new BaseBackup(reader, options).pieces();
}

class BaseBackup {
  readonly #reader: DatadirReader;
  readonly #options: BaseBackupOptions;
  readonly #modifiedSeconds: number;

  constructor(reader: DatadirReader, options: BaseBackupOptions) {
    this.#reader = reader;
    this.#options = options;
    this.#modifiedSeconds = options.wallMs / 1000;
  }

  get #version(): PgMajor {
    return this.#reader.view.version;
  }

  async *pieces(): AsyncGenerator<Uint8Array> {
    const control = decodeControlFile(await this.#reader.controlFile());
    for (const name of dataDirectories(this.#version)) yield this.#directory(name);
    for (const [name, content] of CONFIGURATION_FILES) yield this.#file(name, content);
    yield* this.#slrus();
    const databases = [...(await this.#reader.listDatabases()).values()].sort((a, b) => a.spcOid - b.spcOid || a.dbOid - b.dbOid);
    for (const spcOid of new Set(databases.map((database) => database.spcOid))) {
      if (isUserTablespace(spcOid)) yield* this.#tablespaceDirectories(spcOid, control);
    }
    for (const database of databases) yield* this.#database(database, control);
    yield* this.#auxFiles();
    for (const xid of await this.#reader.listTwoPhaseXids()) {
      yield this.#file(`pg_twophase/${twoPhaseFileName(xid, this.#version)}`, twoPhaseFile(await this.#reader.twoPhaseFile(xid)));
    }
    const origins = await this.#reader.listReplOrigins();
    if (origins.size > 0) yield this.#file("pg_logical/replorigin_checkpoint", replicationOriginFile(origins));
    yield* this.#startFiles(control);
    yield tarEnd();
  }

  #file(name: string, content: Uint8Array): Uint8Array {
    return tarFile({ name, modifiedSeconds: this.#modifiedSeconds }, content);
  }

  #directory(name: string): Uint8Array {
    return tarHeader({ name, kind: "directory", sizeBytes: 0, modifiedSeconds: this.#modifiedSeconds });
  }

  async *#slrus(): AsyncGenerator<Uint8Array> {
    const lazy = this.#options.form === "neon" && this.#options.lazySlrus === true;
    for (const kind of SLRU_KINDS) {
      // Patched servers ask for the kinds that the peer has.
      if (lazy && kind !== "commit-ts") continue;
      for (const segment of await this.#reader.listSlruSegments(kind)) {
        yield this.#file(`${slruDirectory(kind)}/${slruSegmentName(segment)}`, await this.#reader.slruSegment(kind, segment));
      }
    }
  }

  async *#database(database: DatabaseEntry, control: ControlFile): AsyncGenerator<Uint8Array> {
    const { spcOid, dbOid, hasRelmap } = database;
    const rels = await this.#reader.listRels(spcOid, dbOid);
    const isGlobal = spcOid === GLOBAL_TABLESPACE_OID;
    // The mark of a tablespace, or a database that has nothing in it any more.
    if (isUserTablespace(spcOid) && !hasRelmap && rels.length === 0) return;
    const directory = databaseDirectory(spcOid, dbOid, tablespaceVersionDirectory(control));
    if (isGlobal) yield this.#file("PG_VERSION", versionFile(this.#version));
    else yield this.#directory(directory);
    if (!isGlobal && (!isUserTablespace(spcOid) || hasRelmap)) yield this.#file(`${directory}/PG_VERSION`, versionFile(this.#version));
    if (hasRelmap) yield this.#file(`${directory}/pg_filenode.map`, await this.#reader.relmapFile(spcOid, dbOid));
    yield* this.#relations(rels, { directory, checksums: control.dataChecksumVersion !== 0 });
  }

  *#tablespaceDirectories(spcOid: number, control: ControlFile): Generator<Uint8Array> {
    yield this.#directory(`pg_tblspc/${spcOid}`);
    yield this.#directory(`pg_tblspc/${spcOid}/${tablespaceVersionDirectory(control)}`);
  }

  async *#relations(rels: readonly RelTag[], place: Place): AsyncGenerator<Uint8Array> {
    const unlogged = new Set(rels.filter((rel) => rel.fork === INIT_FORK).map((rel) => rel.relNumber));
    const whole = this.#options.form !== "neon";
    const wanted = rels.filter((rel) => rel.fork === INIT_FORK || (whole && rel.fork !== FSM_FORK && !unlogged.has(rel.relNumber)));
    const files: RelationFork[] = [];
    const sizes = await this.#reader.relSizes(wanted);
    wanted.forEach((rel, index) => {
      files.push({ rel, asFork: rel.fork, blocks: sizes[index] });
      if (rel.fork === INIT_FORK) files.push({ rel, asFork: MAIN_FORK, blocks: sizes[index] });
    });
    yield* relationPieces(files, { reader: this.#reader, ...place, modifiedSeconds: this.#modifiedSeconds });
  }

  async *#auxFiles(): AsyncGenerator<Uint8Array> {
    let restartLsn: bigint | null = null;
    for (const { path, content } of await this.#reader.listAuxFiles()) {
      checkPath(path);
      // Made anew from the origins' progress in the log.
      if (path === "pg_logical/replorigin_checkpoint") continue;
      if (path.startsWith("pg_replslot/")) {
        if (this.#options.replica) continue;
        const slotLsn = slotRestartLsn(content);
        if (slotLsn !== null && (restartLsn === null || slotLsn < restartLsn)) restartLsn = slotLsn;
        yield this.#directory(path.slice(0, path.lastIndexOf("/")));
      }
      yield this.#file(path, content);
    }
    if (restartLsn === null || this.#options.form === "stock") return;
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, restartLsn, true);
    yield this.#file("restart.lsn", bytes);
  }

  async *#startFiles(control: ControlFile): AsyncGenerator<Uint8Array> {
    const { prevLsn, isBranchPoint, form, beforeControlFile } = this.#options;
    const lsn = this.#reader.lsn;
    const signal = signalFile(prevLsn, isBranchPoint);
    yield this.#file("zenith.signal", signal);
    yield this.#file("neon.signal", signal);
    await beforeControlFile?.();
    const checkpoint = await this.#checkpoint(control);
    yield this.#file("global/pg_control", shutDownControlFile(control, checkpoint, { lsn, forPeer: form !== "stock" }));
    if (form !== "stock") yield* this.#walSegment(control);
  }

  /** Commit timestamps of a time when they were not kept everywhere must not be asked for. */
  async #checkpoint(control: ControlFile): Promise<CheckPoint> {
    const checkpoint = decodeCheckPoint(await this.#reader.checkpoint(), this.#version);
    if (!control.trackCommitTimestamp || checkpoint.oldestCommitTsXid === 0) return { ...checkpoint, oldestCommitTsXid: 0, newestCommitTsXid: 0 };
    return { ...checkpoint, newestCommitTsXid: await newestCommitTsXid(this.#reader, checkpoint) };
  }

  *#walSegment(control: ControlFile): Generator<Uint8Array> {
    const { segmentSize } = control;
    const name = `pg_wal/${walSegmentName({ timelineId: 1, lsn: this.#reader.lsn, segmentSize })}`;
    yield tarHeader({ name, kind: "file", sizeBytes: segmentSize, modifiedSeconds: this.#modifiedSeconds });
    let end = 0;
    for (const { at, bytes } of headersOnlyWal(this.#reader.lsn, control)) {
      yield* zeros(at - end);
      yield bytes;
      end = at + bytes.length;
    }
    yield* zeros(segmentSize - end);
    yield tarPadding(segmentSize);
  }
}

function isUserTablespace(spcOid: number): boolean {
  return spcOid !== GLOBAL_TABLESPACE_OID && spcOid !== DEFAULT_TABLESPACE_OID;
}

interface Place {
  readonly directory: string;
  readonly checksums: boolean;
}

/** Paths come from the log: none may lead out of the directory. */
function checkPath(path: string): void {
  if (path.startsWith("/") || path.split("/").some((part) => part === ".." || part === "" || part === ".")) {
    throw new StrataError("corrupt", "bad-aux-path", `auxiliary file with the path "${path}"`);
  }
}
