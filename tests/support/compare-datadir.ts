/**
 * Compares a timeline at an LSN with a data directory that PostgreSQL shut down at that LSN: every page of main, vm
 * and init forks of permanent relations, relation sizes, relation maps, SLRU segments and state files of prepared
 * transactions. What may differ is what PostgreSQL's own consistency check masks, and the rules named in `ALLOWED`.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { FSM_FORK, INIT_FORK, MAIN_FORK, PAGE_SIZE, relTagToString, type RelTag, SLRU_KINDS, slruDirectory, slruSegmentName, VM_FORK } from "../../src/keyspace/relation.ts";
import type { DatadirReader } from "../../src/pageserver/datadir/datadir-reader.ts";
import { relationForks } from "../../src/pageserver/import/import-datadir.ts";
import { maskPage } from "../../src/postgres/redo/masking/masking.ts";
import { RMGR } from "../../src/postgres/wal/constants.ts";

export const ALLOWED = [
  "free-space maps are left out",
  "trailing pages that were never logged: all zero, or visibility-map pages without a bit set",
  "a sequence is ahead by what it logged ahead",
  "the last-used-page cache on an SP-GiST metapage, which is never logged",
  "what PostgreSQL masks when it checks redo: hint bits, holes, garbage flags",
];

export interface Comparison {
  pages: number;
  slruPages: number;
  differences: string[];
}

/** Managers whose masks a page may be equal under, when the log does not tell which one it belongs to. */
const MASKS = [RMGR.HEAP, RMGR.BTREE, RMGR.HASH, RMGR.GIN, RMGR.GIST, RMGR.SPGIST, RMGR.BRIN];

function equalMasked(ours: Uint8Array, theirs: Uint8Array, place: { fork: number; blockNumber: number }): boolean {
  if (Buffer.compare(ours, theirs) === 0) return true;
  for (const rmid of MASKS) {
    // Copies: a Buffer's slice would be a view.
    const [a, b] = [new Uint8Array(ours), new Uint8Array(theirs)];
    try {
      maskPage(a, rmid, place);
      maskPage(b, rmid, place);
    } catch {
      continue;
    }
    if (Buffer.compare(a, b) === 0) return true;
  }
  return (isSequence(ours) && isSequence(theirs)) || (isSpgistMeta(ours) && isSpgistMeta(theirs));
}

/** Unmasked: the places of the first differing runs, ours and theirs. */
function describeDifference(ours: Uint8Array, theirs: Uint8Array): string {
  const runs: string[] = [];
  for (let at = 0; at < PAGE_SIZE && runs.length < 6; at++) {
    if (ours[at] === theirs[at]) continue;
    const end = Math.min(at + 8, PAGE_SIZE);
    runs.push(`${at}: ${Buffer.from(ours.subarray(at, end)).toString("hex")} ${Buffer.from(theirs.subarray(at, end)).toString("hex")}`);
    at = end;
  }
  return runs.join(", ");
}

function isSequence(page: Uint8Array): boolean {
  const view = new DataView(page.buffer, page.byteOffset, page.length);
  return view.getUint16(16, true) === PAGE_SIZE - 8 && view.getUint32(PAGE_SIZE - 8, true) === 0x1717;
}

function isSpgistMeta(page: Uint8Array): boolean {
  const view = new DataView(page.buffer, page.byteOffset, page.length);
  return view.getUint16(PAGE_SIZE - 2, true) === 0xff82 && (view.getUint16(PAGE_SIZE - 8, true) & 1) !== 0;
}

/** Pages made by extending a file; the visibility map's get an empty page header at once. */
function neverLogged(pages: Uint8Array, fork: number): boolean {
  return pages.every((byte, at) => byte === 0 || (fork === VM_FORK && at % PAGE_SIZE < 24));
}

