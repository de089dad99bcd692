/** The states of a compute, and what the shipping core of the proposer does from each of them, computed once. */
import type { Lsn } from "../../../../src/kit/lsn.ts";
import type { CoreEffect } from "../../../../src/compute/proposer/core-types.ts";
import { ProposerCore } from "../../../../src/compute/proposer/core.ts";
import type { AcceptorMessage } from "../../../../src/safekeeper/api/proposer-messages.ts";
import { type Configuration as Membership, EMPTY_CONFIGURATION } from "../../../../src/safekeeper/api/membership.ts";
import { CoreCompute } from "../core-compute.ts";
import { FIRST_LSN, IDENTITY } from "../core-node.ts";
import { cloneCore, open } from "../snapshot.ts";
import { historyKey, messageKey, type Messages } from "./messages.ts";
import { Interner, PairTable } from "./tables.ts";
import type { ElectedEvent, AcknowledgedEvent } from "./ghosts.ts";

/** What a step of a compute does to the rest. */
export type Output =
  | { readonly kind: "send"; readonly slot: number; readonly message: number }
  /** Both ends, with all that is on the way. */
  | { readonly kind: "close"; readonly slot: number }
  /** The compute's ends; what is on the way to the nodes still arrives. */
  | { readonly kind: "close-all" }
  | { readonly kind: "elected"; readonly event: ElectedEvent }
  | { readonly kind: "acknowledged"; readonly event: AcknowledgedEvent }
  | { readonly kind: "settled"; readonly lsn: Lsn; readonly since: Lsn }
  /** It begins anew, and is to settle at least what has been acknowledged by now. */
  | { readonly kind: "restarted" };

export interface ComputeStep {
  readonly compute: number;
  readonly outputs: readonly Output[];
}

/** What there is to append to a slot now. */
export const NOTHING = -1;
/** From the local log, or nothing but positions. */
export const OWN = -2;

/** An entry tells who wrote it and where it belongs. */
export function entryBy(writer: number, lsn: Lsn): number {
  return ((writer & 15) << 4) | ((lsn - FIRST_LSN) & 15);
}

export interface ComputeOptions {
  readonly slots: number;
  readonly candidacies: number;
  readonly entries: number;
  readonly hasNodeIds: boolean;
}

export class ComputeStates {
  readonly #options: ComputeOptions;
  readonly #messages: Messages;
  readonly #interner = new Interner<CoreCompute | null>(null);
  readonly #steps: ComputeStep[] = [];
  readonly #known = new PairTable();
  readonly #permuted = new PairTable();
  readonly #slotKeys = new Interner<null>(null);
  /** By state and slot: what is different between the slots. */
  readonly slotIds: number[] = [];
  /** By state and slot: `NOTHING`, `OWN`, or the slot of the donor. */
  readonly appendFrom: number[] = [];
  readonly mayConnect: boolean[] = [false];
  readonly mayWrite: boolean[] = [false];
  readonly maySpread: boolean[] = [false];
  readonly campaigning: boolean[] = [false];

  constructor(messages: Messages, options: ComputeOptions) {
    this.#messages = messages;
    this.#options = options;
    for (let slot = 0; slot < options.slots; slot++) {
      this.slotIds.push(0);
      this.appendFrom.push(NOTHING);
    }
    this.#interner.onNew = (_, compute) => compute !== null && this.#describe(compute);
  }

  get size(): number {
    return this.#interner.size;
  }

  at(id: number): CoreCompute {
    const compute = this.#interner.values[id];
    if (compute === null || compute === undefined) throw new Error(`no compute state ${id}`);
    return compute;
  }

