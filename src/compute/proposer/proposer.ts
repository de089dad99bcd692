/**
 * The proposer of a running compute: takes the local server's WAL to the safekeepers and tells the server what a quorum
 * has. It outlives connections and, under the condition in core.ts, elections; when it cannot go on it says so once
 * through `failed`, and its PostgreSQL must be stopped.
 */
import type { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { Logger } from "../../observability/log.ts";
import type { FileSystem } from "../../platform/files.ts";
import { type Configuration, EMPTY_CONFIGURATION } from "../../safekeeper/api/membership.ts";
import type { HotStandbyFeedback } from "../../safekeeper/api/proposer-messages.ts";
import type { PageserverFeedback } from "../../safekeeper/api/pageserver-feedback.ts";
import type { Term } from "../../safekeeper/api/term-history.ts";
import type { PgTls } from "../../wire/client-tls.ts";
import { Candidacy } from "./candidacy.ts";
import type { CoreEffect, ProposerIdentity } from "./core-types.ts";
import { aggregateFeedback } from "./hot-standby.ts";
import { type LagLimits, NO_LAG_LIMITS, PageserverPositions } from "./pageserver-positions.ts";
import { LocalWal } from "./local-wal.ts";
import { type LocalServer, LocalWalStream, releaseWal } from "./local-wal-stream.ts";
import type { NetworkPlatform, SafekeeperAddress } from "./safekeeper-client.ts";

export interface ProposerOptions {
  readonly identity: ProposerIdentity;
  readonly safekeepers: readonly SafekeeperAddress[];
  readonly authToken?: string;
  readonly tls?: PgTls | undefined;
  readonly platform: NetworkPlatform & { readonly files: FileSystem };
  readonly log: Logger;
  readonly server: LocalServer;
  /** `pg_wal` of the data directory. */
  readonly walDirectory: string;
  /** Where this server's WAL begins: the settled LSN. */
  readonly startLsn: Lsn;
  /** How far commits may get ahead of the pageservers before they wait for them; without limits unless given. */
  readonly lagLimits?: LagLimits;
  /** Pageservers have told something new. */
  readonly onPageserverNews?: (positions: PageserverPositions) => void;
}

export interface ProposerStatus {
  readonly term: Term;
  readonly elected: boolean;
  readonly commitLsn: Lsn;
  readonly flushLsn: Lsn;
  readonly truncateLsn: Lsn;
  readonly safekeepers: readonly { readonly address: string; readonly state: string; readonly flushLsn: Lsn }[];
  readonly pageserver: PageserverPositions;
  /** Commits wait for the pageservers now. */
  readonly throttled: boolean;
  /** How long they have waited, in all. */
  readonly throttledMs: number;
}

/** After losing a candidacy, before the next: long enough for the winner to announce itself. */
const CAMPAIGN_PAUSE_MS = 1_000;
const LAST_WORD_MS = 20;
const LAST_WORD_MAX_MS = 1_000;
/** A proposer that cannot get elected again in so many tries has lost for good. */
const MAX_CAMPAIGNS = 20;

export class Proposer {
  readonly #options: ProposerOptions;
  readonly #abort = new AbortController();
  readonly #wal: LocalWal;
  readonly #walStream: LocalWalStream;
  readonly #failed = Promise.withResolvers<StrataError>();
  readonly #elected = Promise.withResolvers<void>();
  readonly #standbyFeedback = new Map<number, HotStandbyFeedback>();
  readonly #commitWaiters = new Set<{ readonly lsn: Lsn; readonly resolve: () => void }>();
  #candidacy: Candidacy;
  #running: Promise<unknown>[] = [];
  #commitLsn: Lsn = 0;
  #electedTerm: Term | null = null;
  #campaigns = 0;
  #releasedLsn: Lsn;
  #releasing = false;
  #hasFailed = false;
  readonly #pageserver = new PageserverPositions();
  #lagLimits: LagLimits;
  /** What the limits allow by what pageservers have told. */
  #ceilingLsn: Lsn = Number.POSITIVE_INFINITY;
  #confirmableMaxLsn: Lsn = 0;
  #throttledSinceMs: number | null = null;
  #throttledMs = 0;

  constructor(options: ProposerOptions) {
    this.#options = options;
    const { platform, walDirectory, startLsn, identity, log, server } = options;
    this.#releasedLsn = startLsn;
    this.#lagLimits = options.lagLimits ?? NO_LAG_LIMITS;
    this.#wal = new LocalWal({ files: platform.files, walDirectory, segmentSizeBytes: identity.walSegmentSizeBytes, startLsn });
    this.#walStream = new LocalWalStream({
      platform, server, wal: this.#wal, log, signal: this.#abort.signal,
      onWal: () => this.#candidacy.walAvailable(this.#wal.endLsn),
      commitLsn: () => this.#confirmableLsn(),
    });
    this.#candidacy = this.#newCandidacy(EMPTY_CONFIGURATION);
  }

  /** Begins to campaign. */
  start(): void {
    this.#candidacy.start();
  }

  /** Begins to stream: the server accepts connections. */
  stream(): void {
    this.#running.push(this.#walStream.run());
  }

  /** Resolves when elected at this server's start; rejects when that cannot be. */
  get elected(): Promise<void> {
    return this.#elected.promise;
  }

  /** Resolves with the reason when PostgreSQL must be stopped: it can never commit again. Never rejects. */
  get failed(): Promise<StrataError> {
    return this.#failed.promise;
  }

  get commitLsn(): Lsn {
    return this.#commitLsn;
  }

  /** End of the local WAL received. */
  get flushLsn(): Lsn {
    return this.#wal.endLsn;
  }

  status(): ProposerStatus {
    const { core } = this.#candidacy;
    const safekeepers = this.#options.safekeepers.map(({ host, port }, slot) => {
      const { state, flushLsn } = core.slotStatus(slot);
      return { address: `${host}:${port}`, state, flushLsn };
    });
    const { term, truncateLsn } = core;
    return { term, elected: core.election !== null, commitLsn: this.#commitLsn, flushLsn: this.#wal.endLsn, truncateLsn, safekeepers, pageserver: this.#pageserver, throttled: this.#throttledSinceMs !== null, throttledMs: this.throttledMs };
  }

  get throttledMs(): number {
    const since = this.#throttledSinceMs;
    return this.#throttledMs + (since === null ? 0 : this.#options.platform.clock.monotonicMs() - since);
  }

  /** Commits wait for the quorum alone from now on: for a server that stops, and waits for every byte. */
  liftLagLimits(): void {
    this.#lagLimits = NO_LAG_LIMITS;
    this.#limit();
  }

  /** Resolves true when a quorum has everything up to `lsn`, false after `timeoutMs`. */
  async waitCommitted(lsn: Lsn, timeoutMs: number): Promise<boolean> {
    if (this.#commitLsn >= lsn) return true;
    return await new Promise<boolean>((resolve) => {
      const waiter = { lsn, resolve: () => finish(true) };
      const timer = this.#options.platform.clock.after(timeoutMs, () => finish(false));
      const finish = (reached: boolean): void => {
        timer.cancel();
        this.#commitWaiters.delete(waiter);
        resolve(reached);
      };
      this.#commitWaiters.add(waiter);
    });
  }

  /** Tells the safekeepers the last positions and ends all connections. */
  async close(): Promise<void> {
    const { clock } = this.#options.platform;
    // The quorum has it all already; with everyone at one place the next start needs no election.
    for (let waitedMs = 0; waitedMs < LAST_WORD_MAX_MS && this.#someoneBehind(); waitedMs += LAST_WORD_MS) await clock.sleep(LAST_WORD_MS);
    this.#candidacy.heartbeatNow();
    await clock.sleep(LAST_WORD_MS);
    this.#abort.abort();
    await this.#candidacy.close();
    await Promise.all(this.#running);
  }

  #someoneBehind(): boolean {
    const { core } = this.#candidacy;
    if (this.#hasFailed || core.dead || this.#commitLsn < this.#wal.endLsn) return false;
    return this.#options.safekeepers.some((_, slot) => core.slotStatus(slot).state === "active" && core.slotStatus(slot).flushLsn < this.#wal.endLsn);
  }

  #newCandidacy(configuration: Configuration): Candidacy {
    const { identity, safekeepers, platform, log, authToken, tls, startLsn } = this.#options;
    const candidacy: Candidacy = new Candidacy({
      identity, safekeepers, platform, log, configuration, tls, localWal: this.#wal,
      mode: { kind: "run", startLsn, availableLsn: this.#wal.endLsn, previousTerm: this.#electedTerm },
      onEffect: (effect) => this.#onEffect(effect),
      onWalLost: (error) => this.#fail(error),
      ...(authToken === undefined ? {} : { authToken }),
    });
    return candidacy;
  }

  #onEffect(effect: CoreEffect): void {
    switch (effect.kind) {
      case "elected":
        this.#electedTerm = effect.election.term;
        this.#campaigns = 0;
        this.#candidacy.walAvailable(this.#wal.endLsn);
        this.#elected.resolve();
        break;
      case "committed":
        this.#committed(effect.lsn);
        break;
      case "truncated":
        this.#truncated(effect.lsn);
        break;
      case "feedback":
        this.#feedback(effect.slot, effect.hotStandby, effect.pageserver);
        break;
      case "superseded":
        this.#superseded(effect.error, effect.configuration);
        break;
      case "start-mismatch":
        this.#fail(effect.error);
        break;
    }
  }

  /** What the quorum has, or less while pageservers lag too far behind: commits beyond it wait. Never less than before. */
  #confirmableLsn(): Lsn {
    const throttled = this.#ceilingLsn < this.#commitLsn;
    if (throttled !== (this.#throttledSinceMs !== null)) this.#setThrottled(throttled);
    this.#confirmableMaxLsn = Math.max(this.#confirmableMaxLsn, Math.min(this.#commitLsn, this.#ceilingLsn));
    return this.#confirmableMaxLsn;
  }

  #setThrottled(throttled: boolean): void {
    const nowMs = this.#options.platform.clock.monotonicMs();
    const since = this.#throttledSinceMs;
    if (since !== null) this.#throttledMs += nowMs - since;
    this.#throttledSinceMs = throttled ? nowMs : null;
  }

  #limit(): void {
    this.#ceilingLsn = this.#pageserver.ceiling(this.#lagLimits);
    this.#walStream.confirm();
  }

  #committed(lsn: Lsn): void {
    if (lsn <= this.#commitLsn) return;
    this.#commitLsn = lsn;
    this.#walStream.confirm();
    for (const waiter of this.#commitWaiters) if (waiter.lsn <= lsn) waiter.resolve();
  }

  /** Once a segment, not at every step: it costs the server a query. */
  #truncated(lsn: Lsn): void {
    const { walSegmentSizeBytes } = this.#options.identity;
    if (this.#releasing || Math.floor(lsn / walSegmentSizeBytes) <= Math.floor(this.#releasedLsn / walSegmentSizeBytes)) return;
    this.#releasing = true;
    const { platform, server, log } = this.#options;
    releaseWal(platform, server, lsn)
      .then(() => void (this.#releasedLsn = lsn))
      .catch((error: unknown) => log.info("slot was not advanced", { lsn: lsnToString(lsn), error }))
      .finally(() => void (this.#releasing = false));
  }

  #feedback(slot: number, hotStandby: HotStandbyFeedback, pageserver: PageserverFeedback | null): void {
    if (pageserver !== null && this.#pageserver.heard(pageserver)) {
      this.#options.onPageserverNews?.(this.#pageserver);
      this.#limit();
    }
    if (hotStandby.timestamp !== 0n || this.#standbyFeedback.size > 0) this.#standbysSay(slot, hotStandby);
  }

  #standbysSay(slot: number, hotStandby: HotStandbyFeedback): void {
    const known = this.#standbyFeedback;
    const before = known.get(slot);
    const isNews = before === undefined ? hotStandby.timestamp !== 0n : before.timestamp !== hotStandby.timestamp;
    if (isNews) known.set(slot, hotStandby);
    // A safekeeper that is gone holds nothing back any more: its standbys go to another.
    const gone = [...known.keys()].filter((other) => this.#candidacy.core.slotStatus(other).state !== "active");
    for (const other of gone) known.delete(other);
    if (isNews || gone.length > 0) this.#walStream.passHotStandbyFeedback(aggregateFeedback([...known.values()]));
  }

  #superseded(error: StrataError, configuration: Configuration): void {
    const { log } = this.#options;
    this.#campaigns++;
    if (this.#campaigns > MAX_CAMPAIGNS) {
      this.#fail(error);
      return;
    }
    log.warn("proposer lost its leadership: finding out whether to go on", { error });
    this.#running.push(this.#campaignAgain(configuration));
  }

  async #campaignAgain(configuration: Configuration): Promise<void> {
    const { platform } = this.#options;
    await this.#candidacy.close();
    await platform.clock.sleep(CAMPAIGN_PAUSE_MS, this.#abort.signal).catch(() => {});
    if (this.#abort.signal.aborted) return;
    this.#candidacy = this.#newCandidacy(configuration);
    this.#candidacy.start();
  }

  #fail(error: StrataError): void {
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    const { log } = this.#options;
    if (this.#electedTerm === null) log.info("proposer cannot be elected where its server's WAL begins", { error });
    else log.error("proposer is fenced: its PostgreSQL cannot commit any more", { error });
    this.#elected.reject(error);
    this.#elected.promise.catch(() => {});
    this.#failed.resolve(error);
  }
}
