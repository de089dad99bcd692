/**
 * Compares a data directory fetched from the pageserver with one that PostgreSQL itself shut down at the same LSN: every
 * page of the main, vm and init forks of permanent relations, relation sizes, SLRU segments, relation maps, two-phase files.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { pageIsNew } from "../../../src/postgres/page/page-layout.ts";
import { verifyPageChecksum } from "../../../src/postgres/page/checksum.ts";
import { maskPage } from "../../../src/postgres/redo/masking/masking.ts";
import { RMGR } from "../../../src/postgres/wal/constants.ts";
import type { RelationManagers } from "./catalog.ts";

export const ALLOWED_DIFFERENCES = [
  "what PostgreSQL's own consistency check masks: page LSN and checksum, hint bits, unused space, garbage flags of index pages",
  "free-space maps are left out",
  "trailing pages that were never logged: all zero, or visibility-map pages without a bit set",
  "a sequence may be ahead by what it logs ahead (32 values)",
  "visibility-map bits of a database made with STRATEGY wal_log may be clear: PostgreSQL logs those map pages as if they were standard pages, with the bits in the hole (a standby has them clear as well)",
  "an SP-GiST metapage's cache of last used pages, which PostgreSQL does not log",
  "relations without a catalog entry (files of dropped relations not yet unlinked) are left out",
];

export interface DirectoryComparison {
  compared: number;
  checksums: number;
  readonly differences: string[];
}

const PAGE = 8192;
const PAGE_HEADER = 24;
const FORKS = { main: 0, vm: 2, init: 3 } as const;
const RELATION_FILE = /^(\d+)(?:_(vm|init|fsm))?(?:\.(\d+))?$/;
const SEQUENCE_AHEAD_MAX = 33n;

interface Fork {
  readonly relation: string;
  readonly fork: keyof typeof FORKS;
  readonly segments: string[];
}

function forksIn(directory: string): Map<string, Fork> {
  const forks = new Map<string, Fork>();
  const names = readdirSync(directory).filter((name) => RELATION_FILE.test(name));
  for (const name of names.sort((a, b) => Number(RELATION_FILE.exec(a)?.[3] ?? 0) - Number(RELATION_FILE.exec(b)?.[3] ?? 0))) {
    const [, relation, suffix] = RELATION_FILE.exec(name) as unknown as [string, string, string | undefined];
    if (suffix === "fsm") continue;
    const key = `${relation}_${suffix ?? "main"}`;
    const fork = forks.get(key) ?? { relation, fork: (suffix ?? "main") as keyof typeof FORKS, segments: [] };
    fork.segments.push(join(directory, name));
    forks.set(key, fork);
  }
  return forks;
}

function contents(fork: Fork | undefined): Buffer {
  return Buffer.concat((fork?.segments ?? []).map((path) => readFileSync(path)));
}

/** Pages made by extending a file; the visibility map's get an empty page header at once. */
function neverLogged(pages: Uint8Array, fork: Fork["fork"]): boolean {
  return pages.every((byte, at) => byte === 0 || (fork === "vm" && at % PAGE < 24));
}

interface SequenceTuple {
  readonly lastValue: bigint;
  readonly tupleStart: number;
}

function sequenceTuple(page: Buffer): SequenceTuple {
  const item = page.readUInt32LE(24);
  const tupleStart = item & 0x7fff;
  const dataStart = tupleStart + page.readUInt8(tupleStart + 22);
  return { lastValue: page.readBigInt64LE(dataStart), tupleStart };
}

function equalSequences(ours: Buffer, theirs: Buffer): boolean {
  const [a, b] = [sequenceTuple(ours), sequenceTuple(theirs)];
  const ahead = a.lastValue - b.lastValue;
  return a.tupleStart === b.tupleStart && ahead >= 0n && ahead <= SEQUENCE_AHEAD_MAX;
}

/** Every bit set here is set there. */
function isSubset(ours: Buffer, theirs: Buffer): boolean {
  return ours.subarray(PAGE_HEADER).every((byte, at) => (byte & ~(theirs[PAGE_HEADER + at] ?? 0)) === 0);
}

/** Magic number of the metapage; the cache follows. */
function equalSpgistMetapages(ours: Buffer, theirs: Buffer): boolean {
  return ours.subarray(PAGE_HEADER, PAGE_HEADER + 4).equals(theirs.subarray(PAGE_HEADER, PAGE_HEADER + 4));
}

interface PagePlace {
  readonly manager: number;
  readonly fork: number;
  readonly blockNumber: number;
  /** The database was made with STRATEGY wal_log. */
  readonly walLogged: boolean;
}

function equalPages(ours: Buffer, theirs: Buffer, place: PagePlace): boolean {
  if (ours.equals(theirs)) return true;
  if (place.manager === RMGR.SEQ) return equalSequences(ours, theirs);
  if (place.manager === RMGR.SPGIST && place.fork === FORKS.main && place.blockNumber === 0) return equalSpgistMetapages(ours, theirs);
  if (place.walLogged && place.fork === FORKS.vm) return isSubset(ours, theirs);
  const [a, b] = [Buffer.from(ours), Buffer.from(theirs)];
  maskPage(a, place.fork === FORKS.main ? place.manager : RMGR.HEAP, place);
  maskPage(b, place.fork === FORKS.main ? place.manager : RMGR.HEAP, place);
  return a.equals(b);
}