  initial(index: number): number {
    const compute = new CoreCompute({ index, slots: this.#options.slots, writer: 1 + index, settlingSince: 0 });
    compute.core = this.#newCore(compute, EMPTY_CONFIGURATION);
    return this.add(compute);
  }

  add(compute: CoreCompute): number {
    return this.#interner.add(this.#key(compute), compute);
  }

  #newCore(compute: CoreCompute, configuration: Membership): ProposerCore {
    const { startLsn, endLsn, electedTerm, mode } = compute;
    const how = mode === "sync" ? { kind: "sync" as const } : { kind: "run" as const, startLsn, availableLsn: endLsn, previousTerm: electedTerm };
    return new ProposerCore({ identity: IDENTITY, configuration, mode: how, slots: this.#options.slots });
  }

  #describe(compute: CoreCompute): void {
    const { core, mode, endLsn, startLsn, candidacy } = compute;
    const { slots, candidacies, entries } = this.#options;
    for (let slot = 0; slot < slots; slot++) {
      this.slotIds.push(this.#slotKeys.add(this.#slotKey(compute, slot), null));
      this.appendFrom.push(appendFrom(compute, slot));
    }
    this.mayConnect.push(candidacy < candidacies && !core.dead);
    this.mayWrite.push(mode === "run" && core.election !== null && !core.dead && endLsn - startLsn < entries);
    this.maySpread.push(mode === "run" && !core.dead && open(core)._slots.some(({ state, toldCommitLsn, heartbeatDue }) => state === "active" && !heartbeatDue && toldCommitLsn < core.commitLsn));
    this.campaigning.push(core.campaigning);
  }

  #key(compute: CoreCompute): string {
    const { mode, startLsn, endLsn, electedTerm, acknowledgedLsn, writer, settlingSince, candidacy, core } = compute;
    const own = `${mode},${candidacy},${startLsn},${endLsn},${electedTerm},${acknowledgedLsn},${writer},${settlingSince}`;
    if (core.dead) return `${own}|dead`;
    const { _phase, _availableLsn, _settledAll, _slots } = open(core);
    const { election } = core;
    const elected = election === null ? "-" : `${election.startLsn},${historyKey(election.history)}`;
    return `${own}|${_phase},${core.term},${core.configuration.generation},${elected},${_availableLsn},${core.commitLsn},${_settledAll}|${_slots.map((_, slot) => this.#slotKey(compute, slot)).join("/")}`;
  }

  /** All of a state but what is one slot's. */
  ownTextOf(id: number): string {
    return this.#interner.keys[id].split("|").slice(0, 2).join("|");
  }

  /** What is one slot's. */
  slotTextOf(id: number, slot: number): string {
    return this.#slotKeys.keys[this.slotIds[id * this.#options.slots + slot]];
  }

  /** Left out is what is not looked at any more: votes after the announcement, what nodes have persisted when nothing is settled. */
  #slotKey({ core, mode }: CoreCompute, slot: number): string {
    const { state, nodeId, vote, sentLsn, flushLsn, commitLsn, toldCommitLsn, heartbeatDue } = open(core)._slots[slot];
    const who = this.#options.hasNodeIds ? `${nodeId}` : "";
    const voted = vote === null || state === "active" ? "-" : messageKey(vote);
    return `${who}${core.election?.donor === slot ? "donor" : ""},${state},${voted},${flushLsn},${mode === "sync" ? commitLsn : ""},${state === "active" ? `${sentLsn},${toldCommitLsn < core.commitLsn},${heartbeatDue}` : ""}`;
  }

  #step(id: number, event: number, act: (compute: CoreCompute, outputs: Output[]) => void): ComputeStep {
    let step = this.#known.get(id, event);
    if (step === -1) {
      const before = this.at(id);
      const compute = before.clone(cloneCore(before.core));
      const outputs: Output[] = [];
      act(compute, outputs);
      step = this.#steps.push({ compute: this.add(compute), outputs }) - 1;
      this.#known.set(id, event, step);
    }
    return this.#steps[step];
  }

