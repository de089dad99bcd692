/** The log of a stock server, by position: what is durable in pg_wal, in pieces as a sender would send them. */
import { closeSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { type Lsn, parseLsn } from "../../../src/kit/lsn.ts";
import { inspectDatadir, walFileName } from "../../../src/pageserver/import/import-datadir.ts";
import { RealFiles } from "../../../src/platform/real/files.ts";
import type { StockPostgres } from "../../support/stock-postgres.ts";

const SEGMENT_SIZE = 16 * 1024 * 1024;
const PIECE_BYTES = 128 * 1024;

export class WalSource {
  readonly server: StockPostgres;
  /** Everything below is in the files. */
  end: Lsn;

  constructor(server: StockPostgres, start: Lsn) {
    this.server = server;
    this.end = start;
  }

  /** Of a running server. */
  async refresh(): Promise<void> {
    const [row] = await this.server.sql()`SELECT pg_current_wal_flush_lsn()::text AS lsn`;
    this.end = parseLsn(String(row?.lsn));
  }

  /** Of a server that was shut down: the end of the last record, and of the log. */
  async finish(): Promise<Lsn> {
    this.end = (await inspectDatadir(new RealFiles(), this.server.dataDirectory)).endLsn;
    return this.end;
  }

  /** The next bytes from `position`; empty when there are none yet. */
  read(position: Lsn): Uint8Array {
    const within = position % SEGMENT_SIZE;
    const size = Math.min(PIECE_BYTES, SEGMENT_SIZE - within, this.end - position);
    if (size <= 0) return new Uint8Array(0);
    const file = openSync(join(this.server.dataDirectory, "pg_wal", walFileName(position, SEGMENT_SIZE)), "r");
    try {
      const bytes = new Uint8Array(size);
      let got = 0;
      while (got < size) {
        const count = readSync(file, bytes, got, size - got, within + got);
        if (count === 0) throw new Error(`the segment ends at ${within + got}`);
        got += count;
      }
      return bytes;
    } finally {
      closeSync(file);
    }
  }
}