export class DirectoryComparer {
  readonly result: DirectoryComparison = { compared: 0, checksums: 0, differences: [] };
  readonly #ours: string;
  readonly #theirs: string;
  readonly #managers: RelationManagers;
  readonly #checksums: boolean;
  readonly #walLogged: number | null;

  /** @param options.walLogged oid of the database made with STRATEGY wal_log */
  constructor(options: { ours: string; theirs: string; managers: RelationManagers; checksums: boolean; walLogged: number | null }) {
    this.#walLogged = options.walLogged;
    this.#ours = options.ours;
    this.#theirs = options.theirs;
    this.#managers = options.managers;
    this.#checksums = options.checksums;
  }

  compare(): DirectoryComparison {
    this.#compareDatabase("global", 0);
    const [ours, theirs] = [this.#ours, this.#theirs].map((root) => readdirSync(join(root, "base")).filter((name) => /^\d+$/.test(name)).sort());
    this.#same("databases", ours?.join(), theirs?.join());
    for (const name of theirs ?? []) if (ours?.includes(name) === true) this.#compareDatabase(join("base", name), Number(name));
    this.#compareTablespaces();
    for (const slru of ["pg_xact", "pg_multixact/offsets", "pg_multixact/members", "pg_commit_ts"]) this.#compareFiles(slru, /^[0-9A-F]+$/);
    this.#compareFiles("pg_twophase", /^[0-9A-F]+$/);
    return this.result;
  }

  #compareTablespaces(): void {
    const directories = (root: string): string[] => readdirSync(join(root, "pg_tblspc"), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isDirectory()).map((entry) => relative(root, join(entry.parentPath, entry.name))).sort();
    const [ours, theirs] = [directories(this.#ours), directories(this.#theirs)];
    const notEmpty = (root: string, paths: string[]): string => paths.filter((path) => path.split("/").length < 4 || readdirSync(join(root, path)).length > 0).join();
    this.#same("tablespaces", notEmpty(this.#ours, ours), notEmpty(this.#theirs, theirs));
    for (const path of theirs) {
      const database = /^pg_tblspc\/\d+\/[^/]+\/(\d+)$/.exec(path)?.[1];
      if (database !== undefined && ours.includes(path)) this.#compareDatabase(path, Number(database));
    }
  }

  #same(what: string, ours: unknown, theirs: unknown): void {
    if (ours !== theirs) this.result.differences.push(`${what}: ${String(ours)}, not ${String(theirs)}`);
  }

  #compareDatabase(directory: string, database: number): void {
    this.#compareFiles(directory, /^pg_filenode\.map$/);
    const ours = forksIn(join(this.#ours, directory));
    const theirs = forksIn(join(this.#theirs, directory));
    const unlogged = new Set([...theirs.values()].filter((fork) => fork.fork === "init").map((fork) => fork.relation));
    for (const [key, fork] of theirs) {
      const manager = this.#managers.get(`${database}/${fork.relation}`);
      if (manager === undefined || (unlogged.has(fork.relation) && fork.fork !== "init")) continue;
      this.#compareFork({ name: `${directory}/${key}`, fork, manager, walLogged: database === this.#walLogged, ours: contents(ours.get(key)), theirs: contents(fork) });
    }
    for (const [key, fork] of ours) {
      if (!theirs.has(key) && !unlogged.has(fork.relation) && !neverLogged(contents(fork), fork.fork)) this.result.differences.push(`${directory}/${key} should not exist`);
    }
  }

  #compareFork(one: { name: string; fork: Fork; manager: number; walLogged: boolean; ours: Buffer; theirs: Buffer }): void {
    const { name, fork, ours, theirs } = one;
    if (ours.length > theirs.length) this.result.differences.push(`${name} has ${ours.length / PAGE} pages, not ${theirs.length / PAGE}`);
    for (let at = 0; at < theirs.length; at += PAGE) {
      const expected = theirs.subarray(at, at + PAGE);
      this.result.compared++;
      if (at >= ours.length) {
        if (!neverLogged(expected, fork.fork)) this.result.differences.push(`${name} page ${at / PAGE} is missing`);
        continue;
      }
      const page = ours.subarray(at, at + PAGE);
      if (!equalPages(page, expected, { manager: one.manager, fork: FORKS[fork.fork], blockNumber: at / PAGE, walLogged: one.walLogged })) this.result.differences.push(`${name} page ${at / PAGE} differs`);
      if (this.#checksums) this.#checkChecksum(page, name, at / PAGE);
    }
  }

  #checkChecksum(page: Buffer, name: string, block: number): void {
    if (pageIsNew(new DataView(page.buffer, page.byteOffset, page.length))) return;
    this.result.checksums++;
    if (!verifyPageChecksum(page, block)) this.result.differences.push(`${name} page ${block} has a wrong checksum`);
  }

  /** Files that must be there on both sides, byte for byte. */
  #compareFiles(directory: string, pattern: RegExp): void {
    const names = (root: string): string[] => (existsSync(join(root, directory)) ? readdirSync(join(root, directory)).filter((name) => pattern.test(name)).sort() : []);
    const [ours, theirs] = [names(this.#ours), names(this.#theirs)];
    this.#same(`files of ${directory}`, ours.join(), theirs.join());
    for (const name of theirs.filter((one) => ours.includes(one))) {
      const [a, b] = [readFileSync(join(this.#ours, directory, name)), readFileSync(join(this.#theirs, directory, name))];
      this.result.compared += Math.max(1, b.length / PAGE);
      if (!a.equals(b)) this.result.differences.push(`${directory}/${name} differs (${a.length} and ${b.length} bytes)`);
    }
  }
}