  received(id: number, slot: number, message: number): ComputeStep {
    return this.#step(id, 1000 + message * 16 + slot, (compute, outputs) => {
      const anonymous = this.#messages.at(message) as AcceptorMessage;
      // States of nodes are shared by all nodes: who it is that greets is known here alone.
      const said = anonymous.kind === "greeting" && !this.#options.hasNodeIds ? { ...anonymous, nodeId: slot } : anonymous;
      this.#carryOut(compute, compute.core.received(slot, said), outputs);
    });
  }

  /** Whether no invariant sees that the answer is taken. */
  isQuiet(id: number, slot: number, message: number): boolean {
    return this.received(id, slot, message).outputs.every(({ kind }) => kind === "send" || kind === "close-all");
  }

  connected(id: number, slot: number): ComputeStep {
    return this.#step(id, slot, (compute, outputs) => this.#carryOut(compute, compute.core.connected(slot), outputs));
  }

  disconnected(id: number, slot: number): ComputeStep {
    return this.#step(id, 16 + slot, (compute, outputs) => this.#carryOut(compute, compute.core.disconnected(slot), outputs));
  }

  write(id: number): ComputeStep {
    return this.#step(id, 32, (compute) => compute.write(1));
  }

  expireVotes(id: number): ComputeStep {
    return this.#step(id, 33, (compute, outputs) => this.#carryOut(compute, compute.core.expireVotes(), outputs));
  }

  spreadCommit(id: number): ComputeStep {
    return this.#step(id, 34, (compute) => compute.core.spreadCommit());
  }

  /** A new process, which settles what there is. */
  restart(id: number): ComputeStep {
    return this.#step(id, 35, (compute, outputs) => {
      outputs.push({ kind: "close-all" }, { kind: "restarted" });
      compute.restart(compute.writer + 2, 0);
      compute.core = this.#newCore(compute, EMPTY_CONFIGURATION);
    });
  }

  /** @param since the highest acknowledged commit when it began to settle */
  since(id: number, since: Lsn): number {
    return this.#step(id, 40 + since, (compute) => {
      compute.settlingSince = since;
    }).compute;
  }

  /** @param from what a donor has from there on; null: none needed, the local log has it or nothing is to be sent */
  append(id: number, slot: number, from: { readonly state: number; readonly entries: readonly number[] } | null): ComputeStep {
    return this.#step(id, -2 - slot - 16 * (from === null ? 0 : from.state), (compute, outputs) => {
      const next = compute.core.nextAppend(slot, 1);
      if (next === null) throw new Error("nothing to append");
      const entries = next.maxBytes === 0 ? [] : from === null ? [entryBy(compute.writer, next.beginLsn)] : from.entries.slice(0, 1);
      if (next.maxBytes > 0 && entries.length === 0) return this.#drop(compute, slot, outputs);
      const request = compute.core.append(slot, next.beginLsn, Uint8Array.from(entries));
      if (request !== null) outputs.push({ kind: "send", slot, message: this.#messages.add(request) });
    });
  }

  #drop(compute: CoreCompute, slot: number, outputs: Output[]): void {
    outputs.push({ kind: "close", slot });
    this.#carryOut(compute, compute.core.disconnected(slot), outputs);
  }

  #carryOut(compute: CoreCompute, effects: readonly CoreEffect[], outputs: Output[]): void {
    const { candidacy } = compute;
    for (const effect of effects) {
      if (compute.candidacy !== candidacy) return;
      this.#perform(compute, effect, outputs);
    }
  }

  #perform(compute: CoreCompute, effect: CoreEffect, outputs: Output[]): void {
    const { core } = compute;
    switch (effect.kind) {
      case "send":
        outputs.push({ kind: "send", slot: effect.slot, message: this.#messages.add(effect.message) });
        break;
      case "drop":
        this.#drop(compute, effect.slot, outputs);
        break;
      case "elected":
        outputs.push({ kind: "elected", event: { writer: compute.writer, term: effect.election.term, startLsn: effect.election.startLsn, history: effect.election.history } });
        if (compute.mode === "run") {
          compute.electedTerm = effect.election.term;
          core.walAvailable(compute.endLsn);
        }
        break;
      case "committed":
        if (compute.mode === "sync") core.spreadCommit();
        else acknowledge(compute, Math.min(effect.lsn, compute.endLsn), outputs);
        break;
      case "settled":
        outputs.push({ kind: "settled", lsn: effect.lsn, since: compute.settlingSince }, { kind: "close-all" });
        compute.run(effect.lsn);
        compute.core = this.#newCore(compute, EMPTY_CONFIGURATION);
        break;
      case "superseded":
      case "start-mismatch":
        this.#again(compute, effect, outputs);
        break;
    }
  }

  #again(compute: CoreCompute, effect: Extract<CoreEffect, { kind: "superseded" | "start-mismatch" }>, outputs: Output[]): void {
    outputs.push({ kind: "close-all" });
    compute.campaign();
    if (effect.kind === "start-mismatch") {
      const { candidacy } = compute;
      compute.restart(compute.writer + 2, 0);
      compute.candidacy = candidacy;
      outputs.push({ kind: "restarted" });
    }
    compute.core = this.#newCore(compute, effect.kind === "superseded" ? effect.configuration : EMPTY_CONFIGURATION);
  }

  /** The same compute when the nodes change places: slot `i` becomes slot `to[i]`. */
  permuted(id: number, to: readonly number[], index: number): number {
    let image = this.#permuted.get(id, index);
    if (image === -1) {
      const before = this.at(id);
      const compute = before.clone(cloneCore(before.core));
      const core = open(compute.core);
      const slots = [...core._slots];
      to.forEach((target, slot) => {
        const moved = core._slots[slot];
        slots[target] = { ...moved, nodeId: moved.nodeId === null ? null : target };
      });
      core._slots = slots;
      const { election } = compute.core;
      if (election?.donor != null) core._election = { ...election, donor: to[election.donor] };
      image = this.add(compute);
      this.#permuted.set(id, index, image);
    }
    return image;
  }

  /** The same elected compute with each of the other slots whose vote was as good for a donor: which of them it is, slots' order decides. */
  withOtherDonors(id: number): readonly number[] {
    const { core } = this.at(id);
    const { election } = core;
    if (election?.donor == null || this.#options.hasNodeIds) return [];
    const { _slots } = open(core);
    const best = _slots[election.donor].vote;
    const others: number[] = [];
    _slots.forEach(({ vote, state }, slot) => {
      if (slot === election.donor || state !== "active" || vote === null || best === null || vote.flushLsn !== best.flushLsn || historyKey(vote.termHistory) !== historyKey(best.termHistory)) return;
      const before = this.at(id);
      const compute = before.clone(cloneCore(before.core));
      open(compute.core)._election = { ...election, donor: slot };
      others.push(this.add(compute));
    });
    return others;
  }
}

