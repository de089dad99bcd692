/**
 * The proposer as a pure state machine: events in (a safekeeper connected, said something, left; local WAL grew), effects
 * out (send this, the quorum has that). No clock, no I/O, no randomness.
 *
 * One instance is one candidacy: greeting and vote of a majority, election at the end of the most advanced log, then
 * streaming. When it is superseded, or finds that the log does not end where its server's WAL begins, it says so once
 * and is dead; the shell decides what comes next.
 *
 *   greeting → waiting → voting → voted → active        (one safekeeper's connection)
 *   campaign-less → campaigning → elected → dead        (the proposer)
 *
 * Source of the rules: the peer (neondatabase/neon) docs/safekeeper-protocol.md, pgxn/neon/walproposer.c. It is Raft with
 * the leader outside the group (Ongaro, Ousterhout, "In Search of an Understandable Consensus Algorithm").
 */
import { InvariantError, StrataError, invariant } from "../../kit/errors.ts";
import type { NodeId } from "../../kit/ids.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { type Configuration, configurationToString, isMember } from "../../safekeeper/api/membership.ts";
import type { AcceptorGreeting, AcceptorMessage, AppendRequest, AppendResponse, ProposerMessage, VoteResponse } from "../../safekeeper/api/proposer-messages.ts";
import { type Term, highestCommonPoint, lastLogTerm } from "../../safekeeper/api/term-history.ts";
import type { CoreEffect, CoreOptions, Election, ProposerIdentity, ProposerMode } from "./core-types.ts";
import { commonLsn, hasQuorum, quorumLsn } from "./quorum.ts";

type SlotState = "offline" | "greeting" | "waiting" | "voting" | "voted" | "active";

interface Slot {
  state: SlotState;
  guardsVotes: boolean;
  nodeId: NodeId | null;
  vote: VoteResponse | null;
  /** Appends to it have reached this far. */
  sentLsn: Lsn;
  /** What it acknowledged as durable, of our history. */
  flushLsn: Lsn;
  /** What it has persisted as committed. */
  commitLsn: Lsn;
  /** The commit position last sent to it. */
  toldCommitLsn: Lsn;
  /** Is to be sent our positions even if there is no WAL for it. */
  heartbeatDue: boolean;
}

export class ProposerCore {
  readonly #identity: ProposerIdentity;
  readonly #mode: ProposerMode;
  readonly #slots: Slot[];
  #configuration: Configuration;
  #phase: "collecting" | "campaigning" | "elected" | "dead" = "collecting";
  #term: Term = 0;
  #election: Election | null = null;
  #availableLsn: Lsn;
  #commitLsn: Lsn = 0;
  #truncateLsn: Lsn = 0;
  #settledAll = false;
  #effects: CoreEffect[] = [];

