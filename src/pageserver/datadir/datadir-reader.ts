/**
 * A timeline's data directory as of one LSN: what relations, SLRU segments and files exist, their sizes and bytes.
 */
import { allocateBytes } from "../../kit/buffers.ts";
import type { PgMajor } from "../../postgres/versions/major.ts";
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { ByteReader } from "../../kit/bytes.ts";
import { type AuxFile, decodeAuxFiles } from "../../keyspace/aux-file.ts";
import type { Key, KeyRange } from "../../keyspace/key.ts";
import {
  AUX_FILE_RANGE, CHECKPOINT_KEY, CONTROL_FILE_KEY, DB_DIRECTORY_KEY, relBlockKey, relDirectoryKey, relmapFileKey, relSizeKey,
  REPL_ORIGIN_RANGE, slruBlockKey, slruSegmentSizeKey, TWO_PHASE_DIRECTORY_KEY, twoPhaseFileKey,
} from "../../keyspace/mapping.ts";
import { FSM_FORK, INIT_FORK, PAGE_SIZE, type RelTag, relTagToString, type SlruKind, VM_FORK } from "../../keyspace/relation.ts";
import {
  databaseId, type DbDirectory, decodeBlockCount, decodeDbDirectory, decodeRelDirectory, decodeTwoPhaseDirectory,
} from "./directory-codec.ts";
import { NO_RELATION, type RelationSizeCache } from "./relation-size-cache.ts";
import { loadSegmentDirectory } from "./segment-directory.ts";

/** Where a reader gets its bytes: a timeline at an LSN, or a modification not committed yet. */
export interface DatadirView {
  readonly lsn: Lsn;
  readonly version: PgMajor;
  readonly sizes: RelationSizeCache;
  get(key: Key): Promise<Uint8Array>;
  getVectored(keys: readonly Key[]): Promise<(Uint8Array | Error)[]>;
  scan(range: KeyRange): Promise<{ key: Key; bytes: Uint8Array }[]>;
  /** Told how much all auxiliary files take. */
  auxFilesListed?(files: { readonly count: number; readonly sizeBytes: number }): void;
}

export interface RelPageRequest {
  readonly rel: RelTag;
  readonly block: number;
}

export class DatadirReader {
  readonly view: DatadirView;

  constructor(view: DatadirView) {
    this.view = view;
  }

  get lsn(): Lsn {
    return this.view.lsn;
  }

  // --- databases and relations

  async listDatabases(): Promise<DbDirectory> {
    return decodeDbDirectory(await this.view.get(DB_DIRECTORY_KEY));
  }

  /** All relation forks of a database, by relation number, then fork; none when the database does not exist. */
  async listRels(spcOid: number, dbOid: number): Promise<RelTag[]> {
    if (!(await this.listDatabases()).has(databaseId(spcOid, dbOid))) return [];
    const directory = decodeRelDirectory(await this.view.get(relDirectoryKey(spcOid, dbOid)));
    const rels: RelTag[] = [];
    for (const relNumber of [...directory.keys()].sort((a, b) => a - b)) {
      const forks = directory.get(relNumber) ?? 0;
      for (let fork = 0; fork < 8; fork++) if ((forks & (1 << fork)) !== 0) rels.push({ spcOid, dbOid, relNumber, fork });
    }
    return rels;
  }

  async relExists(rel: RelTag): Promise<boolean> {
    return (await this.#sizeOrMissing(rel)) !== NO_RELATION;
  }

  /** Blocks of a relation fork; a missing visibility or free-space map counts as empty, as PostgreSQL may create one
   *  and ask for its size before writing to it. @throws StrataError not-found `relation-missing` */
  async relSize(rel: RelTag): Promise<number> {
    const blocks = await this.#sizeOrMissing(rel);
    if (blocks !== NO_RELATION) return blocks;
    if (rel.fork === FSM_FORK || rel.fork === VM_FORK) return 0;
    throw new StrataError("not-found", "relation-missing", `relation ${relTagToString(rel)} does not exist at ${lsnToString(this.lsn)}`);
  }

  async #sizeOrMissing(rel: RelTag): Promise<number> {
    if (rel.relNumber === 0) throw new StrataError("fix-input", "invalid-relation", `relation number 0 in ${relTagToString(rel)}`);
    const cached = this.view.sizes.get(rel, this.lsn);
    if (cached !== undefined) return cached;
    const blocks = (await this.#inDirectory(rel)) ? decodeBlockCount(await this.view.get(relSizeKey(rel))) : NO_RELATION;
    this.view.sizes.setByRead(rel, this.lsn, blocks);
    return blocks;
  }

  async #inDirectory(rel: RelTag): Promise<boolean> {
    // The number comes from a client; the directory's mask of forks has no place for another.
    if (rel.fork > INIT_FORK) return false;
    if (!(await this.listDatabases()).has(databaseId(rel.spcOid, rel.dbOid))) return false;
    const directory = decodeRelDirectory(await this.view.get(relDirectoryKey(rel.spcOid, rel.dbOid)));
    return ((directory.get(rel.relNumber) ?? 0) & (1 << rel.fork)) !== 0;
  }

  /** Sizes of many forks known to exist (from `listRels`), in their order, in one vectored read. */
  async relSizes(rels: readonly RelTag[]): Promise<number[]> {
    const values = await this.view.getVectored(rels.map(relSizeKey));
    return values.map((value) => {
      if (value instanceof Error) throw value;
      return decodeBlockCount(value);
    });
  }

