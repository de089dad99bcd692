/**
 * One timeline on this safekeeper: runs the acceptor's handlers one at a time, carries out their effects on the WAL
 * store and the control file, and tells everyone who waits where the log stands.
 *
 * An effect that failed ends the handler and its connection; a WAL store that failed for good ends every later one.
 */
import { Cancelled, isStrataError, StrataError } from "../../kit/errors.ts";
import { Gate } from "../../kit/gate.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { Mutex } from "../../kit/mutex.ts";
import { Watch } from "../../kit/watch.ts";
import type { SafekeeperTimelineInfo, TenantTimelineId } from "../../broker/api/messages.ts";
import type { Logger } from "../../observability/log.ts";
import type { Clock } from "../../platform/clock.ts";
import type { FileHandle, FileSystem } from "../../platform/files.ts";
import { majorFromVersionNum } from "../../postgres/versions/major.ts";
import type { WalGeometry } from "../../postgres/wal/page-header.ts";
import type { PageserverFeedback } from "../api/pageserver-feedback.ts";
import type { Term } from "../api/term-history.ts";
import { Acceptor, type Effect, type Steps } from "../consensus/acceptor.ts";
import { handlePeerCommit } from "../consensus/append.ts";
import { deriveCommit } from "../consensus/derived-commit.ts";
import { writeControlFile } from "../control-file/control-file.ts";
import type { TimelinePersistentState } from "../control-file/state.ts";
import type { SafekeeperMetrics } from "../metrics.ts";
import { WalReceivers } from "../receive-wal/wal-receivers.ts";
import { DecodeGroups } from "../send-wal/decode-groups.ts";
import { type WalSender, WalSenders } from "../send-wal/wal-senders.ts";
import { segmentOf } from "../wal-store/segments.ts";
import { WalReader } from "../wal-store/wal-reader.ts";
import { WalStore } from "../wal-store/wal-store.ts";
import { Peers } from "./peers.ts";

/** What all timelines of this process share. */
export interface TimelineContext {
  readonly nodeId: number;
  readonly files: FileSystem;
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: SafekeeperMetrics;
  /** False with `--no-sync`. */
  readonly sync: boolean;
  readonly heartbeatTimeoutMs: number;
  /** Of one timeline's WAL on this disk; 0 = no limit. */
  readonly maxDiskUsageBytes?: number;
  /** A segment from the backup; absent without one. */
  readonly fetchSegment?: (id: TenantTimelineId, segment: number, segmentSizeBytes: number) => Promise<FileHandle | null>;
  /** host:port that others reach us at. */
  readonly endpoints: () => { readonly pg: string; readonly http: string; readonly https?: string | null; readonly availabilityZone: string | null };
}

/** The end of the log and the term in which it was reached: they change together. */
export interface TermFlush {
  readonly term: Term;
  readonly flushLsn: Lsn;
}

export class Timeline {
  readonly id: TenantTimelineId;
  readonly directory: string;
  readonly log: Logger;
  readonly receivers = new WalReceivers();
  readonly senders = new WalSenders();
  /** Of readers of interpreted WAL. */
  readonly decodeGroups: DecodeGroups;
  readonly peers = new Peers();
  /** Connections and tasks that use the timeline; closed when it is deleted or the process stops. */
  readonly gate: Gate;
  readonly commitLsn: Watch<Lsn>;
  readonly termFlush: Watch<TermFlush>;
  /** Keeps all segments while positive: snapshots hold it. */
  walRemovalHolds = 0;
  /** Whether peers and pageservers should hear of it; kept by the maintenance loop. */
  active = false;
  /** This safekeeper is the one that uploads WAL now. */
  backingUp = false;
  lastPersistMs: number;
  /** The commit position that maintenance saw last, and since when: one that rests is saved. */
  restingCommit: { readonly lsn: Lsn; readonly sinceMs: number } = { lsn: 0, sinceMs: 0 };
  /** What this node promised of the timeline and does not know any more it promised before: the process' start, or a deletion here. */
  blankSinceMs: number;
  /** The question whether the timeline is new, while it is asked. */
  admission: Promise<void> | null = null;
  /** That it was lost here has been logged. */
  lossSaid = false;
  /** Segments below this have been removed by this process. */
  removedBelowSegment = 0;
  /** What was written to disk since the start. */
  readonly totals: { readonly bytes: number; readonly writeMs: number; readonly flushMs: number };
  readonly #context: TimelineContext;
  readonly #acceptor: Acceptor;
  readonly #store: WalStore;
  readonly #mutex = new Mutex();
  readonly #cancel = new AbortController();
  #failureLogged = false;
  #closed = false;

