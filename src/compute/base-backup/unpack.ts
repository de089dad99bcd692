/**
 * Unpacks a base backup archive into a data directory, computing free-space maps on the way. Nothing is made durable: the
 * directory is disposable.
 */
import { StrataError } from "../../kit/errors.ts";
import { dataViewOf, utf8ToString } from "../../kit/bytes.ts";
import { type Lsn, parseLsn } from "../../kit/lsn.ts";
import type { FileHandle, FileSystem } from "../../platform/files.ts";
import { decodeControlFile, type ControlFile } from "../../postgres/control-file/control-file.ts";
import { PAGE_SIZE } from "../../postgres/wal/constants.ts";
import { FreeSpaceCollector } from "./free-space-map.ts";
import { TarReader, type TarEvent } from "./tar-reader.ts";

export interface UnpackedBackup {
  readonly controlFile: ControlFile;
  /** End of the last record before the backup's LSN, when the archive says so. */
  readonly prevLsn: Lsn | null;
  readonly files: number;
  /** Of file contents. */
  readonly sizeBytes: number;
}

const CONTROL_FILE = "global/pg_control";
/** What the peer's archives carry beside the data directory: where the previous record starts. */
const SIGNAL_FILES = new Set(["neon.signal", "zenith.signal"]);
const SMALL_FILE_MAX_BYTES = 64 * 1024;
const SEGMENT_BLOCKS = 131_072;
const RELATION_FILE = /^((?:base\/\d+|global|pg_tblspc\/\d+\/[^/]+\/\d+)\/\d+)(?:\.(\d+))?$/;
const WRITE_BYTES = 256 * 1024;

/** Directories a server wants to find, even when the archive has no file in them. */
const DIRECTORIES = [
  "base", "global", "pg_wal", "pg_wal/archive_status", "pg_commit_ts", "pg_dynshmem", "pg_logical", "pg_logical/snapshots", "pg_logical/mappings",
  "pg_multixact", "pg_multixact/members", "pg_multixact/offsets", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat", "pg_stat_tmp",
  "pg_subtrans", "pg_tblspc", "pg_twophase", "pg_xact",
];

export class BackupUnpacker {
  readonly #files: FileSystem;
  readonly #directory: string;
  readonly #tar = new TarReader();
  readonly #made = new Set<string>();
  readonly #maps = new Map<string, FreeSpaceCollector>();
  #current: FileWriter | null = null;
  #controlFile: ControlFile | null = null;
  #prevLsn: Lsn | null = null;
  #count = 0;
  #sizeBytes = 0;

