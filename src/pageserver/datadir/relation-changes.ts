/**
 * The part of a modification that changes databases and relations: directories, sizes, relation maps.
 */
import { isStrataError, StrataError } from "../../kit/errors.ts";
import type { Value } from "../../interpret/value.ts";
import { DB_DIRECTORY_KEY, relBlockKey, relDirectoryKey, relmapFileKey, relSizeKey } from "../../keyspace/mapping.ts";
import { PAGE_SIZE, type RelTag, relTagToString } from "../../keyspace/relation.ts";
import { isKeyLocal } from "../../keyspace/shard.ts";
import type { ModificationWriter } from "./modification-writer.ts";
import {
  databaseId, type DbDirectory, decodeBlockCount, decodeDbDirectory, decodeRelDirectory, encodeBlockCount, encodeDbDirectory,
  encodeRelDirectory, type RelDirectory,
} from "./directory-codec.ts";
import { NO_RELATION } from "./relation-size-cache.ts";

/** A hash index may double at once; nothing grows by more than 64 GiB in one record. */
const MAX_GAP_BLOCKS = 8 * 1024 * 1024;
/** Databases whose decoded relation directories are kept between records. */
const MAX_CACHED_DIRECTORIES = 64;

/** There is no such database outside the global tablespace: an entry for it says that the tablespace exists. */
export const TABLESPACE_MARK_DB_OID = 0;

export const ZERO_PAGE = new Uint8Array(PAGE_SIZE);

export class RelationChanges {
  readonly #to: ModificationWriter;
  #databases: DbDirectory | null = null;
  readonly #directories = new Map<string, RelDirectory>();

  constructor(to: ModificationWriter) {
    this.#to = to;
  }

  /** The directory of an empty timeline. */
  initialize(): void {
    this.#databases = new Map();
    this.#putDatabases(this.#databases);
  }

