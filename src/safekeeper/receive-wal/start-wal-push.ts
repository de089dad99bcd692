/**
 * A proposer's connection: its messages go through a bounded queue to the acceptor, whose answers go back.
 *
 * The reader and the acceptor run side by side, so that WAL arrives while the disk is busy with what came before. All
 * appends that have queued up meanwhile are then taken in together and made durable by one flush: group commit.
 */
import { BoundedQueue } from "../../kit/bounded-queue.ts";
import { concatBytes } from "../../kit/bytes.ts";
import { Cancelled, StrataError } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { Logger } from "../../observability/log.ts";
import type { PgSession, ServedCopyStream } from "../../wire/pg-session.ts";
import type { AcceptorMessage, AppendRequest, AppendResponse, ProposerMessage } from "../api/proposer-messages.ts";
import { decodeProposerMessage, encodeAcceptorMessage, type ProposerProtocolVersion } from "../api/proposer-protocol.ts";
import { RECEIVE_QUEUE_BYTES, RECEIVE_QUEUE_MESSAGES } from "../config.ts";
import type { Acceptor, Steps } from "../consensus/acceptor.ts";
import { handleAppend, handleFlush } from "../consensus/append.ts";
import { handleElected, handleGreeting, handleVoteRequest } from "../consensus/election.ts";
import type { SafekeeperMetrics } from "../metrics.ts";
import { drained, type DrainOptions } from "../drained.ts";
import { endOfStream } from "../pg-errors.ts";
import type { Timeline } from "../timeline/timeline.ts";
import { type AdmissionOptions, findOrCreate } from "./admission.ts";
import { joinArrived } from "./arrived-appends.ts";
import { BlockedWatch } from "./blocked-watch.ts";
import type { WalReceiver } from "./wal-receivers.ts";

export interface StartWalPushOptions extends AdmissionOptions {
  readonly connectionId: number;
  readonly protocolVersion: ProposerProtocolVersion;
  /** A proposer that takes no answers for so long is gone; 0 = it may. */
  readonly silenceTimeoutMs: number;
  readonly metrics: SafekeeperMetrics;
  readonly log: Logger;
}

/** Appends that are not flushed because more keep coming are flushed after this, so that the proposer hears from us. */
const FLUSH_INTERVAL_MS = 1000;
const REFUSAL_DELAY_MS = 1000;
const QUEUE_SAMPLE_INTERVAL_MS = 5000;
/** One turn at the acceptor; others (a vote, a reader's check) wait no longer than that. */
const BATCH_MAX_MESSAGES = 1024;
const BATCH_MAX_BYTES = 2 * 1024 * 1024;
/** Appends smaller than this that arrived one after the other are copied together; for a larger one that costs more than a turn and a write of its own. */
const COPY_BELOW_BYTES = 16 * 1024;
/** Feedback is advice: a proposer that does not read gets none. */
const FEEDBACK_MAX_BUFFERED_BYTES = 64 * 1024;

interface Queued {
  readonly message: ProposerMessage;
  readonly sizeBytes: number;
  /** Messages that it stands for: small appends that arrived together are one. */
  readonly count: number;
}

/** One append, or several as one. */
interface Appends {
  readonly request: AppendRequest;
  readonly count: number;
}

/** Serves the connection to its end. */
export async function startWalPush(session: PgSession, options: StartWalPushOptions): Promise<void> {
  const copy = session.copyBoth();
  try {
    const first = await copy.read();
    if (first === null) return;
    const greeting = decodeProposerMessage(first, options.protocolVersion);
    if (greeting.kind !== "greeting") throw new StrataError("fix-input", "bad-proposer-message", `${greeting.kind} before a greeting`);
    // Before anything is made for it.
    if (greeting.tenantId !== options.id.tenantId || greeting.timelineId !== options.id.timelineId) {
      throw new StrataError("conflict", "wrong-timeline", `greeting for ${greeting.tenantId}/${greeting.timelineId} on a connection of ${options.id.tenantId}/${options.id.timelineId}`);
    }
    const timeline = await findOrCreate(options, greeting);
    await timeline.gate.run(() => new ProposerConnection({ session, timeline, copy }, options).serve(greeting));
  } catch (error) {
    throw endOfStream(error);
  }
}