function acknowledge(compute: CoreCompute, lsn: Lsn, outputs: Output[]): void {
  const fromLsn = compute.acknowledgedLsn;
  if (lsn <= fromLsn) return;
  compute.acknowledgedLsn = lsn;
  const entries = Array.from({ length: lsn - fromLsn }, (_, at) => entryBy(compute.writer, fromLsn + at));
  outputs.push({ kind: "acknowledged", event: { term: compute.core.term, fromLsn, lsn, entries, membership: compute.core.configuration } });
}

/** As `Candidacy` chooses it: another active safekeeper that has more. */
function appendFrom(compute: CoreCompute, slot: number): number {
  const { core } = compute;
  const next = core.nextAppend(slot, 1);
  if (next === null) return NOTHING;
  if (next.maxBytes === 0 || (next.beginLsn >= compute.startLsn && next.beginLsn < compute.endLsn && compute.mode === "run")) return OWN;
  let [best, bestEnd] = [slot, next.beginLsn];
  open(core)._slots.forEach(({ state, flushLsn }, other) => {
    if (other === slot || state !== "active") return;
    const end = other === core.election?.donor ? Math.max(flushLsn, core.election.startLsn) : flushLsn;
    if (end > bestEnd) [best, bestEnd] = [other, end];
  });
  return best;
}