  /** @param directory must exist and be empty */
  constructor(files: FileSystem, directory: string) {
    this.#files = files;
    this.#directory = directory;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** @throws StrataError corrupt `bad-tar` */
  async push(chunk: Uint8Array): Promise<void> {
    for (const event of this.#tar.push(chunk)) await this.#event(event);
  }

  /** @throws StrataError corrupt `bad-base-backup` when the archive is cut short or lacks pg_control */
  async finish(): Promise<UnpackedBackup> {
    if (!this.#tar.ended || this.#current !== null) throw badBackup("it ends before the archive's end marker");
    const controlFile = this.#controlFile;
    if (controlFile === null) throw badBackup("it has no global/pg_control");
    for (const name of DIRECTORIES) await this.#makeDirectory(name);
    await this.#writeMaps(controlFile.dataChecksumVersion !== 0);
    return { controlFile, prevLsn: this.#prevLsn, files: this.#count, sizeBytes: this.#sizeBytes };
  }

  async #event(event: TarEvent): Promise<void> {
    switch (event.kind) {
      case "directory":
        await this.#makeDirectory(event.name);
        break;
      case "file":
        this.#current = await this.#open(event.name, event.sizeBytes);
        this.#count++;
        this.#sizeBytes += event.sizeBytes;
        break;
      case "data":
        await this.#current?.write(event.bytes);
        break;
      case "file-end":
        await this.#close();
        break;
    }
  }

  async #open(name: string, sizeBytes: number): Promise<FileWriter> {
    const special = name === CONTROL_FILE || SIGNAL_FILES.has(name);
    if (special) {
      if (sizeBytes > SMALL_FILE_MAX_BYTES) throw badBackup(`${name} has ${sizeBytes} bytes`);
      return new FileWriter({ name, file: null, map: null });
    }
    // WAL is made here, to go on exactly where the safekeepers' log ends.
    if (name.startsWith("pg_wal/")) return new FileWriter({ name, file: null, map: null, discard: true });
    await this.#makeDirectory(name.slice(0, Math.max(0, name.lastIndexOf("/"))));
    const file = await this.#files.open(`${this.#directory}/${name}`, "truncate");
    return new FileWriter({ name, file, map: this.#mapFor(name) });
  }

  #mapFor(name: string): FileWriter["map"] {
    const match = RELATION_FILE.exec(name);
    if (match === null) return null;
    const relation = match[1];
    let collector = this.#maps.get(relation);
    if (collector === undefined) this.#maps.set(relation, (collector = new FreeSpaceCollector()));
    return { collector, firstBlock: Number(match[2] ?? 0) * SEGMENT_BLOCKS };
  }

  async #close(): Promise<void> {
    const current = this.#current;
    this.#current = null;
    if (current === null) return;
    const content = await current.close();
    if (current.name === CONTROL_FILE) this.#controlFile = decodeControlFile(content);
    else if (SIGNAL_FILES.has(current.name)) this.#prevLsn = prevLsnOf(utf8ToString(content));
  }

  async #makeDirectory(name: string): Promise<void> {
    if (name === "" || this.#made.has(name)) return;
    await this.#files.makeDirectory(`${this.#directory}/${name}`);
    this.#made.add(name);
  }

  async #writeMaps(checksums: boolean): Promise<void> {
    for (const [relation, collector] of this.#maps) {
      const fork = collector.build({ checksums });
      if (fork === null) continue;
      const file = await this.#files.open(`${this.#directory}/${relation}_fsm`, "truncate");
      await file.write(fork, 0);
      await file.close();
    }
  }
}

/** Gathers the pieces of one file into large writes; keeps a small one in memory when there is no file for it. */
class FileWriter {
  readonly name: string;
  readonly map: { readonly collector: FreeSpaceCollector; readonly firstBlock: number } | null;
  readonly #file: FileHandle | null;
  readonly #discard: boolean;
  #buffer = new Uint8Array(0);
  #filled = 0;
  #position = 0;

  constructor(options: { name: string; file: FileHandle | null; map: FileWriter["map"]; discard?: boolean }) {
    this.name = options.name;
    this.map = options.map;
    this.#file = options.file;
    this.#discard = options.discard === true;
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#discard) return;
    if (this.#buffer.length === 0) this.#buffer = new Uint8Array(WRITE_BYTES);
    for (let at = 0; at < bytes.length; ) {
      const piece = bytes.subarray(at, at + this.#buffer.length - this.#filled);
      this.#buffer.set(piece, this.#filled);
      this.#filled += piece.length;
      at += piece.length;
      if (this.#filled === this.#buffer.length) await this.#flush();
    }
  }

  /** Returns the content when it was kept in memory. */
  async close(): Promise<Uint8Array> {
    if (this.#file === null) return this.#buffer.subarray(0, this.#filled);
    await this.#flush();
    await this.#file.close();
    return this.#buffer.subarray(0, 0);
  }

  async #flush(): Promise<void> {
    if (this.#file === null || this.#filled === 0) return;
    const bytes = this.#buffer.subarray(0, this.#filled);
    if (this.map !== null) this.#collect(this.map, bytes);
    await this.#file.write(bytes, this.#position);
    this.#position += this.#filled;
    this.#filled = 0;
  }

  #collect(map: NonNullable<FileWriter["map"]>, bytes: Uint8Array): void {
    const view = dataViewOf(bytes);
    for (let at = 0; at + PAGE_SIZE <= bytes.length; at += PAGE_SIZE) {
      map.collector.add(map.firstBlock + (this.#position + at) / PAGE_SIZE, new DataView(view.buffer, view.byteOffset + at, PAGE_SIZE));
    }
  }
}

/** `PREV LSN: 0/16B3748`, or `none` / `invalid`. */
function prevLsnOf(text: string): Lsn | null {
  const match = /^PREV LSN: ([0-9A-Fa-f]+\/[0-9A-Fa-f]+)/m.exec(text);
  return match === null ? null : parseLsn(match[1]);
}

function badBackup(what: string): StrataError {
  return new StrataError("corrupt", "bad-base-backup", `base backup is not usable: ${what}`);
}