class ProposerConnection {
  readonly #timeline: Timeline;
  readonly #copy: ServedCopyStream;
  readonly #options: StartWalPushOptions;
  readonly #drain: DrainOptions;
  readonly #queue = new BoundedQueue<Queued>({ maxItems: RECEIVE_QUEUE_MESSAGES, maxWeight: RECEIVE_QUEUE_BYTES });
  #readError: unknown = null;
  readonly #blocked: BlockedWatch;
  #lastResponse: AppendResponse | null = null;
  /** Appends were taken in and not flushed. */
  #dirty = false;
  #lastFlushMs: number;
  /** The commit position of the last append taken in. */
  #proposerCommit: Lsn = 0;
  /** What of the queue the gauges know. */
  #noted = { messages: 0, bytes: 0 };

  constructor({ session, timeline, copy }: { readonly session: PgSession; readonly timeline: Timeline; readonly copy: ServedCopyStream }, options: StartWalPushOptions) {
    this.#timeline = timeline;
    this.#copy = copy;
    this.#drain = { clock: options.clock, log: options.log, timeoutMs: options.silenceTimeoutMs, signals: [session.signal, timeline.signal] };
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
      await this.#enqueue({ message: greeting, sizeBytes: 0, count: 1 });
      for (;;) {
        const bytes = this.#copy.take() ?? (await this.#copy.read());
        if (bytes === null) return;
        const item = this.#decode(bytes);
        if (!this.#queue.offer(item, item.sizeBytes) && !(await this.#enqueue(item))) return;
      }
    } catch (error) {
      this.#readError = error;
    } finally {
      this.#queue.close();
    }
  }

  #decode(bytes: Uint8Array): Queued {
    const { protocolVersion } = this.#options;
    const message = decodeProposerMessage(bytes, protocolVersion);
    if (message.kind !== "append" || protocolVersion !== 3) return { message, sizeBytes: bytes.length, count: 1 };
    const { request, count, addedBytes } = joinArrived(this.#copy, message);
    return { message: request, sizeBytes: bytes.length + addedBytes, count };
  }

  async #enqueue(item: Queued): Promise<boolean> {
    const { sizeBytes } = item;
    if (!this.#queue.hasRoom(sizeBytes)) this.#blocked.begin();
    const accepted = await this.#queue.push(item, sizeBytes);
    this.#blocked.end();
    return accepted;
  }

