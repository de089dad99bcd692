/**
 * A proposer's connection: its messages go through a bounded queue to the acceptor, whose answers go back.
 *
 * The reader and the acceptor run side by side, so that WAL arrives while the disk is busy with what came before. All
 * appends that have queued up meanwhile are then taken in together and made durable by one flush: group commit.
 */
import { BoundedQueue } from "../../kit/bounded-queue.ts";
import { Cancelled, StrataError } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { Logger } from "../../observability/log.ts";
import type { CopyStream, PgSession } from "../../wire/pg-session.ts";
import {
  type AcceptorMessage, type AppendRequest, type AppendResponse, decodeProposerMessage, encodeAcceptorMessage, type ProposerMessage, type ProposerProtocolVersion,
} from "../api/proposer-protocol.ts";
import { RECEIVE_QUEUE_BYTES, RECEIVE_QUEUE_MESSAGES } from "../config.ts";
import type { Acceptor, Steps } from "../consensus/acceptor.ts";
import { handleAppend, handleFlush } from "../consensus/append.ts";
import { handleElected, handleGreeting, handleVoteRequest } from "../consensus/election.ts";
import type { SafekeeperMetrics } from "../metrics.ts";
import { endOfStream } from "../pg-errors.ts";
import type { Timeline } from "../timeline/timeline.ts";
import { type AdmissionOptions, findOrCreate } from "./admission.ts";
import { BlockedWatch } from "./blocked-watch.ts";
import type { WalReceiver } from "./wal-receivers.ts";

export interface StartWalPushOptions extends AdmissionOptions {
  readonly connectionId: number;
  readonly protocolVersion: ProposerProtocolVersion;
  readonly metrics: SafekeeperMetrics;
  readonly log: Logger;
}

/** Appends that are not flushed because more keep coming are flushed after this, so that the proposer hears from us. */
const FLUSH_INTERVAL_MS = 1000;
const REFUSAL_DELAY_MS = 1000;
const QUEUE_SAMPLE_INTERVAL_MS = 5000;
/** One turn at the acceptor; others (a vote, a reader's check) wait no longer than that. */
const BATCH_MAX_MESSAGES = 256;
const BATCH_MAX_BYTES = 2 * 1024 * 1024;
/** Feedback is advice: a proposer that does not read gets none. */
const FEEDBACK_MAX_BUFFERED_BYTES = 64 * 1024;

/** Serves the connection to its end. */
export async function startWalPush(session: PgSession, options: StartWalPushOptions): Promise<void> {
  const copy = session.copyBoth();
  try {
    const first = await copy.read();
    if (first === null) return;
    const greeting = decodeProposerMessage(first, options.protocolVersion);
    if (greeting.kind !== "greeting") throw new StrataError("fix-input", "bad-proposer-message", `${greeting.kind} before a greeting`);
    const timeline = await findOrCreate(options, greeting);
    await timeline.gate.run(() => new ProposerConnection(timeline, copy, options).serve(greeting));
  } catch (error) {
    throw endOfStream(error);
  }
}

class ProposerConnection {
  readonly #timeline: Timeline;
  readonly #copy: CopyStream;
  readonly #options: StartWalPushOptions;
  readonly #queue = new BoundedQueue<{ readonly message: ProposerMessage; readonly sizeBytes: number }>({ maxItems: RECEIVE_QUEUE_MESSAGES, maxWeight: RECEIVE_QUEUE_BYTES });
  #readError: unknown = null;
  readonly #blocked: BlockedWatch;
  #lastResponse: AppendResponse | null = null;
  /** Appends were taken in and not flushed. */
  #dirty = false;
  #lastFlushMs: number;
  /** The commit position of the last append taken in. */
  #proposerCommit: Lsn = 0;

  constructor(timeline: Timeline, copy: CopyStream, options: StartWalPushOptions) {
    this.#timeline = timeline;
    this.#copy = copy;
    this.#options = options;
    this.#lastFlushMs = options.clock.monotonicMs();
    this.#blocked = new BlockedWatch(options.clock, options.log);
  }

