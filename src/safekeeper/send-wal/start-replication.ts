/**
 * A reader's connection: raw WAL from a position on, as PostgreSQL's walsender sends it, and what the reader says back.
 * Good for a stock standby, pg_receivewal and the pageserver.
 *
 * Readers get what is committed. Only one that names the current term gets the whole log, committed or not: the proposer
 * of that term, or a peer that recovers, both of which know what to do with it.
 *
 * Source: PostgreSQL src/backend/replication/walsender.c (XLogSendPhysical); the peer safekeeper/src/send_wal.rs.
 */
import { Cancelled, StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { Logger } from "../../observability/log.ts";
import type { Clock } from "../../platform/clock.ts";
import { WAL_PAGE_SIZE } from "../../postgres/wal/constants.ts";
import type { CopyStream, PgSession } from "../../wire/pg-session.ts";
import { encodeKeepalive, encodeWalDataHeader, postgresTimestamp } from "../../wire/replication-messages.ts";
import { MAX_APPEND_BYTES } from "../api/proposer-protocol.ts";
import type { Term } from "../api/term-history.ts";
import type { SafekeeperMetrics } from "../metrics.ts";
import { endOfStream } from "../pg-errors.ts";
import type { Timeline } from "../timeline/timeline.ts";
import type { WalReader } from "../wal-store/wal-reader.ts";
import { decodeReaderMessage, hotStandbyFeedbackOf } from "./reader-messages.ts";
import { WalSender } from "./wal-senders.ts";

export interface StartReplicationOptions {
  readonly timeline: Timeline;
  readonly startLsn: Lsn;
  /** Null: committed WAL only. */
  readonly term: Term | null;
  readonly connectionId: number;
  readonly applicationName: string | null;
  readonly clock: Clock;
  readonly metrics: SafekeeperMetrics;
  readonly log: Logger;
}

const KEEPALIVE_INTERVAL_MS = 1000;

/** Serves the connection to its end. */
export async function startReplication(session: PgSession, options: StartReplicationOptions): Promise<void> {
  const { timeline, metrics, applicationName } = options;
  const leave = timeline.gate.enter();
  const target = applicationName ?? "safekeeper";
  metrics.walReaders.with("future", target).inc();
  try {
    await new ReaderConnection(session, options).serve();
  } catch (error) {
    throw endOfStream(error);
  } finally {
    metrics.walReaders.with("future", target).dec();
    leave();
  }
}

class ReaderConnection {
  readonly #session: PgSession;
  readonly #options: StartReplicationOptions;
  readonly #timeline: Timeline;
  readonly #sender: WalSender;
  readonly #walReader: WalReader;
  #replyError: unknown = null;
  /** The reader said CopyDone or is gone. */
  #ended = false;
  #wake: (() => void) | null = null;

  constructor(session: PgSession, options: StartReplicationOptions) {
    const { timeline, startLsn, connectionId, applicationName } = options;
    this.#session = session;
    this.#options = options;
    this.#timeline = timeline;
    this.#walReader = timeline.reader(startLsn);
    this.#sender = new WalSender({ connectionId, remote: session.remote, applicationName, shard: null }, startLsn);
  }

  async serve(): Promise<void> {
    const { log, startLsn, term } = this.#options;
    const unregister = this.#timeline.senders.register(this.#sender);
    const stop = this.#wakeOnChange();
    log.info("sending WAL", { startLsn: lsnToString(startLsn), endLsn: lsnToString(this.#available()), term });
    const copy = this.#session.copyBoth();
    const reading = this.#readReplies(copy);
    try {
      await this.#sendAll(copy);
      if (this.#replyError !== null) throw this.#replyError;
      if (this.#timeline.signal.aborted) throw new Cancelled("the timeline is being closed");
    } finally {
      // It ends with the connection, if it has not ended.
      reading.catch(() => undefined);
      stop();
      unregister();
      await this.#walReader.close();
      log.info("WAL sent", { endLsn: lsnToString(this.#sender.positionLsn) });
    }
  }

  #available(): Lsn {
    return this.#options.term === null ? this.#timeline.commitLsn.value : this.#timeline.termFlush.value.flushLsn;
  }

  #over(): boolean {
    return this.#ended || this.#session.signal.aborted || this.#timeline.signal.aborted;
  }

  async #sendAll(copy: CopyStream): Promise<void> {
    while (!this.#over()) {
      if (this.#available() > this.#sender.positionLsn) await this.#sendChunk(copy);
      else if (!(await this.#waitForMore())) this.#idle(copy);
    }
  }

  /** As much as there is and fits; cut at a page, for a record must not be torn elsewhere unless it is the end. */
  async #sendChunk(copy: CopyStream): Promise<void> {
    const { clock } = this.#options;
    const startLsn = this.#sender.positionLsn;
    const endLsn = this.#available();
    const full = startLsn + MAX_APPEND_BYTES;
    const chunkEnd = full >= endLsn ? endLsn : full - (full % WAL_PAGE_SIZE);
    const buffer = new Uint8Array(chunkEnd - startLsn);
    const length = await this.#walReader.read(startLsn, buffer);
    // Checked after the read: the log is only ever cut when the term has changed before.
    this.#checkTerm();
    copy.write(encodeWalDataHeader({ startLsn, endLsn, timestamp: postgresTimestamp(clock.wallMs()) }), buffer.subarray(0, length));
    this.#sender.positionLsn = startLsn + length;
    await copy.drained();
  }

  #checkTerm(): void {
    const { term } = this.#options;
    const current = this.#timeline.state.term;
    if (term !== null && term !== current) throw new StrataError("conflict", "term-changed", `WAL of term ${term} was asked for: the term is ${current} now`);
  }

  /** False after a keepalive interval in which nothing came. */
  #waitForMore(): Promise<boolean> {
    this.#checkTerm();
    return new Promise((resolve) => {
      const timer = this.#options.clock.after(KEEPALIVE_INTERVAL_MS, () => finish(false));
      const finish = (more: boolean): void => {
        this.#wake = null;
        timer.cancel();
        resolve(more);
      };
      this.#wake = () => finish(true);
    });
  }

  #wakeOnChange(): () => void {
    const wake = (): void => this.#wake?.();
    const undo = [this.#timeline.commitLsn.subscribe(wake), this.#timeline.termFlush.subscribe(wake)];
    this.#timeline.signal.addEventListener("abort", wake);
    this.#session.signal.addEventListener("abort", wake);
    return () => {
      for (const unsubscribe of undo) unsubscribe();
      this.#timeline.signal.removeEventListener("abort", wake);
      this.#session.signal.removeEventListener("abort", wake);
    };
  }

  #idle(copy: CopyStream): void {
    this.#endIfDone();
    const timestamp = postgresTimestamp(this.#options.clock.wallMs());
    copy.write(encodeKeepalive({ endLsn: this.#available(), timestamp, replyRequested: true }));
  }

  /**
   * A pageserver that has everything in object storage is let go when no compute writes: it comes back when the broker
   * tells of new WAL. The words "ending streaming" are how pageservers know this end from a failure.
   */
  #endIfDone(): void {
    const { feedback } = this.#sender;
    if (this.#options.term !== null || feedback.kind !== "pageserver" || this.#timeline.receivers.count.value > 0) return;
    const commitLsn = this.#timeline.commitLsn.value;
    if (feedback.feedback.remoteConsistentLsn < commitLsn) return;
    throw new StrataError("unavailable", "streaming-done", `ending streaming at ${lsnToString(this.#sender.positionLsn)}: the receiver has everything and no compute writes`);
  }

  async #readReplies(copy: CopyStream): Promise<void> {
    try {
      for (let bytes = await copy.read(); bytes !== null; bytes = await copy.read()) this.#reply(bytes);
    } catch (error) {
      this.#replyError = error;
    } finally {
      this.#ended = true;
      this.#wake?.();
    }
  }

  #reply(bytes: Uint8Array): void {
    const message = decodeReaderMessage(bytes);
    const { senders } = this.#timeline;
    if (message.kind === "standby-status") senders.recordStandbyReply(this.#sender, message);
    else if (message.kind === "hot-standby-feedback") senders.recordHotStandby(this.#sender, hotStandbyFeedbackOf(message));
    else this.#timeline.recordPageserverFeedback(this.#sender, message.feedback);
  }
}