  /** Once a batch, not once a message. */
  #noteQueue(): void {
    const { queueDepthTotal, queueSizeTotal } = this.#options.metrics;
    const { length: messages, weight: bytes } = this.#queue;
    queueDepthTotal.inc(messages - this.#noted.messages);
    queueSizeTotal.inc(bytes - this.#noted.bytes);
    this.#noted = { messages, bytes };
  }

  /** From the queue to the acceptor, until the connection ends; what was taken in is durable then. */
  async #accept(receiver: WalReceiver): Promise<void> {
    try {
      while (!this.#timeline.signal.aborted) {
        this.#noteQueue();
        const next = this.#queue.take() ?? null;
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

  #drainMetrics(): void {
    while (this.#queue.take() !== undefined) continue;
    this.#noteQueue();
  }

  async #process(item: Queued, receiver: WalReceiver): Promise<void> {
    const { message } = item;
    const { metrics } = this.#options;
    try {
      if (message.kind === "append") {
        metrics.messages.with("success").inc(await this.#append({ request: message, count: item.count }));
      } else {
        if (message.kind === "vote-request" && this.#timeline.state.recovering) await this.#waitForOtherVotes();
        const startMs = this.#options.clock.monotonicMs();
        const reply = await this.#timeline.run<AcceptorMessage | null>(message.kind, (acceptor) => this.#handshake(acceptor, message));
        metrics.miscOperation.with(`handle_${message.kind.replaceAll("-", "_")}`).recordMs(this.#options.clock.monotonicMs() - startMs);
        if (message.kind === "elected" && reply === null) receiver.status = "streaming";
        if (reply !== null) await this.#send(reply);
        this.#options.log.info("proposer's message handled", { kind: message.kind, term: this.#timeline.state.term, flushLsn: this.#timeline.acceptor.flushLsn });
        metrics.messages.with("success").inc();
      }
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
    const { peers } = this.#options;
    return handleElected(acceptor, message, peers === null ? 0 : peers.length + 1);
  }

  /** Takes in all appends that are queued, up to a bound, in one turn. Returns how many. */
  async #append(first: Appends): Promise<number> {
    if (first.request.walData.length > 0) this.#timeline.checkDiskUsage();
    const { replies, count } = await this.#timeline.run("append", (acceptor) => this.#appendBatch(acceptor, first));
    for (const reply of replies) await this.#send(reply);
    if (this.#dirty && this.#options.clock.monotonicMs() - this.#lastFlushMs >= FLUSH_INTERVAL_MS) await this.#flush();
    return count;
  }

  *#appendBatch(acceptor: Acceptor, first: Appends): Steps<{ replies: AppendResponse[]; count: number }> {
    const replies: AppendResponse[] = [];
    let count = 0;
    let bytes = 0;
    for (let next: Appends | null = first; next !== null; next = count < BATCH_MAX_MESSAGES && bytes < BATCH_MAX_BYTES ? this.#takeAppend() : null) {
      const joined = this.#join(next);
      const { request } = joined;
      count += joined.count;
      bytes += request.walData.length;
      const reply = yield* handleAppend(acceptor, request);
      const superseded = reply !== null && reply.term > request.term;
      if (!superseded) {
        this.#dirty = true;
        this.#proposerCommit = request.commitLsn;
      }
      if (reply !== null) replies.push(reply);
    }
    return { replies, count };
  }

  /**
   * The append and the small ones behind it that continue it, as one: what the acceptor checks of each (term, generation, that it
   * continues the log) holds for all or for none, and the last one's positions are the proposer's newest.
   */
  #join(first: Appends): Appends {
    const { beginLsn, walData } = first.request;
    if (walData.length >= COPY_BELOW_BYTES) return first;
    const parts = [walData];
    let bytes = walData.length;
    let last = first.request;
    let { count } = first;
    for (let next = this.#nextAppend(); next !== null && parts.length < BATCH_MAX_MESSAGES && continues(last, next.request); next = this.#nextAppend()) {
      const { request } = next;
      if (request.walData.length >= COPY_BELOW_BYTES || bytes + request.walData.length > BATCH_MAX_BYTES) break;
      this.#queue.take();
      parts.push(request.walData);
      bytes += request.walData.length;
      last = request;
      count += next.count;
    }
    if (parts.length === 1) return first;
    return { request: { ...last, beginLsn, walData: concatBytes(parts) }, count };
  }

  /** What comes next if it is an append; it stays in the queue. */
  #nextAppend(): Appends | null {
    const next = this.#queue.peek();
    return next?.message.kind === "append" ? { request: next.message, count: next.count } : null;
  }

  #takeAppend(): Appends | null {
    const next = this.#nextAppend();
    if (next !== null) this.#queue.take();
    return next;
  }

  async #flush(): Promise<void> {
    this.#dirty = false;
    const commit = this.#proposerCommit;
    const reply = await this.#timeline.run("flush", (acceptor) => handleFlush(acceptor, commit));
    this.#lastFlushMs = this.#options.clock.monotonicMs();
    await this.#send(reply);
    // Nobody waits for this one.
    const { store } = this.#timeline;
    if (store.runsShort) await this.#timeline.exclusive("prepare WAL file", () => store.prepareAhead());
  }

  async #send(message: AcceptorMessage): Promise<void> {
    const filled = message.kind === "append" ? { ...message, hotStandbyFeedback: this.#timeline.senders.hotStandby } : message;
    if (filled.kind === "append") this.#lastResponse = filled;
    this.#copy.write(encodeAcceptorMessage(filled, this.#options.protocolVersion));
    await drained(this.#copy, this.#drain);
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

function continues(before: AppendRequest, next: AppendRequest): boolean {
  return next.beginLsn === before.endLsn && next.term === before.term && next.generation === before.generation;
}