  /** Size of a database in blocks, all forks. Exact on shard 0 only. */
  async databaseBlocks(spcOid: number, dbOid: number): Promise<number> {
    const sizes = await this.relSizes(await this.listRels(spcOid, dbOid));
    return sizes.reduce((sum, blocks) => sum + blocks, 0);
  }

  /** A page, or zeros when the block lies past the end. */
  async relPage(rel: RelTag, block: number): Promise<Uint8Array> {
    const [page] = await this.relPages([{ rel, block }]);
    if (page instanceof Error) throw page;
    return page;
  }

  /** Many pages in one vectored read; each a page or the error that one request met. */
  async relPages(requests: readonly RelPageRequest[]): Promise<(Uint8Array | Error)[]> {
    const results = new Array<Uint8Array | Error>(requests.length);
    const keys: Key[] = [];
    const positions: number[] = [];
    for (let index = 0; index < requests.length; index++) {
      const { rel, block } = requests[index];
      try {
        const known = this.view.sizes.get(rel, this.lsn);
        const blocks = known === undefined || known === NO_RELATION ? await this.relSize(rel) : known;
        if (block >= blocks) {
          results[index] = new Uint8Array(PAGE_SIZE);
          continue;
        }
      } catch (error) {
        results[index] = error as Error;
        continue;
      }
      keys.push(relBlockKey(rel, block));
      positions.push(index);
    }
    const values = keys.length === 0 ? [] : await this.view.getVectored(keys);
    positions.forEach((position, at) => {
      results[position] = values[at];
    });
    return results;
  }

  /** Pages of blocks known to exist, in one vectored read. @throws the error that the first failing one met */
  async existingPages(keys: readonly Key[]): Promise<Uint8Array[]> {
    return (await this.view.getVectored(keys)).map((page) => {
      if (page instanceof Error) throw page;
      return page;
    });
  }

  /** The database's pg_filenode.map. */
  relmapFile(spcOid: number, dbOid: number): Promise<Uint8Array> {
    return this.view.get(relmapFileKey(spcOid, dbOid));
  }

  // --- SLRUs

  /** Segment numbers in rising order. */
  async listSlruSegments(kind: SlruKind): Promise<number[]> {
    return [...((await this.slruDirectory(kind)) ?? [])].sort((a, b) => a - b);
  }

  async slruSegmentExists(kind: SlruKind, segment: number): Promise<boolean> {
    return (await this.slruDirectory(kind))?.has(segment) === true;
  }

  /** Segment numbers; null where there is not even a directory (see `loadSegmentDirectory`). */
  slruDirectory(kind: SlruKind): Promise<Set<number> | null> {
    return loadSegmentDirectory((key) => this.view.get(key), kind);
  }

  async slruSegmentBlocks(kind: SlruKind, segment: number): Promise<number> {
    return decodeBlockCount(await this.view.get(slruSegmentSizeKey(kind, segment)));
  }

  /** 8192 bytes, or 8200 for a clog page with the timestamp of its last commit. */
  slruPage(kind: SlruKind, segment: number, block: number): Promise<Uint8Array> {
    return this.view.get(slruBlockKey(kind, segment, block));
  }

  /** The segment file as PostgreSQL has it. */
  async slruSegment(kind: SlruKind, segment: number): Promise<Uint8Array> {
    const blocks = await this.slruSegmentBlocks(kind, segment);
    const pages = await this.view.getVectored(Array.from({ length: blocks }, (_, block) => slruBlockKey(kind, segment, block)));
    const bytes = allocateBytes(blocks * PAGE_SIZE);
    pages.forEach((page, block) => {
      if (page instanceof Error) throw page;
      bytes.set(page.subarray(0, PAGE_SIZE), block * PAGE_SIZE);
    });
    return bytes;
  }

  // --- the rest

  controlFile(): Promise<Uint8Array> {
    return this.view.get(CONTROL_FILE_KEY);
  }

  /** The CheckPoint struct kept current by ingest. */
  checkpoint(): Promise<Uint8Array> {
    return this.view.get(CHECKPOINT_KEY);
  }

  async listTwoPhaseXids(): Promise<bigint[]> {
    const xids = decodeTwoPhaseDirectory(await this.view.get(TWO_PHASE_DIRECTORY_KEY), this.view.version);
    return [...xids].sort((a, b) => (a < b ? -1 : 1));
  }

  twoPhaseFile(xid: bigint): Promise<Uint8Array> {
    return this.view.get(twoPhaseFileKey(xid));
  }

  async listAuxFiles(): Promise<AuxFile[]> {
    const values = await this.view.scan(AUX_FILE_RANGE);
    const files = values.flatMap((value) => decodeAuxFiles(value.bytes)).sort((a, b) => (a.path < b.path ? -1 : 1));
    this.view.auxFilesListed?.({ count: files.length, sizeBytes: values.reduce((sum, { bytes }) => sum + bytes.length, 0) });
    return files;
  }

  /** Origin id → LSN up to which it was replayed. */
  async listReplOrigins(): Promise<Map<number, Lsn>> {
    const origins = new Map<number, Lsn>();
    for (const { key, bytes } of await this.view.scan(REPL_ORIGIN_RANGE)) {
      const lsn = new ByteReader(bytes, "replication origin").lsnBe();
      if (lsn !== 0) origins.set(key.field6, lsn);
    }
    return origins;
  }
}