async function compareFork(result: Comparison, reader: DatadirReader, fork: { rel: RelTag; segments: string[]; directory: string }): Promise<void> {
  const { rel, directory } = fork;
  const theirs = Buffer.concat(fork.segments.map((name) => readFileSync(join(directory, name))));
  const theirBlocks = theirs.length / PAGE_SIZE;
  if (!(await reader.relExists(rel))) {
    if (!neverLogged(theirs, rel.fork)) result.differences.push(`${relTagToString(rel)} is missing`);
    return;
  }
  const ourBlocks = await reader.relSize(rel);
  if (ourBlocks > theirBlocks) result.differences.push(`${relTagToString(rel)} has ${ourBlocks} blocks, not ${theirBlocks}`);
  const pages = await reader.relPages(Array.from({ length: theirBlocks }, (_, block) => ({ rel, block })));
  pages.forEach((page, block) => {
    result.pages++;
    const expected = theirs.subarray(block * PAGE_SIZE, (block + 1) * PAGE_SIZE);
    if (page instanceof Error) result.differences.push(`${relTagToString(rel)} block ${block}: ${page.message}`);
    else if (block >= ourBlocks && !neverLogged(expected, rel.fork)) result.differences.push(`${relTagToString(rel)} block ${block} is past our end of ${ourBlocks}`);
    else if (block < ourBlocks && !equalMasked(page, expected, { fork: rel.fork, blockNumber: block })) result.differences.push(`${relTagToString(rel)} block ${block} differs: ${describeDifference(page, expected)}`);
  });
}

async function compareDatabase(result: Comparison, reader: DatadirReader, database: { spcOid: number; dbOid: number; directory: string }): Promise<void> {
  const { spcOid, dbOid, directory } = database;
  const names = readdirSync(directory);
  const map = join(directory, "pg_filenode.map");
  if (existsSync(map) && Buffer.compare(await reader.relmapFile(spcOid, dbOid), readFileSync(map)) !== 0) result.differences.push(`relation map of ${dbOid} differs`);
  const onDisk = new Set<string>();
  const unlogged = new Set(relationForks(names, spcOid, dbOid).filter(({ rel }) => rel.fork === INIT_FORK).map(({ rel }) => rel.relNumber));
  for (const fork of relationForks(names, spcOid, dbOid)) {
    onDisk.add(relTagToString(fork.rel));
    if (fork.rel.fork === FSM_FORK || (unlogged.has(fork.rel.relNumber) && fork.rel.fork !== INIT_FORK)) continue;
    await compareFork(result, reader, { ...fork, directory });
  }
  for (const rel of await reader.listRels(spcOid, dbOid)) {
    if (rel.fork === MAIN_FORK && !onDisk.has(relTagToString(rel))) result.differences.push(`${relTagToString(rel)} should not exist`);
  }
}

async function compareSlrus(result: Comparison, reader: DatadirReader, dataDirectory: string): Promise<void> {
  for (const kind of SLRU_KINDS) {
    const names = readdirSync(join(dataDirectory, slruDirectory(kind))).sort();
    const ours = (await reader.listSlruSegments(kind)).map(slruSegmentName);
    if (names.join() !== ours.join()) result.differences.push(`${kind} has segments ${ours.join()}, not ${names.join()}`);
    for (const name of names.filter((n) => ours.includes(n))) {
      const theirs = readFileSync(join(dataDirectory, slruDirectory(kind), name));
      const bytes = await reader.slruSegment(kind, Number.parseInt(name, 16));
      result.slruPages += theirs.length / PAGE_SIZE;
      if (Buffer.compare(bytes, theirs) !== 0) result.differences.push(`${kind} segment ${name} differs: ${bytes.length} and ${theirs.length} bytes, first at ${firstDifference(bytes, theirs)}`);
    }
  }
}

function firstDifference(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let at = 0; at < length; at++) if (a[at] !== b[at]) return at;
  return length;
}

export async function compareDatadir(reader: DatadirReader, dataDirectory: string): Promise<Comparison> {
  const result: Comparison = { pages: 0, slruPages: 0, differences: [] };
  await compareDatabase(result, reader, { spcOid: 1664, dbOid: 0, directory: join(dataDirectory, "global") });
  const databases = readdirSync(join(dataDirectory, "base")).filter((name) => /^\d+$/.test(name)).map(Number);
  for (const dbOid of databases) await compareDatabase(result, reader, { spcOid: 1663, dbOid, directory: join(dataDirectory, "base", String(dbOid)) });
  const ours = [...(await reader.listDatabases()).values()].filter((d) => d.spcOid === 1663).map((d) => d.dbOid);
  for (const dbOid of ours) if (!databases.includes(dbOid)) result.differences.push(`database ${dbOid} should not exist`);
  await compareSlrus(result, reader, dataDirectory);
  const twoPhase = readdirSync(join(dataDirectory, "pg_twophase")).map((name) => BigInt(`0x${name}`));
  const ourTwoPhase = await reader.listTwoPhaseXids();
  if (twoPhase.sort().join() !== ourTwoPhase.join()) result.differences.push(`prepared transactions ${ourTwoPhase.join()}, not ${twoPhase.join()}`);
  return result;
}
