/**
 * A reader's connection: WAL from a position on, and what the reader says back. Raw, as PostgreSQL's walsender sends it, it is
 * good for a stock standby, pg_receivewal and the pageserver; interpreted for a shard, for the pageserver.
 *
 * Readers get what is committed. Only one that names the current term gets the whole log, committed or not: the proposer
 * of that term, or a peer that recovers, both of which know what to do with it.
 *
 * Source: PostgreSQL src/backend/replication/walsender.c (XLogSendPhysical); the peer safekeeper/src/send_wal.rs.
 */
import { Cancelled, isStrataError, StrataError } from "../../kit/errors.ts";
import type { Failpoints } from "../../kit/failpoints.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { Logger } from "../../observability/log.ts";
import type { Clock } from "../../platform/clock.ts";
import type { CopyStream, PgSession } from "../../wire/pg-session.ts";
import { encodeKeepalive, postgresTimestamp } from "../../wire/replication-messages.ts";
import type { Term } from "../api/term-history.ts";
import type { SafekeeperMetrics } from "../metrics.ts";
import { drained, type DrainOptions } from "../drained.ts";
import { endOfStream } from "../pg-errors.ts";
import type { Timeline } from "../timeline/timeline.ts";
import type { MemberOptions } from "./decode-group.ts";
import { ReaderLiveness } from "./reader-liveness.ts";
import { decodeReaderMessage, hotStandbyFeedbackOf } from "./reader-messages.ts";
import { WalSender } from "./wal-senders.ts";
import { RawWalSource, type WalSource } from "./wal-source.ts";

export interface StartReplicationOptions {
  readonly timeline: Timeline;
  readonly startLsn: Lsn;
  /** Null: committed WAL only. */
  readonly term: Term | null;
  /** Records for a shard; null: raw WAL. */
  readonly interpreted: Omit<MemberOptions, "startLsn"> | null;
  readonly connectionId: number;
  readonly applicationName: string | null;
  /** Null unless in testing mode. */
  readonly failpoints: Failpoints | null;
  /** A reader that says nothing for so long, though it is asked to, or takes nothing, is gone; 0 = it may. */
  readonly walSenderTimeoutMs: number;
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
  readonly #source: WalSource;
  readonly #liveness: ReaderLiveness;
  readonly #drain: DrainOptions;
  /** The source had nothing more to send below this. */
  #askedLsn: Lsn = 0;
  #replyError: unknown = null;
  /** The reader said CopyDone or is gone. */
  #ended = false;
  #wake: (() => void) | null = null;

  constructor(session: PgSession, options: StartReplicationOptions) {
    const { timeline, startLsn, connectionId, applicationName, interpreted, clock, log, walSenderTimeoutMs } = options;
    this.#session = session;
    this.#options = options;
    this.#timeline = timeline;
    this.#liveness = new ReaderLiveness(clock, walSenderTimeoutMs);
    this.#drain = { clock, log, timeoutMs: walSenderTimeoutMs, signals: [session.signal, timeline.signal] };
    this.#source = interpreted === null ? new RawWalSource(timeline.reader(startLsn), startLsn) : timeline.decodeGroups.open({ ...interpreted, startLsn });
    const shard = interpreted === null ? null : { ...interpreted.shard, tenantId: timeline.id.tenantId };
    this.#sender = new WalSender({ connectionId, remote: session.remote, applicationName, shard }, startLsn);
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
      await this.#source.close();
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
      if (this.#liveness.isToBeAsked()) this.#ask(copy);
      const paused = this.#options.failpoints !== null && (await this.#isPaused(this.#options.failpoints));
      if (!paused && this.#available() > Math.max(this.#sender.positionLsn, this.#askedLsn)) await this.#sendNext(copy);
      else if (!(await this.#waitForMore())) this.#idle(copy);
    }
  }

  /** The peer's failpoints: `sk-pause-send=return` holds back WAL from all but pageservers, keepalives go on. */
  async #isPaused(failpoints: Failpoints): Promise<boolean> {
    const { applicationName } = this.#options;
    const { signal } = this.#session;
    if (applicationName === "replica") await failpoints.hit("sk-send-wal-replica-sleep", signal);
    if (applicationName === "pageserver") return false;
    try {
      await failpoints.hit("sk-pause-send", signal);
      return false;
    } catch (error) {
      if (isStrataError(error, "failpoint")) return true;
      throw error;
    }
  }

  async #sendNext(copy: CopyStream): Promise<void> {
    const endLsn = this.#available();
    const message = await this.#source.next(endLsn, postgresTimestamp(this.#options.clock.wallMs()));
    // Checked after the read: the log is only ever cut when the term has changed before.
    this.#checkTerm();
    if (message === null) {
      this.#askedLsn = endLsn;
      return;
    }
    copy.write(message.header, message.body);
    this.#sender.positionLsn = message.positionLsn;
    await drained(copy, this.#drain);
    this.#liveness.took();
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
    this.#ask(copy);
  }

  #ask(copy: CopyStream): void {
    this.#liveness.asked();
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
    this.#liveness.heard();
    const message = decodeReaderMessage(bytes);
    const { senders } = this.#timeline;
    if (message.kind === "standby-status") senders.recordStandbyReply(this.#sender, message);
    else if (message.kind === "hot-standby-feedback") senders.recordHotStandby(this.#sender, hotStandbyFeedbackOf(message));
    else this.#timeline.recordPageserverFeedback(this.#sender, message.feedback);
  }
}