  async serve(greeting: ProposerMessage): Promise<void> {
    const { metrics, connectionId, log } = this.#options;
    const { receiver, unregister } = this.#timeline.receivers.register(connectionId);
    const stopFeedback = this.#timeline.receivers.onPageserverFeedback((feedback) => this.#passOn(feedback));
    const stopSampling = this.#sampleQueue();
    const onClose = (): void => this.#queue.close();
    this.#timeline.signal.addEventListener("abort", onClose);
    metrics.walReceivers.inc();
    log.info("proposer connected", { protocolVersion: this.#options.protocolVersion });
    const reading = this.#readInto(greeting);
    try {
      await this.#accept(receiver);
      if (this.#readError !== null) throw this.#readError;
      if (this.#timeline.signal.aborted) throw new Cancelled("the timeline is being closed");
    } finally {
      this.#queue.close();
      this.#blocked.stop();
      this.#drainMetrics();
      // It ends when the connection does, which is next.
      reading.catch(() => undefined);
      this.#timeline.signal.removeEventListener("abort", onClose);
      stopSampling();
      stopFeedback();
      unregister();
      metrics.walReceivers.dec();
    }
  }

  /** From the connection into the queue, as long as there is room. */
  async #readInto(greeting: ProposerMessage): Promise<void> {
    try {
      await this.#enqueue(greeting, 0);
      for (let bytes = await this.#copy.read(); bytes !== null; bytes = await this.#copy.read()) {
        if (!(await this.#enqueue(decodeProposerMessage(bytes, this.#options.protocolVersion), bytes.length))) return;
      }
    } catch (error) {
      this.#readError = error;
    } finally {
      this.#queue.close();
    }
  }

  async #enqueue(message: ProposerMessage, sizeBytes: number): Promise<boolean> {
    const { metrics } = this.#options;
    if (!this.#queue.hasRoom(sizeBytes)) this.#blocked.begin();
    const accepted = await this.#queue.push({ message, sizeBytes }, sizeBytes);
    this.#blocked.end();
    if (accepted) {
      metrics.queueDepthTotal.inc();
      metrics.queueSizeTotal.inc(sizeBytes);
    }
    return accepted;
  }

  /** From the queue to the acceptor, until the connection ends; what was taken in is durable then. */
  async #accept(receiver: WalReceiver): Promise<void> {
    try {
      while (!this.#timeline.signal.aborted) {
        const next = this.#take();
        if (next !== null) await this.#process(next, receiver);
        else if (this.#queue.closed) return;
        // Frames that are here already are on their way into the queue.
        else if (this.#dirty && this.#copy.pending === 0) await this.#flush();
        else await this.#queue.ready();
      }
    } finally {
      // Without it the next proposer could not count on what we hold; a store that failed says so elsewhere.
      if (this.#dirty && !this.#timeline.signal.aborted) await this.#flush().catch(() => undefined);
      await this.#rememberCommit();
    }
  }

  /** Until another proposer comes nobody else could tell readers what of the log is committed: a restart must know it. */
  async #rememberCommit(): Promise<void> {
    if (this.#timeline.signal.aborted) return;
    await this.#timeline.save().catch((error: unknown) => this.#options.log.info("control file could not be saved when the proposer left", { error }));
  }

  #take(): { readonly message: ProposerMessage; readonly sizeBytes: number } | null {
    const item = this.#queue.take();
    if (item === undefined) return null;
    this.#options.metrics.queueDepthTotal.dec();
    this.#options.metrics.queueSizeTotal.dec(item.sizeBytes);
    return item;
  }

  #drainMetrics(): void {
    while (this.#take() !== null) continue;
  }

  async #process(item: { readonly message: ProposerMessage; readonly sizeBytes: number }, receiver: WalReceiver): Promise<void> {
    const { message } = item;
    const { metrics } = this.#options;
    try {
      if (message.kind === "append") await this.#append(message, item.sizeBytes);
      else {
        if (message.kind === "vote-request" && this.#timeline.state.recovering) await this.#waitForOtherVotes();
        const reply = await this.#timeline.run<AcceptorMessage | null>(message.kind, (acceptor) => this.#handshake(acceptor, message));
        if (message.kind === "elected" && reply === null) receiver.status = "streaming";
        if (reply !== null) await this.#send(reply);
        this.#options.log.info("proposer's message handled", { kind: message.kind, term: this.#timeline.state.term, flushLsn: this.#timeline.acceptor.flushLsn });
      }
      metrics.messages.with("success").inc();
    } catch (error) {
      metrics.messages.with("error").inc();
      throw error;
    }
  }

  /** This node's vote will be refused, which ends the campaign of a proposer that has no majority yet: the others' come first. */
  async #waitForOtherVotes(): Promise<void> {
    this.#options.log.info("recovering: no vote is given");
    await this.#options.clock.sleep(REFUSAL_DELAY_MS, this.#timeline.signal).catch(() => undefined);
  }

  #handshake(acceptor: Acceptor, message: Exclude<ProposerMessage, AppendRequest>): Steps<AcceptorMessage | null> {
    if (message.kind === "greeting") return handleGreeting(acceptor, message);
    if (message.kind === "vote-request") return handleVoteRequest(acceptor, message);
    return handleElected(acceptor, message);
  }

  /** Takes in all appends that are queued, up to a bound, in one turn. */
  async #append(first: AppendRequest, sizeBytes: number): Promise<void> {
    if (first.walData.length > 0) this.#timeline.checkDiskUsage();
    const replies = await this.#timeline.run("append", (acceptor) => this.#appendBatch(acceptor, first, sizeBytes));
    for (const reply of replies) await this.#send(reply);
    if (this.#dirty && this.#options.clock.monotonicMs() - this.#lastFlushMs >= FLUSH_INTERVAL_MS) await this.#flush();
  }

  *#appendBatch(acceptor: Acceptor, first: AppendRequest, sizeBytes: number): Steps<AppendResponse[]> {
    const replies: AppendResponse[] = [];
    let request: AppendRequest | null = first;
    for (let count = 1, bytes = sizeBytes; request !== null; count++) {
      const reply = yield* handleAppend(acceptor, request);
      const superseded = reply !== null && reply.term > request.term;
      if (!superseded) {
        this.#dirty = true;
        this.#proposerCommit = request.commitLsn;
      }
      if (reply !== null) replies.push(reply);
      request = count < BATCH_MAX_MESSAGES && bytes < BATCH_MAX_BYTES && this.#queue.peek()?.message.kind === "append" ? this.#takeAppend() : null;
      bytes += request?.walData.length ?? 0;
    }
    return replies;
  }

  #takeAppend(): AppendRequest | null {
    const item = this.#take();
    return item?.message.kind === "append" ? item.message : null;
  }

  async #flush(): Promise<void> {
    this.#dirty = false;
    const commit = this.#proposerCommit;
    const reply = await this.#timeline.run("flush", (acceptor) => handleFlush(acceptor, commit));
    this.#lastFlushMs = this.#options.clock.monotonicMs();
    await this.#send(reply);
  }

  async #send(message: AcceptorMessage): Promise<void> {
    const filled = message.kind === "append" ? { ...message, hotStandbyFeedback: this.#timeline.senders.hotStandby } : message;
    if (filled.kind === "append") this.#lastResponse = filled;
    this.#copy.write(encodeAcceptorMessage(filled, this.#options.protocolVersion));
    await this.#copy.drained();
  }

  /** A pageserver's feedback rides on a repeated answer. */
  #passOn(pageserverFeedback: NonNullable<AppendResponse["pageserverFeedback"]>): void {
    if (this.#lastResponse === null || this.#copy.bufferedBytes > FEEDBACK_MAX_BUFFERED_BYTES) return;
    this.#copy.write(encodeAcceptorMessage({ ...this.#lastResponse, pageserverFeedback }, this.#options.protocolVersion));
  }

  #sampleQueue(): () => void {
    const { clock, metrics } = this.#options;
    const sample = (): void => {
      metrics.queueDepth.observe(this.#queue.length);
      timer = clock.after(QUEUE_SAMPLE_INTERVAL_MS, sample);
    };
    let timer = clock.after(QUEUE_SAMPLE_INTERVAL_MS, sample);
    return () => timer.cancel();
  }
}