  async #loadDatabases(): Promise<DbDirectory> {
    this.#databases ??= decodeDbDirectory(await this.#to.get(DB_DIRECTORY_KEY));
    return this.#databases;
  }

  #putDatabases(databases: DbDirectory): void {
    this.#to.putImage(DB_DIRECTORY_KEY, encodeDbDirectory(databases));
    this.#to.datadir.noteDirectory("databases", databases.size);
  }

  async #loadDirectory(spcOid: number, dbOid: number): Promise<RelDirectory> {
    const id = databaseId(spcOid, dbOid);
    let directory = this.#directories.get(id);
    if (directory === undefined) {
      directory = decodeRelDirectory(await this.#to.get(relDirectoryKey(spcOid, dbOid)));
      this.#cacheDirectory(id, directory);
    }
    return directory;
  }

  #cacheDirectory(id: string, directory: RelDirectory): void {
    const oldest = this.#directories.keys().next().value;
    if (this.#directories.size >= MAX_CACHED_DIRECTORIES && oldest !== undefined) this.#directories.delete(oldest);
    this.#directories.set(id, directory);
  }

  /** Adds the database where it is not known yet; never takes `hasRelmap` back. */
  async ensureDatabase(spcOid: number, dbOid: number, hasRelmap: boolean): Promise<void> {
    const databases = await this.#loadDatabases();
    const id = databaseId(spcOid, dbOid);
    const known = databases.get(id);
    if (known !== undefined && (known.hasRelmap || !hasRelmap)) return;
    databases.set(id, { spcOid, dbOid, hasRelmap });
    this.#putDatabases(databases);
    if (known !== undefined) return;
    const directory: RelDirectory = new Map();
    this.#cacheDirectory(id, directory);
    this.#to.putImage(relDirectoryKey(spcOid, dbOid), encodeRelDirectory(directory));
  }

  async putRelmapFile(spcOid: number, dbOid: number, bytes: Uint8Array): Promise<void> {
    await this.ensureDatabase(spcOid, dbOid, true);
    this.#to.putImage(relmapFileKey(spcOid, dbOid), bytes);
  }

  /** Current blocks of the fork; NO_RELATION when it does not exist. */
  async size(rel: RelTag): Promise<number> {
    const cached = this.#to.datadir.sizes.latest(rel);
    if (cached !== undefined) return cached;
    const blocks = await this.#loadSize(rel);
    this.#to.datadir.sizes.setByRead(rel, this.#to.datadir.store.lastRecordLsn, blocks);
    return blocks;
  }

  async #loadSize(rel: RelTag): Promise<number> {
    if (!(await this.#loadDatabases()).has(databaseId(rel.spcOid, rel.dbOid))) return NO_RELATION;
    const forks = (await this.#loadDirectory(rel.spcOid, rel.dbOid)).get(rel.relNumber) ?? 0;
    if ((forks & (1 << rel.fork)) === 0) return NO_RELATION;
    return decodeBlockCount(await this.#to.get(relSizeKey(rel)));
  }

  /** Creates the fork with `blocks` blocks (whose pages are up to the caller); an existing one stays as it is. */
  async create(rel: RelTag, blocks = 0): Promise<void> {
    if ((await this.size(rel)) !== NO_RELATION) return;
    await this.ensureDatabase(rel.spcOid, rel.dbOid, false);
    const directory = await this.#loadDirectory(rel.spcOid, rel.dbOid);
    directory.set(rel.relNumber, (directory.get(rel.relNumber) ?? 0) | (1 << rel.fork));
    this.#to.putImage(relDirectoryKey(rel.spcOid, rel.dbOid), encodeRelDirectory(directory));
    this.#to.datadir.noteDirectory(databaseId(rel.spcOid, rel.dbOid), directory.size);
    this.#putSize(rel, 0, blocks);
  }

  #putSize(rel: RelTag, oldBlocks: number, blocks: number): void {
    this.#to.putImage(relSizeKey(rel), encodeBlockCount(blocks));
    this.#to.datadir.sizes.setByIngest(rel, this.#to.lsn, blocks);
    this.#to.addBlocks(blocks - oldBlocks);
  }

  /** Cuts the fork to `blocks`; a missing or shorter one stays as it is. */
  async truncate(rel: RelTag, blocks: number): Promise<void> {
    const old = await this.size(rel);
    if (old > blocks) this.#putSize(rel, old, blocks);
  }

  /**
   * Makes the fork (created if missing) at least `blocks` long and returns the size it had. New blocks become zero
   * pages on the shard that holds them, except those in `written`, which the record itself writes.
   */
  async extend(rel: RelTag, blocks: number, written: (block: number) => boolean): Promise<number> {
    let old = await this.size(rel);
    if (old === NO_RELATION) {
      await this.create(rel);
      old = 0;
    }
    if (old >= blocks) return old;
    this.#putSize(rel, old, blocks);
    if (blocks - old - 1 > MAX_GAP_BLOCKS) {
      throw new StrataError("corrupt", "relation-gap", `${relTagToString(rel)} of ${old} blocks would grow to ${blocks} at once`);
    }
    for (let block = old; block < blocks; block++) {
      const key = relBlockKey(rel, block);
      if (written(block) || !isKeyLocal(key, this.#to.datadir.shard)) continue;
      this.#to.putImage(key, ZERO_PAGE);
      const { ingestCounts } = this.#to.datadir;
      if (ingestCounts !== null) ingestCounts.gapBlocks++;
      await this.#to.relieve();
    }
    return old;
  }

  /** A fork whose size is known grows by its next block, which the record writes whole. */
  extendByOne(rel: RelTag, block: number): void {
    this.#putSize(rel, block, block + 1);
  }

  /** A page of a block that exists. */
  putPage(rel: RelTag, block: number, value: Value): void {
    this.#to.put(relBlockKey(rel, block), value);
  }

  /** Drops the given forks of relations of one database; missing ones are no error. */
  async drop(spcOid: number, dbOid: number, forks: readonly RelTag[]): Promise<void> {
    if (!(await this.#loadDatabases()).has(databaseId(spcOid, dbOid))) return;
    const directory = await this.#loadDirectory(spcOid, dbOid);
    let changed = false;
    for (const rel of forks) {
      const existing = directory.get(rel.relNumber) ?? 0;
      if ((existing & (1 << rel.fork)) === 0) continue;
      this.#to.addBlocks(-(await this.size(rel)));
      const left = existing & ~(1 << rel.fork);
      if (left === 0) directory.delete(rel.relNumber);
      else directory.set(rel.relNumber, left);
      this.#to.datadir.sizes.setByIngest(rel, this.#to.lsn, NO_RELATION);
      changed = true;
    }
    if (!changed) return;
    this.#to.putImage(relDirectoryKey(spcOid, dbOid), encodeRelDirectory(directory));
    this.#to.datadir.noteDirectory(databaseId(spcOid, dbOid), directory.size);
  }

  /** Drops a database's directory in one tablespace, with all its relations. */
  async dropDatabase(spcOid: number, dbOid: number): Promise<void> {
    const databases = await this.#loadDatabases();
    if (!databases.has(databaseId(spcOid, dbOid))) return;
    const directory = await this.#loadDirectory(spcOid, dbOid);
    for (const [relNumber, forks] of directory) {
      for (let fork = 0; fork < 8; fork++) {
        if ((forks & (1 << fork)) !== 0) await this.#forget({ spcOid, dbOid, relNumber, fork });
      }
    }
    databases.delete(databaseId(spcOid, dbOid));
    this.#directories.delete(databaseId(spcOid, dbOid));
    this.#putDatabases(databases);
  }

  /** Remembers a tablespace that holds nothing yet, as a directory of the database 0. */
  async createTablespace(spcOid: number): Promise<void> {
    await this.ensureDatabase(spcOid, TABLESPACE_MARK_DB_OID, false);
  }

  /** Drops what is left of a tablespace: its mark, and directories of databases that had relations in it. */
  async dropTablespace(spcOid: number): Promise<void> {
    const inTablespace = [...(await this.#loadDatabases()).values()].filter((database) => database.spcOid === spcOid);
    for (const { dbOid } of inTablespace) await this.dropDatabase(spcOid, dbOid);
  }

  async #forget(rel: RelTag): Promise<void> {
    try {
      this.#to.addBlocks(-(await this.size(rel)));
    } catch (error) {
      // The size only feeds a statistic; a database must be droppable without it.
      if (!isStrataError(error, "missing-key")) throw error;
    }
    this.#to.datadir.sizes.setByIngest(rel, this.#to.lsn, NO_RELATION);
  }
}
