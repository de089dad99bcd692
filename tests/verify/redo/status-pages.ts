/**
 * Transaction status, commit timestamps and multixacts as the log says, beside the files of the server that wrote it.
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { decodeEffect } from "../../../src/postgres/effects/effect.ts";
import { SLRU_PAGES_PER_SEGMENT, SLRU_PAGE_SIZE, parseSlruSegmentName } from "../../../src/postgres/slru/segments.ts";
import { RMGR } from "../../../src/postgres/wal/constants.ts";
import type { WalRecord } from "../../../src/postgres/wal/record.ts";
import { type SlruPages, SlruReplay } from "../../support/slru-replay.ts";
import type { StockPostgres } from "../../support/stock-postgres.ts";

export interface StatusComparison {
  /** Pages compared, by the directory they are in. */
  readonly pages: Readonly<Record<string, number>>;
  readonly changes: number;
  readonly differences: readonly string[];
}

const KINDS = [["clog", "pg_xact"], ["commitTs", "pg_commit_ts"], ["offsets", "pg_multixact/offsets"], ["members", "pg_multixact/members"]] as const;
const STATUS_MANAGERS: ReadonlySet<number> = new Set([RMGR.XACT, RMGR.CLOG, RMGR.COMMIT_TS, RMGR.MULTIXACT]);

function readPages(server: StockPostgres, directory: string): Map<number, Uint8Array> {
  const pages = new Map<number, Uint8Array>();
  const whole = join(server.dataDirectory, directory);
  for (const name of existsSync(whole) ? readdirSync(whole) : []) {
    const segment = parseSlruSegmentName(name);
    if (segment === null) continue;
    const bytes = server.readDataFile(join(directory, name));
    for (let at = 0; at < bytes.length; at += SLRU_PAGE_SIZE) {
      pages.set(segment * SLRU_PAGES_PER_SEGMENT + at / SLRU_PAGE_SIZE, bytes.slice(at, at + SLRU_PAGE_SIZE));
    }
  }
  return pages;
}

function readAll(server: StockPostgres): SlruPages {
  const [clog, commitTs, offsets, members] = KINDS.map(([, directory]) => readPages(server, directory));
  return { clog, commitTs, offsets, members };
}

/** Begins with the files as they are right after a checkpoint with nothing going on. */
export class StatusPages {
  readonly #server: StockPostgres;
  readonly #ours: SlruPages;
  readonly #replay: SlruReplay;
  #changes = 0;

  constructor(server: StockPostgres) {
    this.#server = server;
    this.#ours = readAll(server);
    this.#replay = new SlruReplay(this.#ours);
  }

  apply(record: WalRecord): void {
    if (!STATUS_MANAGERS.has(record.rmid)) return;
    const effect = decodeEffect(record);
    if (effect === null) return;
    this.#replay.apply(effect);
    this.#changes++;
  }

  /** After a checkpoint with nothing going on, and with all its log applied: whole pages, nothing masked. */
  compare(): StatusComparison {
    const theirs = readAll(this.#server);
    const pages: Record<string, number> = {};
    const differences: string[] = [];
    for (const [kind, directory] of KINDS) {
      pages[directory] = theirs[kind].size;
      for (const number of new Set([...this.#ours[kind].keys(), ...theirs[kind].keys()])) {
        const what = difference(this.#ours[kind].get(number), theirs[kind].get(number));
        if (what !== null) differences.push(`${directory} page ${number}: ${what}`);
      }
    }
    return { pages, changes: this.#changes, differences };
  }
}

function difference(ours: Uint8Array | undefined, theirs: Uint8Array | undefined): string | null {
  if (ours === undefined) return "only the server has it";
  if (theirs === undefined) return "the server does not have it";
  const at = theirs.findIndex((byte, index) => byte !== ours[index]);
  return at < 0 ? null : `byte ${at} is ${ours[at]}, the server's ${theirs[at]}`;
}
