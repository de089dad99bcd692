/**
 * One candidacy with its links: the core fed and its effects carried out, from the first greeting until it is superseded,
 * fails, or is closed. The log settlement and the running proposer are both made of these.
 */
import { StrataError, describeError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { Logger } from "../../observability/log.ts";
import type { Timer } from "../../platform/clock.ts";
import type { AcceptorMessage } from "../../safekeeper/api/proposer-messages.ts";
import type { PgTls } from "../../wire/client-tls.ts";
import { ProposerCore } from "./core.ts";
import type { CoreEffect, CoreOptions, Election } from "./core-types.ts";
import { DonorWal } from "./donor-wal.ts";
import type { LocalWal } from "./local-wal.ts";
import type { NetworkPlatform, SafekeeperAddress, TimelineConnection } from "./safekeeper-client.ts";
import { SafekeeperLink } from "./safekeeper-link.ts";

const HEARTBEAT_MS = 1_000;
/**
 * A new commit position travels with the next append; only when none has told it within this time (twice as much for one that comes while
 * an earlier one waits) is it sent alone. Commits do not wait for it, readers of the safekeepers do.
 */
const SPREAD_COMMIT_MS = 5;
/**
 * An election is won within this time after votes were asked for, or begins anew. Shorter than the time for which a safekeeper
 * whose disk was lost stays away (`REJOIN_AFTER_MS` of the safekeeper): no vote counts that its giver does not remember.
 */
const VOTES_VALID_MS = 5_000;

export interface CandidacyOptions extends Omit<CoreOptions, "slots"> {
  readonly safekeepers: readonly SafekeeperAddress[];
  readonly platform: NetworkPlatform;
  readonly authToken?: string;
  readonly tls?: PgTls | undefined;
  readonly log: Logger;
  /** WAL of the local server; null when there is none (settling). */
  readonly localWal: LocalWal | null;
  /** Local WAL that the quorum needs is gone for good. */
  readonly onWalLost?: (error: StrataError) => void;
  /** Every effect that is not about connections. */
  readonly onEffect: (effect: CoreEffect) => void;
}

export class Candidacy {
  readonly core: ProposerCore;
  readonly #options: CandidacyOptions;
  readonly #timeline: TimelineConnection;
  readonly #links: SafekeeperLink[];
  readonly #running: Promise<void>[] = [];
  readonly #abort = new AbortController();
  readonly #donors = new Map<number, DonorWal>();
  #heartbeat: Timer | null = null;
  /** Of the campaign under way: its term, and when votes were asked for. */
  #campaign: { readonly term: number; readonly sinceMs: number } | null = null;
  #spreading: Timer | null = null;

  constructor(options: CandidacyOptions) {
    this.#options = options;
    const { identity, configuration, mode, platform, log, safekeepers } = options;
    this.core = new ProposerCore({ identity, configuration, mode, slots: safekeepers.length });
    const { tenantId, timelineId } = identity;
    this.#timeline = { tenantId, timelineId, tls: options.tls, ...(options.authToken === undefined ? {} : { authToken: options.authToken }) };
    this.#links = safekeepers.map((address, slot) => new SafekeeperLink({
      slot, address, core: this.core, platform, log, signal: this.#abort.signal,
      timeline: { ...this.#timeline, peers: safekeepers.filter((_, other) => other !== slot) },
      receive: (message) => this.#receive(slot, message),
      readWal: (lsn, maxBytes) => this.#readWal(slot, lsn, maxBytes),
      carryOut: (effects) => this.#carryOut(effects),
    }));
  }

  /** What keeps each safekeeper away, for the error of someone who waited in vain; empty when all are connected. */
  troubles(): string {
    const { safekeepers } = this.#options;
    return this.#links.flatMap(({ lastError }, slot) => (lastError === null ? [] : [`${safekeepers[slot].host}:${safekeepers[slot].port}: ${describeError(lastError)}`])).join("; ");
  }

  start(): void {
    for (const link of this.#links) this.#running.push(link.run());
    this.#beat();
  }

  /** Tells the core about newly flushed local WAL and lets it flow. */
  walAvailable(lsn: Lsn): void {
    this.core.walAvailable(lsn);
    this.wake();
  }

  wake(): void {
    for (const link of this.#links) link.wake();
  }

  /** Sends everyone our positions now. */
  heartbeatNow(): void {
    this.core.heartbeat();
    this.wake();
  }

  async close(): Promise<void> {
    this.#abort.abort();
    this.#heartbeat?.cancel();
    this.#spreading?.cancel();
    for (const donor of this.#donors.values()) donor.close();
    this.wake();
    await Promise.all(this.#running);
  }

  #receive(slot: number, message: AcceptorMessage): void {
    // Also after this process stood still, before the vote that would have been the decisive one.
    this.#expireVotes();
    const sinceMs = this.#options.platform.clock.monotonicMs();
    this.#carryOut(this.core.received(slot, message));
    this.#noteCampaign(sinceMs);
  }

  #noteCampaign(sinceMs: number): void {
    const { campaigning, term } = this.core;
    if (!campaigning) this.#campaign = null;
    else if (this.#campaign?.term !== term) this.#campaign = { term, sinceMs };
  }

  #expireVotes(): void {
    const { platform, log } = this.#options;
    const nowMs = platform.clock.monotonicMs();
    if (this.#campaign === null || nowMs - this.#campaign.sinceMs < VOTES_VALID_MS) return;
    log.info("no majority of votes in time: asking anew", { term: this.#campaign.term });
    this.#carryOut(this.core.expireVotes());
    this.#noteCampaign(nowMs);
  }

  #beat(): void {
    if (this.#abort.signal.aborted) return;
    this.#heartbeat = this.#options.platform.clock.after(HEARTBEAT_MS, () => {
      this.#expireVotes();
      for (const link of this.#links) link.checkAlive();
      this.heartbeatNow();
      this.#beat();
    });
  }

  #carryOut(effects: readonly CoreEffect[]): void {
    for (const effect of effects) {
      if (this.#abort.signal.aborted) return;
      switch (effect.kind) {
        case "send":
          this.#links[effect.slot].send(effect.message);
          break;
        case "drop":
          this.#links[effect.slot].drop(effect.error);
          break;
        case "stream":
          this.#links[effect.slot].stream();
          break;
        case "elected":
          this.#logElection(effect.election);
          this.#options.onEffect(effect);
          break;
        case "committed":
          this.#spreadCommit();
          this.#options.onEffect(effect);
          break;
        default:
          this.#options.onEffect(effect);
      }
    }
  }

  #spreadCommit(): void {
    if (this.#options.mode.kind === "sync") this.wake();
    else if (this.#spreading === null) this.#spreadLater();
  }

  #spreadLater(): void {
    const dueLsn = this.core.commitLsn;
    this.#spreading = this.#options.platform.clock.after(SPREAD_COMMIT_MS, () => {
      this.#spreading = null;
      if (this.core.spreadCommit(dueLsn)) this.wake();
      // What was committed meanwhile has its own time: under load the next append has told it by then.
      if (this.core.commitLsn > dueLsn) this.#spreadLater();
    });
  }

  #logElection(election: Election): void {
    const { safekeepers, log } = this.#options;
    const donor = election.donor === null ? "none" : `${safekeepers[election.donor].host}:${safekeepers[election.donor].port}`;
    log.info("elected", { term: election.term, startLsn: lsnToString(election.startLsn), donor, mode: this.#options.mode.kind });
  }

  #readWal(slot: number, lsn: Lsn, maxBytes: number): Uint8Array | Promise<Uint8Array> {
    const buffered = this.#options.localWal?.buffered(lsn, maxBytes) ?? null;
    if (buffered === null) return this.#fetchWal(slot, lsn, maxBytes);
    this.#closeDonor(slot);
    return buffered;
  }

  async #fetchWal(slot: number, lsn: Lsn, maxBytes: number): Promise<Uint8Array> {
    const local = (await this.#options.localWal?.read(lsn, maxBytes)) ?? null;
    if (local !== null) {
      this.#closeDonor(slot);
      return local;
    }
    const { election } = this.core;
    const address = this.#donorFor(slot, lsn);
    if (election === null || address === null) {
      this.#checkLost(lsn);
      throw new StrataError("unavailable", "no-donor", `WAL at ${lsnToString(lsn)} is neither here nor on a safekeeper we are connected to`);
    }
    let donor = this.#donors.get(slot);
    if (donor === undefined) {
      donor = new DonorWal({ platform: this.#options.platform, timeline: this.#timeline, term: this.core.term, signal: this.#abort.signal });
      this.#donors.set(slot, donor);
    }
    return await donor.read(address, lsn, maxBytes);
  }

  /** WAL that no safekeeper was ever known to have, and the local server has removed: commits cannot go on. */
  #checkLost(lsn: Lsn): void {
    const { localWal, onWalLost, safekeepers } = this.#options;
    if (localWal === null || lsn >= localWal.endLsn || lsn < this.core.commitLsn) return;
    if (safekeepers.some((_, slot) => this.core.slotStatus(slot).flushLsn > lsn)) return;
    const message = `the local server has removed WAL at ${lsnToString(lsn)}, which no quorum has: safekeepers were away for too much WAL`;
    onWalLost?.(new StrataError("unavailable", "wal-removed", message));
  }

  #closeDonor(slot: number): void {
    this.#donors.get(slot)?.close();
    this.#donors.delete(slot);
  }

  /** Another safekeeper of our term that has WAL beyond `lsn`: who acknowledged it, else the one that determined our start. */
  #donorFor(slot: number, lsn: Lsn): SafekeeperAddress | null {
    const { election } = this.core;
    let best = -1;
    let bestLsn = lsn;
    for (let other = 0; other < this.#links.length; other++) {
      const { state, flushLsn } = this.core.slotStatus(other);
      if (other === slot || state !== "active") continue;
      const end = other === election?.donor ? Math.max(flushLsn, election.startLsn) : flushLsn;
      if (end > bestLsn) {
        best = other;
        bestLsn = end;
      }
    }
    return best < 0 ? null : this.#options.safekeepers[best];
  }
}