  constructor(options: CoreOptions) {
    invariant(options.slots > 0, "a proposer needs a safekeeper");
    this.#identity = options.identity;
    this.#mode = options.mode;
    this.#configuration = options.configuration;
    this.#availableLsn = options.mode.kind === "run" ? options.mode.availableLsn : 0;
    this.#slots = Array.from({ length: options.slots }, () => ({
      state: "offline", guardsVotes: false, nodeId: null, vote: null, sentLsn: 0, flushLsn: 0, commitLsn: 0, toldCommitLsn: 0, heartbeatDue: false,
    }));
  }

  get term(): Term {
    return this.#term;
  }
  get election(): Election | null {
    return this.#election;
  }
  get configuration(): Configuration {
    return this.#configuration;
  }
  get commitLsn(): Lsn {
    return this.#commitLsn;
  }
  get truncateLsn(): Lsn {
    return this.#truncateLsn;
  }
  get dead(): boolean {
    return this.#phase === "dead";
  }
  /** Votes have been asked for, and there is no majority of them yet. */
  get campaigning(): boolean {
    return this.#phase === "campaigning";
  }
  /** For status pages. */
  slotStatus(slot: number): { readonly state: SlotState; readonly nodeId: NodeId | null; readonly flushLsn: Lsn; readonly commitLsn: Lsn } {
    const { state, nodeId, flushLsn, commitLsn } = this.#at(slot);
    return { state, nodeId, flushLsn, commitLsn };
  }

  /**
   * START_WAL_PUSH was accepted on a new connection.
   * @param guardsVotes the safekeeper itself sees to it that it gives no vote after it may have forgotten something
   */
  connected(slot: number, guardsVotes = false): readonly CoreEffect[] {
    if (this.#phase === "dead") return [];
    const at = this.#at(slot);
    at.state = "greeting";
    at.guardsVotes = guardsVotes;
    at.vote = null;
    this.#send(slot, { kind: "greeting", ...this.#identity, configuration: this.#configuration });
    return this.#take();
  }

  disconnected(slot: number): readonly CoreEffect[] {
    const at = this.#at(slot);
    at.state = "offline";
    at.vote = null;
    return this.#take();
  }

  /**
   * Votes are good for a while only: a safekeeper that lost its disk has forgotten its vote, and takes part again some time after.
   * To be called when that time is over: everyone who is there is asked anew, in a higher term.
   */
  expireVotes(): readonly CoreEffect[] {
    if (this.#phase !== "campaigning") return [];
    for (const slot of this.#slots) {
      if (slot.state !== "voting" && slot.state !== "voted") continue;
      slot.state = "waiting";
      slot.vote = null;
    }
    this.#phase = "collecting";
    this.#campaignIfQuorum();
    return this.#take();
  }

  /** Local WAL is durable in the server's own sense up to `lsn`. */
  walAvailable(lsn: Lsn): void {
    this.#availableLsn = Math.max(this.#availableLsn, lsn);
  }

  /** Everyone is to be told where we stand, WAL or not. */
  heartbeat(): void {
    for (const slot of this.#slots) slot.heartbeatDue = true;
  }

  /**
   * Whoever has heard of no commit position as high as `lsn` (the latest unless given) from an append is to be told the latest.
   * False when there is nobody.
   */
  spreadCommit(lsn: Lsn = this.#commitLsn): boolean {
    const behind = this.#slots.filter((slot) => slot.state === "active" && slot.toldCommitLsn < lsn);
    for (const slot of behind) slot.heartbeatDue = true;
    return behind.length > 0;
  }

  received(slot: number, message: AcceptorMessage): readonly CoreEffect[] {
    if (this.#phase === "dead") return [];
    const at = this.#at(slot);
    switch (message.kind) {
      case "greeting":
        if (at.state !== "greeting") this.#unexpected(slot, message);
        else this.#greeted(slot, message);
        break;
      case "vote":
        if (at.state !== "voting") this.#unexpected(slot, message);
        else this.#voted(slot, message);
        break;
      case "append":
        if (at.state !== "active") this.#unexpected(slot, message);
        else this.#appended(slot, message);
        break;
    }
    return this.#take();
  }

  /** What to send next to an active slot: WAL from `beginLsn` of at most `maxBytes`, or nothing but a heartbeat; null: wait. */
  nextAppend(slot: number, maxBytes: number): { readonly beginLsn: Lsn; readonly maxBytes: number } | null {
    const at = this.#at(slot);
    if (at.state !== "active" || this.#phase === "dead") return null;
    const left = this.#availableLsn - at.sentLsn;
    if (left > 0) return { beginLsn: at.sentLsn, maxBytes: Math.min(left, maxBytes) };
    return at.heartbeatDue ? { beginLsn: at.sentLsn, maxBytes: 0 } : null;
  }

  /** The request for WAL that was read for `nextAppend`'s answer (perhaps less than asked for); counts it as sent. */
  append(slot: number, beginLsn: Lsn, walData: Uint8Array): AppendRequest | null {
    const at = this.#at(slot);
    // The connection was replaced while the WAL was being read.
    if (at.state !== "active" || at.sentLsn !== beginLsn || this.#phase === "dead") return null;
    const endLsn = beginLsn + walData.length;
    invariant(endLsn <= this.#availableLsn, "WAL is sent that the server has not flushed");
    at.sentLsn = endLsn;
    at.heartbeatDue = false;
    at.toldCommitLsn = this.#commitLsn;
    const { generation } = this.#configuration;
    return { kind: "append", generation, term: this.#term, beginLsn, endLsn, commitLsn: this.#commitLsn, truncateLsn: this.#truncateLsn, walData };
  }

  #greeted(slot: number, greeting: AcceptorGreeting): void {
    if (!this.#identify(slot, greeting.nodeId)) return;
    const at = this.#at(slot);
    if (greeting.configuration.generation > this.#configuration.generation && !this.#adopt(greeting)) return;
    if (this.#phase === "collecting") {
      at.state = "waiting";
      this.#term = Math.max(this.#term, greeting.term);
      this.#campaignIfQuorum();
      return;
    }
    if (greeting.term > this.#term) {
      this.#superseded(greeting.term, `safekeeper ${greeting.nodeId} is at term ${greeting.term}, ours is ${this.#term}: another compute is running`);
      return;
    }
    at.state = "waiting";
    this.#requestVote(slot);
  }

  /** One disk must not count twice. An address that leads to a safekeeper we are connected to already is a mistake in the list of addresses. */
  #identify(slot: number, nodeId: NodeId): boolean {
    const other = this.#slots.findIndex((at, index) => index !== slot && at.nodeId === nodeId);
    if (other >= 0 && this.#at(other).state !== "offline") {
      this.#drop(slot, "duplicate-safekeeper", `two addresses of safekeepers lead to one, node ${nodeId}: a commit needs a majority of different ones`);
      return false;
    }
    // It has moved here, and what it acknowledged is asked for again.
    if (other >= 0) Object.assign(this.#at(other), { nodeId: null, flushLsn: 0, commitLsn: 0 });
    this.#at(slot).nodeId = nodeId;
    return true;
  }

  /** Takes over a newer configuration; false when that ends this candidacy. */
  #adopt(greeting: AcceptorGreeting): boolean {
    const { configuration } = greeting;
    if (this.#phase === "collecting") {
      this.#configuration = configuration;
      return true;
    }
    const error = new StrataError("retry", "configuration-changed", `safekeeper ${greeting.nodeId} has a newer configuration: ${configurationToString(configuration)}`);
    this.#die({ kind: "superseded", term: this.#term, configuration, error });
    return false;
  }

  #campaignIfQuorum(): void {
    if (!hasQuorum(this.#configuration, this.#slots, (slot) => slot.state === "waiting")) return;
    this.#term += 1;
    this.#phase = "campaigning";
    for (let slot = 0; slot < this.#slots.length; slot++) if (this.#at(slot).state === "waiting") this.#requestVote(slot);
  }

  #requestVote(slot: number): void {
    this.#at(slot).state = "voting";
    this.#send(slot, { kind: "vote-request", generation: this.#configuration.generation, term: this.#term });
  }

  #voted(slot: number, vote: VoteResponse): void {
    const at = this.#at(slot);
    // A vote once given in our term is not given again on a second connection; before the election we cannot know whose it was.
    if (vote.term > this.#term || (!vote.voteGiven && this.#phase === "campaigning")) {
      this.#superseded(vote.term, `safekeeper ${at.nodeId} refused its vote for term ${this.#term}, being at ${vote.term}: another compute is running`);
      return;
    }
    if (vote.term < this.#term) {
      this.#drop(slot, "protocol-violation", `a vote of term ${vote.term}, asked for ${this.#term}`);
      return;
    }
    at.state = "voted";
    at.vote = vote;
    if (this.#phase === "elected") this.#announce(slot);
    else if (this.#hasVotes()) this.#win();
  }

  /**
   * A safekeeper that has nothing of a log that others have may have lost its disk, and with it what it once acknowledged: its
   * vote does not make a majority. Only when everyone has voted is nothing left that could be missed;
   * and one that guards its votes itself has had no WAL when it gives one.
   */
  #hasVotes(): boolean {
    const voted = (slot: Slot): boolean => slot.state === "voted";
    const hasLog = (slot: Slot): boolean => voted(slot) && slot.vote !== null && slot.vote.flushLsn > 0;
    const isSound = (slot: Slot): boolean => hasLog(slot) || (voted(slot) && slot.guardsVotes);
    const counts = this.#slots.some(hasLog) && !this.#slots.every(voted) ? isSound : voted;
    return hasQuorum(this.#configuration, this.#slots, counts);
  }

  /** Raft 5.4.1: the log to go on from is the one with the highest (last term, end) of a majority: it has all that was committed. */
  #win(): void {
    let donor = -1;
    let donorVote: VoteResponse | null = null;
    for (let slot = 0; slot < this.#slots.length; slot++) {
      const { state, vote, nodeId } = this.#at(slot);
      if (state !== "voted" || vote === null || !this.#counts(nodeId)) continue;
      this.#truncateLsn = Math.max(this.#truncateLsn, vote.truncateLsn);
      if (donorVote === null || moreAdvanced(vote, donorVote)) {
        donor = slot;
        donorVote = vote;
      }
    }
    if (donorVote === null) throw new InvariantError("elected without a vote");
    const startLsn = this.#startOf(donorVote);
    if (startLsn === null) return;
    const history = [...donorVote.termHistory, { term: this.#term, lsn: startLsn }];
    this.#election = { term: this.#term, startLsn, history, donor: donorVote.flushLsn === 0 ? null : donor };
    this.#phase = "elected";
    this.#availableLsn = Math.max(this.#availableLsn, startLsn);
    if (this.#truncateLsn === 0) this.#truncateLsn = history[0].lsn;
    this.#effects.push({ kind: "elected", election: this.#election });
    for (let slot = 0; slot < this.#slots.length; slot++) if (this.#at(slot).state === "voted") this.#announce(slot);
  }

  #counts(nodeId: NodeId | null): boolean {
    return this.#configuration.generation === 0 || (nodeId !== null && isMember(this.#configuration, nodeId));
  }

  /** Where our term begins; null when this candidacy ends here. */
  #startOf(donor: VoteResponse): Lsn | null {
    const end = donor.flushLsn;
    const mode = this.#mode;
    if (mode.kind === "sync") {
      if (end > 0) return end;
      // Nobody has any WAL: there is nothing to settle, and a history that begins at 0/0 would be nonsense.
      this.#die({ kind: "settled", lsn: 0, all: true });
      return null;
    }
    if (mode.previousTerm === null) {
      if (end === 0 || end === mode.startLsn) return mode.startLsn;
    } else if (lastLogTerm(donor.termHistory, end) === mode.previousTerm && end <= this.#availableLsn) {
      // A second election under a living server: the log goes on as that server knows it only if nobody else has won
      // since, and all of it came from this server.
      return end;
    }
    const message = `the log ends at ${lsnToString(end)} (term ${lastLogTerm(donor.termHistory, end)}), this server's WAL began at ${lsnToString(mode.startLsn)}: a new base backup is needed`;
    this.#die({ kind: "start-mismatch", error: new StrataError("conflict", "log-moved-on", message) });
    return null;
  }

  #announce(slot: number): void {
    const at = this.#at(slot);
    const election = this.#election;
    const { vote } = at;
    invariant(election !== null && vote !== null, "announcing an election that was not won");
    const startStreamingAt = highestCommonPoint(election.history, vote.termHistory, vote.flushLsn)?.lsn ?? election.history[0].lsn;
    if (startStreamingAt > this.#availableLsn) {
      this.#drop(slot, "log-moved-on", `safekeeper ${at.nodeId} has WAL up to ${lsnToString(startStreamingAt)} that this server never wrote`);
      return;
    }
    at.state = "active";
    at.sentLsn = startStreamingAt;
    // What it acknowledged on an earlier connection it may have lost since, with its disk.
    at.flushLsn = Math.min(at.flushLsn, startStreamingAt);
    at.heartbeatDue = true;
    at.toldCommitLsn = 0;
    this.#send(slot, { kind: "elected", generation: this.#configuration.generation, term: this.#term, startStreamingAt, termHistory: election.history });
    this.#effects.push({ kind: "stream", slot });
  }

  #appended(slot: number, response: AppendResponse): void {
    const at = this.#at(slot);
    if (response.generation !== this.#configuration.generation) {
      this.#drop(slot, "generation-mismatch", `safekeeper ${at.nodeId} answered with configuration generation ${response.generation}, ours is ${this.#configuration.generation}`);
      return;
    }
    if (response.term > this.#term) {
      this.#superseded(response.term, `safekeeper ${at.nodeId} is at term ${response.term}, ours is ${this.#term}: another compute is running`);
      return;
    }
    if (response.term < this.#term || response.flushLsn > at.sentLsn) {
      this.#drop(slot, "protocol-violation", `safekeeper ${at.nodeId} acknowledges ${lsnToString(response.flushLsn)} in term ${response.term}; sent was ${lsnToString(at.sentLsn)} in term ${this.#term}`);
      return;
    }
    at.flushLsn = response.flushLsn;
    at.commitLsn = Math.max(at.commitLsn, response.commitLsn);
    this.#advance();
    this.#effects.push({ kind: "feedback", slot, hotStandby: response.hotStandbyFeedback, pageserver: response.pageserverFeedback });
    if (this.#mode.kind === "sync") this.#checkSettled();
  }

  #advance(): void {
    const start = this.#election?.startLsn ?? Number.POSITIVE_INFINITY;
    // Raft 5.4.2: WAL of earlier terms is committed only together with ours, so who has not reached our start does not count.
    const commitLsn = quorumLsn(this.#configuration, this.#slots, (slot) => (slot.flushLsn >= start ? slot.flushLsn : 0));
    if (commitLsn > this.#commitLsn) {
      this.#commitLsn = commitLsn;
      if (this.#mode.kind === "sync") this.spreadCommit();
      this.#effects.push({ kind: "committed", lsn: commitLsn });
    }
    const truncateLsn = Math.min(this.#commitLsn, commonLsn(this.#configuration, this.#slots, (slot) => slot.flushLsn));
    if (truncateLsn > this.#truncateLsn) {
      this.#truncateLsn = truncateLsn;
      this.#effects.push({ kind: "truncated", lsn: truncateLsn });
    }
  }

  #checkSettled(): void {
    const lsn = this.#election?.startLsn ?? 0;
    // The majority must know it as committed: only then may any of them give it to a pageserver.
    if (!hasQuorum(this.#configuration, this.#slots, (slot) => slot.commitLsn >= lsn)) return;
    const all = this.#slots.every((slot) => slot.state === "offline" || slot.commitLsn >= lsn);
    if (this.#settledAll) return;
    this.#settledAll = all;
    this.#effects.push({ kind: "settled", lsn, all });
  }

  #superseded(term: Term, message: string): void {
    const error = new StrataError("conflict", "proposer-superseded", message);
    this.#die({ kind: "superseded", term, configuration: this.#configuration, error });
  }

  #die(effect: CoreEffect): void {
    this.#phase = "dead";
    this.#effects.push(effect);
  }

  #unexpected(slot: number, message: AcceptorMessage): void {
    this.#drop(slot, "protocol-violation", `message "${message.kind}" in state ${this.#at(slot).state}`);
  }

  #drop(slot: number, code: string, message: string): void {
    this.#at(slot).state = "offline";
    this.#effects.push({ kind: "drop", slot, error: new StrataError("conflict", code, message) });
  }

  #send(slot: number, message: ProposerMessage): void {
    this.#effects.push({ kind: "send", slot, message });
  }

  #at(slot: number): Slot {
    const at = this.#slots[slot];
    if (at === undefined) throw new InvariantError(`no safekeeper slot ${slot}`);
    return at;
  }

  #take(): readonly CoreEffect[] {
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }
}

function moreAdvanced(a: VoteResponse, b: VoteResponse): boolean {
  const termA = lastLogTerm(a.termHistory, a.flushLsn);
  const termB = lastLogTerm(b.termHistory, b.flushLsn);
  return termA > termB || (termA === termB && a.flushLsn > b.flushLsn);
}