  private constructor(context: TimelineContext, options: { directory: string; state: TimelinePersistentState; store: WalStore; log: Logger; totals: Timeline["totals"] }) {
    const { directory, state, store, log } = options;
    this.totals = options.totals;
    this.#context = context;
    this.#store = store;
    this.#acceptor = new Acceptor({ nodeId: context.nodeId, state, log: store });
    this.id = { tenantId: state.tenantId, timelineId: state.timelineId };
    this.directory = directory;
    this.log = log;
    this.gate = new Gate(`timeline ${state.tenantId}/${state.timelineId}`);
    this.commitLsn = new Watch(this.#acceptor.volatile.commitLsn);
    this.termFlush = new Watch({ term: state.term, flushLsn: this.#acceptor.flushLsn });
    this.blankSinceMs = this.lastPersistMs = context.clock.monotonicMs();
    this.decodeGroups = new DecodeGroups(this, { clock: context.clock, log });
  }

  /** @throws StrataError corrupt `wal-lost` and what reading the log may throw */
  static async open(context: TimelineContext, directory: string, state: TimelinePersistentState): Promise<Timeline> {
    const log = context.log.child({ tenantId: state.tenantId, timelineId: state.timelineId });
    let timeline: Timeline | null = null;
    const totals = { bytes: 0, writeMs: 0, flushMs: 0 };
    const store = await WalStore.open(
      {
        files: context.files, directory, sync: context.sync, geometry: geometryOf(state), metrics: context.metrics.walStore(totals),
        systemId: () => timeline?.state.systemId ?? state.systemId,
      },
      { commitLsn: state.commitLsn, startLsn: state.localStartLsn },
    );
    return (timeline = new Timeline(context, { directory, state, store, log, totals }));
  }

  /** As persisted. */
  get state(): TimelinePersistentState {
    return this.#acceptor.persisted;
  }
  /** The acceptor as it is now: for reading. */
  get acceptor(): Acceptor {
    return this.#acceptor;
  }
  get store(): WalStore {
    return this.#store;
  }
  get geometry(): WalGeometry {
    return geometryOf(this.state);
  }
  /** Aborted when the timeline is closed: connections end. */
  get signal(): AbortSignal {
    return this.#cancel.signal;
  }
  /** Name of the handler that runs, for diagnostics. */
  get busyWith(): string | null {
    return this.#mutex.holder;
  }

  /** Runs a handler of the acceptor to its end, alone. @throws Cancelled once closed; what the handler and its effects throw */
  async run<T>(name: string, handler: (acceptor: Acceptor) => Steps<T>): Promise<T> {
    return this.exclusive(name, async () => {
      try {
        return await this.#drive(handler(this.#acceptor));
      } finally {
        this.#publish();
      }
    });
  }

  /** Runs `action` while no handler does: nothing of the state changes meanwhile. @throws Cancelled once closed */
  async exclusive<T>(name: string, action: () => Promise<T>): Promise<T> {
    return this.#mutex.run(name, async () => {
      // Its directory may be another timeline's by now: deleted, and made again.
      if (this.#closed) throw new Cancelled(`timeline ${this.id.tenantId}/${this.id.timelineId} is closed`);
      return await action();
    });
  }

  async #drive<T>(steps: Steps<T>): Promise<T> {
    for (let step = steps.next(); ; ) {
      if (step.done === true) return step.value;
      let failure: unknown = null;
      try {
        await this.#perform(step.value);
      } catch (error) {
        failure = error ?? new StrataError("unavailable", "effect-failed", "effect failed");
      }
      step = failure === null ? steps.next() : steps.throw(failure);
    }
  }

  async #perform(effect: Effect): Promise<void> {
    try {
      switch (effect.kind) {
        case "persist":
          return await this.#persist(effect.state);
        case "initialize-first-segment":
          return await this.#store.initializeFirstSegment(effect.lsn);
        case "truncate-wal":
          this.log.info("WAL cut", { lsn: effect.lsn, end: this.#store.writeLsn });
          return await this.#store.truncate(effect.lsn);
        case "write-wal":
          return await this.#store.append(effect.lsn, effect.bytes);
        case "flush-wal":
          return await this.#store.flush();
        case "note":
          return this.log[effect.level](effect.message, effect.fields);
      }
    } catch (error) {
      this.#noteFailure(error);
      throw error;
    }
  }

  /** An operator has to act on these: said once, not once a connection. */
  #noteFailure(error: unknown): void {
    const full = isStrataError(error, "disk-full");
    if (!full && this.#store.failure === null) return;
    if (this.#failureLogged) return;
    this.#failureLogged = true;
    if (full) this.log.error("the disk is full: WAL is refused until there is room", { error });
    else this.log.error("the disk failed: the timeline takes no more WAL on this safekeeper until it is restarted", { error });
  }

  async #persist(state: TimelinePersistentState): Promise<void> {
    const { files, sync, clock, metrics } = this.#context;
    const startMs = clock.monotonicMs();
    await writeControlFile(files, this.directory, { state, sync });
    metrics.persistControlFile.recordMs(clock.monotonicMs() - startMs);
    this.lastPersistMs = clock.monotonicMs();
    if (this.#store.failure === null) this.#failureLogged = false;
  }

  #publish(): void {
    this.commitLsn.set(this.#acceptor.volatile.commitLsn);
    const { term } = this.#acceptor.persisted;
    const { flushLsn } = this.#acceptor;
    const last = this.termFlush.value;
    if (last.term !== term || last.flushLsn !== flushLsn) this.termFlush.set({ term, flushLsn });
  }

  /** Takes in what a peer says of itself. Other safekeepers' positions are as good as ours where they only grow. */
  async recordPeer(info: SafekeeperTimelineInfo): Promise<void> {
    this.peers.record(info, this.#context.clock.monotonicMs());
    if (info.safekeeperId === this.#context.nodeId) return;
    await this.run("peer info", (acceptor) => handlePeerCommit(acceptor, info));
    if (this.receivers.streaming === 0 && this.#acceptor.volatile.commitLsn < this.#acceptor.flushLsn) await this.#deriveCommit();
    const { volatile } = this.#acceptor;
    volatile.backupLsn = Math.max(volatile.backupLsn, info.backupLsn);
    volatile.remoteConsistentLsn = Math.max(volatile.remoteConsistentLsn, info.remoteConsistentLsn);
    volatile.peerHorizonLsn = Math.max(volatile.peerHorizonLsn, info.peerHorizonLsn);
  }

  /** Without a proposer: what the safekeepers together know to be committed. */
  async #deriveCommit(): Promise<void> {
    const before = this.#acceptor.volatile.commitLsn;
    const positions = this.alivePeers().map(({ safekeeperId, term, lastLogTerm, flushLsn }) => ({ nodeId: safekeeperId, term, lastLogTerm, flushLsn }));
    await this.run("derive commit", (acceptor) => deriveCommit(acceptor, positions));
    const { commitLsn } = this.#acceptor.volatile;
    if (commitLsn > before) this.log.info("a majority of safekeepers has taken in more than was known to be committed", { commitLsn: lsnToString(commitLsn), before: lsnToString(before) });
  }

  recordPageserverFeedback(sender: WalSender, feedback: PageserverFeedback): void {
    this.senders.recordPageserver(sender, feedback);
    const { volatile } = this.#acceptor;
    // A pageserver cannot hold more than was committed.
    volatile.remoteConsistentLsn = Math.max(volatile.remoteConsistentLsn, Math.min(this.senders.remoteConsistentLsn, volatile.commitLsn));
    this.#context.metrics.pageserverFeedbacks.inc();
    this.receivers.passOn(feedback);
  }

  /** Writes the control file when memory is ahead of it. */
  async save(): Promise<void> {
    await this.run("save control file", (acceptor) => acceptor.persist());
  }

  /** @param fromLsn position of the first read, for an early and clear answer */
  reader(fromLsn: Lsn): WalReader {
    const { timelineStartLsn, localStartLsn, systemId, walSegmentSizeBytes } = this.state;
    if (timelineStartLsn === 0) throw new StrataError("not-found", "no-wal-yet", "the timeline has no WAL yet");
    if (fromLsn < timelineStartLsn - (timelineStartLsn % walSegmentSizeBytes)) {
      throw new StrataError("not-found", "wal-before-timeline", `WAL was asked for from before the timeline's start`, { details: { fromLsn, timelineStartLsn } });
    }
    const { files, fetchSegment } = this.#context;
    const fetch = fetchSegment === undefined ? {} : { fetchSegment: (segment: number) => fetchSegment(this.id, segment, walSegmentSizeBytes) };
    return new WalReader({ files, directory: this.directory, geometry: this.geometry, systemId, timelineStartLsn, localStartLsn, ...fetch });
  }

  /** Of WAL, by whole segments. */
  get diskUsageBytes(): number {
    const { walSegmentSizeBytes, localStartLsn } = this.state;
    if (localStartLsn === 0) return 0;
    const first = Math.max(this.removedBelowSegment, segmentOf(localStartLsn, walSegmentSizeBytes));
    return Math.max(0, segmentOf(this.#store.writeLsn, walSegmentSizeBytes) + 1 - first) * walSegmentSizeBytes;
  }

  /** @throws StrataError unavailable `timeline-disk-limit`: WAL is to be backed up or removed first */
  checkDiskUsage(): void {
    const { maxDiskUsageBytes = 0, metrics } = this.#context;
    if (maxDiskUsageBytes === 0 || this.diskUsageBytes <= maxDiskUsageBytes) return;
    metrics.walStorageLimitErrors.inc();
    throw new StrataError("unavailable", "timeline-disk-limit", `WAL of the timeline takes ${this.diskUsageBytes} bytes here, at most ${maxDiskUsageBytes} are allowed`);
  }

  /** For the broker. */
  info(): SafekeeperTimelineInfo {
    const { volatile, flushLsn, lastLogTerm } = this.#acceptor;
    const { pg, http, https = null, availabilityZone } = this.#context.endpoints();
    return {
      ...this.id, ...volatile, flushLsn,
      // A log whose node does not know what it promised must not be counted on.
      lastLogTerm: this.state.recovering ? 0 : lastLogTerm,
      safekeeperId: this.#context.nodeId,
      term: this.state.term,
      localStartLsn: this.state.localStartLsn,
      standbyHorizon: this.senders.standbyHorizonLsn,
      safekeeperConnstr: pg,
      httpConnstr: http,
      ...(https === null ? {} : { httpsConnstr: https }),
      ...(availabilityZone === null ? {} : { availabilityZone }),
    };
  }

  alivePeers(): SafekeeperTimelineInfo[] {
    return this.peers.alive(this.#context.clock.monotonicMs(), this.#context.heartbeatTimeoutMs);
  }

  /** Ends all connections, waits for them, makes durable what came in. @param save false when the files are to be removed */
  async close(options: { save: boolean }): Promise<void> {
    this.#cancel.abort();
    await this.gate.close();
    if (options.save && this.#store.failure === null) {
      await this.run("flush before closing", function* () {
        yield { kind: "flush-wal" };
      }).catch((error: unknown) => this.log.warn("WAL could not be flushed while closing", { error }));
      await this.save().catch((error: unknown) => this.log.warn("control file could not be saved while closing", { error }));
    }
    await this.#mutex.run("close", async () => {
      this.#closed = true;
      await this.#store.close();
    });
  }
}

export function geometryOf(state: TimelinePersistentState): WalGeometry {
  return { version: majorFromVersionNum(state.pgVersion), segmentSize: state.walSegmentSizeBytes };
}
