/**
 * Storage for tests of the compute alone: safekeepers made of the shipping acceptor over memory, and a pageserver that gives
 * out a data directory it is shown. Both speak the real protocol over real sockets.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { StrataError } from "../../src/kit/errors.ts";
import { utf8 } from "../../src/kit/bytes.ts";
import { type Lsn, lsnToString, parseLsn } from "../../src/kit/lsn.ts";
import type { Logger } from "../../src/observability/log.ts";
import type { Listener } from "../../src/platform/network.ts";
import type { Platform } from "../../src/platform/platform.ts";
import { decodeControlFile, encodeControlFile } from "../../src/postgres/control-file/control-file.ts";
import { decodeProposerMessage, encodeAcceptorMessage } from "../../src/safekeeper/api/proposer-protocol.ts";
import type { CopyStream, PgHandler, PgSession } from "../../src/wire/pg-session.ts";
import { encodeWalDataHeader } from "../../src/wire/replication-messages.ts";
import { servePg } from "../../src/wire/serve.ts";
import { MemoryAcceptor } from "./proposer/memory-acceptor.ts";

abstract class Server implements PgHandler {
  readonly #platform: Platform;
  readonly #log: Logger;
  #listener: Listener | null = null;
  #stop = new AbortController();
  #served: Promise<void>[] = [];
  port = 0;

  constructor(platform: Platform, log: Logger) {
    this.#platform = platform;
    this.#log = log;
  }

  async start(): Promise<this> {
    this.#stop = new AbortController();
    const options = { auth: null, log: this.#log, platform: this.#platform, signal: this.#stop.signal };
    this.#listener = await this.#platform.network.listen({ host: "127.0.0.1", port: this.port }, (connection) => {
      this.#served.push(servePg(connection, this, options));
    });
    this.port = this.#listener.port;
    return this;
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#listener?.close();
    await Promise.all(this.#served);
    this.#served = [];
  }

  get address(): { host: string; port: number } {
    return { host: "127.0.0.1", port: this.port };
  }

  async connected(): Promise<void> {}
  disconnected(): void {}
  abstract query(session: PgSession, sql: string): Promise<void>;
}

export class FakeSafekeeper extends Server {
  readonly acceptor: MemoryAcceptor;

  constructor(platform: Platform, log: Logger, options: { nodeId: number; major: number }) {
    super(platform, log);
    this.acceptor = new MemoryAcceptor(options.nodeId, 0, options.major * 10_000);
  }

  async query(session: PgSession, sql: string): Promise<void> {
    const { acceptor, log } = this.acceptor;
    if (sql === "TIMELINE_STATUS") {
      const row = [lsnToString(acceptor.flushLsn), lsnToString(acceptor.volatile.commitLsn)];
      session.sendResult([{ name: "flush_lsn" }, { name: "commit_lsn" }], [row], "TIMELINE_STATUS");
    } else if (sql.startsWith("START_WAL_PUSH")) {
      const copy = session.copyBoth();
      for (let data = await copy.read(); data !== null; data = await copy.read()) {
        const answer = this.acceptor.receive(decodeProposerMessage(data.slice(), 3));
        if (answer !== null) copy.write(encodeAcceptorMessage(answer, 3));
      }
    } else {
      const match = /^START_REPLICATION PHYSICAL (\S+) \(term='(\d+)'\)$/.exec(sql);
      if (match === null || Number(match[2]) !== acceptor.persisted.term) throw new StrataError("fix-input", "syntax-error", sql);
      await sendLog(session.copyBoth(), parseLsn(match[1]), log);
    }
  }
}

async function sendLog(copy: CopyStream, from: Lsn, log: MemoryAcceptor["log"]): Promise<void> {
  for (let lsn = from; lsn < log.flushed; ) {
    const data = log.read(lsn, 65_536);
    copy.write(encodeWalDataHeader({ startLsn: lsn, endLsn: log.flushed, timestamp: 0n }), data);
    lsn += data.length;
    await copy.drained();
  }
  while ((await copy.read()) !== null) continue;
}

/** Gives out `directory` as the timeline at `lsn`. */
export class FakePageserver extends Server {
  directory: string;
  lsn: Lsn;
  queries: string[] = [];
  tenantId = "11".repeat(16);
  timelineId = "22".repeat(16);
  /** Runs once, when the next backup was given out. */
  afterBackup: (() => Promise<void>) | null = null;

  constructor(platform: Platform, log: Logger, content: { directory: string; lsn: Lsn }) {
    super(platform, log);
    this.directory = content.directory;
    this.lsn = content.lsn;
  }

  async query(session: PgSession, sql: string): Promise<void> {
    this.queries.push(sql);
    const match = /^fullbasebackup \w+ \w+( [\dA-F]+\/[\dA-F]+)?( --gzip)?$/.exec(sql);
    if (match === null) throw new StrataError("fix-input", "syntax-error", sql);
    const lsn = match[1] === undefined ? this.lsn : parseLsn(match[1].trim());
    if (lsn !== this.lsn) throw new StrataError("not-found", "no-such-lsn", `only ${lsnToString(this.lsn)} is here, not ${lsnToString(lsn)}`);
    const tar = await tarOf(this.directory, lsn);
    const archive = match[2] === undefined ? tar : gzipSync(tar, { level: 1 });
    const copy = session.copyOut();
    for (let at = 0; at < archive.length; at += 100_000) {
      copy.write(archive.subarray(at, at + 100_000));
      await copy.drained();
    }
    const after = this.afterBackup;
    this.afterBackup = null;
    await after?.();
  }
}

/** Where the log of a cleanly stopped data directory ends: behind its shutdown checkpoint. */
export async function endOfLog(directory: string): Promise<Lsn> {
  const control = decodeControlFile(await readFile(join(directory, "global/pg_control")));
  if (control.state !== "shut-down") throw new Error(`${directory} was not shut down cleanly`);
  const end = control.checkpointLsn + 120;
  if (end % 8192 < 120) throw new Error("the shutdown checkpoint crosses a page: pick another data set");
  return end;
}

const LEFT_OUT = /^(pg_wal\/|postmaster|postgresql\.auto|pg_stat|pg_replslot\/|pg_notify\/|.*_fsm$)/;

async function tarOf(directory: string, lsn: Lsn): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    const name = join(entry.parentPath, entry.name).slice(directory.length + 1);
    if (!entry.isFile() || LEFT_OUT.test(name)) continue;
    let content: Uint8Array = await readFile(join(directory, name));
    if (name === "global/pg_control") {
      const control = decodeControlFile(content);
      content = encodeControlFile({ ...control, checkpointLsn: 0, checkpoint: { ...control.checkpoint, redo: lsn } });
    }
    parts.push(tarHeader(name, content.length), content, new Uint8Array((512 - (content.length % 512)) % 512));
  }
  const signal = utf8(`PREV LSN: ${lsnToString(lsn - 120)}`);
  parts.push(tarHeader("neon.signal", signal.length), signal, new Uint8Array(512 - signal.length), new Uint8Array(1024));
  return Buffer.concat(parts);
}

export function tarHeader(name: string, sizeBytes: number, type = "0"): Uint8Array {
  const header = new Uint8Array(512);
  const put = (at: number, text: string): void => header.set(utf8(text), at);
  put(0, name);
  put(100, "0000600\0");
  put(124, `${sizeBytes.toString(8).padStart(11, "0")}\0`);
  put(148, "        ");
  put(156, type);
  put(257, "ustar\0" + "00");
  put(148, `${header.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, "0")}\0 `);
  return header;
}
