import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { Lsn } from "../../../src/kit/lsn.ts";
import { ProposerCore } from "../../../src/compute/proposer/core.ts";
import type { CoreEffect, ProposerMode } from "../../../src/compute/proposer/core-types.ts";
import { EMPTY_CONFIGURATION } from "../../../src/safekeeper/api/membership.ts";
import type { AcceptorMessage, ProposerMessage } from "../../../src/safekeeper/api/proposer-messages.ts";
import { lastLogTerm } from "../../../src/safekeeper/api/term-history.ts";
import { MemoryAcceptor, SEGMENT, TENANT, TIMELINE } from "./memory-acceptor.ts";

const START = 0x1000;
const IDENTITY = { tenantId: TENANT, timelineId: TIMELINE, systemId: 7n, pgVersion: 170010, walSegmentSizeBytes: SEGMENT };

/** A compute: the core, its server's WAL from `startLsn` on, and a line to each acceptor that may be cut. */
class Rig {
  readonly core: ProposerCore;
  readonly acceptors: readonly MemoryAcceptor[];
  readonly startLsn: Lsn;
  /** WAL of the server; the byte at an LSN is made from who wrote it, so that two writers never agree by chance. */
  readonly author: number;
  availableLsn: Lsn;
  commitLsn: Lsn = 0;
  elected: Lsn | null = null;
  settled: Lsn | null = null;
  over: CoreEffect | null = null;
  readonly up: boolean[];
  readonly #queues: ProposerMessage[][];
  readonly #answers: AcceptorMessage[][];
  readonly #streams: boolean[];

  constructor(acceptors: readonly MemoryAcceptor[], mode: ProposerMode, author = 1) {
    this.acceptors = acceptors;
    this.author = author;
    this.startLsn = mode.kind === "run" ? mode.startLsn : 0;
    this.availableLsn = mode.kind === "run" ? mode.availableLsn : 0;
    this.core = new ProposerCore({ identity: IDENTITY, slots: acceptors.length, configuration: EMPTY_CONFIGURATION, mode });
    this.up = acceptors.map(() => false);
    this.#queues = acceptors.map(() => []);
    this.#answers = acceptors.map(() => []);
    this.#streams = acceptors.map(() => false);
  }

  connect(slot: number, guardsVotes = false): void {
    if (this.up[slot] || this.over !== null) return;
    this.up[slot] = true;
    this.#carryOut(this.core.connected(slot, guardsVotes));
  }

  disconnect(slot: number): void {
    if (!this.up[slot]) return;
    this.up[slot] = false;
    this.#streams[slot] = false;
    this.#queues[slot] = [];
    this.#answers[slot] = [];
    this.#carryOut(this.core.disconnected(slot));
  }

  write(bytes: number): void {
    this.availableLsn += bytes;
    this.core.walAvailable(this.availableLsn);
  }

  byteAt(lsn: Lsn): number {
    for (const acceptor of this.acceptors) {
      // What was there before this server began: the log's own content.
      if (lsn < this.startLsn || this.core.election === null) {
        const { log } = acceptor;
        if (lsn >= log.startLsn && lsn < log.flushed) return log.bytes[lsn - log.startLsn];
      }
    }
    return (this.author * 37 + lsn) & 0xff;
  }

  /** One message one way on one line; false when there was none. */
  step(slot: number): boolean {
    if (!this.up[slot]) return false;
    const answer = this.#answers[slot].shift();
    if (answer !== undefined) {
      this.#carryOut(this.core.received(slot, answer));
      return true;
    }
    const next = this.#queues[slot].shift() ?? this.#nextAppend(slot);
    if (next === null) return false;
    try {
      const reply = this.acceptors[slot].receive(next);
      if (reply !== null) this.#answers[slot].push(reply);
    } catch {
      this.disconnect(slot);
    }
    return true;
  }

  #nextAppend(slot: number): ProposerMessage | null {
    if (!this.#streams[slot]) return null;
    const next = this.core.nextAppend(slot, 64);
    if (next === null) return null;
    const { donor } = this.core.election ?? { donor: null };
    const end = next.beginLsn + next.maxBytes;
    // Below the server's start the WAL comes from the donor, as in the shell.
    const fromDonor = next.beginLsn < this.startLsn || (this.startLsn === 0 && donor !== null);
    const limit = fromDonor && this.startLsn > 0 ? Math.min(end, this.startLsn) : end;
    const data = fromDonor && donor !== null
      ? this.acceptors[donor].log.read(next.beginLsn, limit - next.beginLsn)
      : Uint8Array.from({ length: next.maxBytes }, (_, at) => this.byteAt(next.beginLsn + at));
    return this.core.append(slot, next.beginLsn, data);
  }

  #carryOut(effects: readonly CoreEffect[]): void {
    for (const effect of effects) {
      if (effect.kind === "send") this.#queues[effect.slot].push(effect.message);
      else if (effect.kind === "drop") this.disconnect(effect.slot);
      else if (effect.kind === "stream") this.#streams[effect.slot] = true;
      else if (effect.kind === "elected") this.elected = effect.election.startLsn;
      else if (effect.kind === "committed") this.commitLsn = effect.lsn;
      else if (effect.kind === "settled") this.settled = effect.lsn;
      else if (effect.kind === "superseded" || effect.kind === "start-mismatch") this.over = effect;
    }
  }

  /** Runs until nothing is on its way. */
  settle(): void {
    for (let rounds = 0; rounds < 10_000; rounds++) {
      if (!this.up.map((_, slot) => this.step(slot)).some(Boolean)) return;
    }
    throw new Error("messages never end");
  }
}

function run(startLsn: Lsn): ProposerMode {
  return { kind: "run", startLsn, availableLsn: startLsn, previousTerm: null };
}

function three(startLsn: Lsn = START): MemoryAcceptor[] {
  return [1, 2, 3].map((id) => new MemoryAcceptor(id, startLsn));
}

describe("one proposer", () => {
  test("is elected by two of three and commits what two of three have", () => {
    const rig = new Rig(three(0), run(START));
    rig.connect(0);
    rig.settle();
    expect(rig.elected).toBeNull();
    rig.connect(1);
    rig.settle();
    expect(rig.elected).toBe(START);
    rig.write(1000);
    rig.settle();
    expect(rig.commitLsn).toBe(START + 1000);
    expect(rig.core.truncateLsn).toBe(START);
    rig.connect(2);
    rig.settle();
    rig.core.heartbeat();
    rig.settle();
    expect(rig.core.truncateLsn).toBe(START + 1000);
    rig.disconnect(0);
    rig.disconnect(1);
    rig.write(10);
    rig.settle();
    expect(rig.commitLsn).toBe(START + 1000);
    rig.connect(1);
    rig.settle();
    expect(rig.commitLsn).toBe(START + 1010);
    expect(rig.acceptors[1].log.bytes).toEqual(rig.acceptors[2].log.bytes);
  });

  test("a commit position is sent alone only to those whom no append has told it", () => {
    const rig = new Rig(three(0), run(START));
    for (const slot of [0, 1, 2]) rig.connect(slot);
    rig.settle();
    rig.write(100);
    rig.settle();
    const firstLsn = rig.commitLsn;
    expect(firstLsn).toBe(START + 100);
    rig.write(100);
    rig.settle();
    // The second append has told the first commit, nothing has told the second.
    expect(rig.core.spreadCommit(firstLsn)).toBe(false);
    expect([0, 1, 2].map((slot) => rig.core.nextAppend(slot, 1000))).toEqual([null, null, null]);
    rig.disconnect(2);
    expect(rig.core.spreadCommit()).toBe(true);
    expect([0, 1, 2].map((slot) => rig.core.nextAppend(slot, 1000)?.maxBytes)).toEqual([0, 0, undefined]);
    rig.settle();
    expect(rig.core.spreadCommit()).toBe(false);
    expect(rig.acceptors.slice(0, 2).map(({ acceptor }) => acceptor.volatile.commitLsn)).toEqual([rig.commitLsn, rig.commitLsn]);
  });

  test("a safekeeper that two addresses lead to counts once, before the election and after", () => {
    const [first, second] = three(0);
    const early = new Rig([first, first, second], run(START));
    early.connect(0);
    early.connect(1);
    early.settle();
    expect([early.elected, early.up]).toEqual([null, [true, false, false]]);
    early.connect(2);
    early.settle();
    expect(early.elected).toBe(START);
    early.disconnect(2);
    early.connect(1);
    early.write(1000);
    early.settle();
    expect([early.commitLsn, early.up]).toEqual([START, [true, false, false]]);
    early.connect(2);
    early.settle();
    expect(early.commitLsn).toBe(START + 1000);
  });

  test("a safekeeper that comes back under another address counts there, and no more where it was", () => {
    const [first, second] = three(0);
    const rig = new Rig([first, second, first], run(START));
    rig.connect(0);
    rig.connect(1);
    rig.settle();
    rig.disconnect(1);
    rig.write(1000);
    rig.settle();
    rig.disconnect(0);
    rig.connect(2);
    rig.settle();
    expect([rig.up, first.log.flushed, rig.commitLsn]).toEqual([[false, false, true], START + 1000, START]);
    rig.connect(1);
    rig.settle();
    expect(rig.commitLsn).toBe(START + 1000);
  });

  test("does not go on where the log ends elsewhere than its server began", () => {
    const acceptors = three();
    const first = new Rig(acceptors, run(START));
    for (const slot of [0, 1, 2]) first.connect(slot);
    first.settle();
    first.write(100);
    first.settle();
    const second = new Rig(acceptors, run(START), 2);
    for (const slot of [0, 1]) second.connect(slot);
    second.settle();
    expect(second.over).toMatchObject({ kind: "start-mismatch", error: { code: "log-moved-on" } });
    expect(second.core.dead).toBe(true);
  });

  test("is fenced by a later one, and may go on only if nobody else has won", () => {
    const acceptors = three();
    const first = new Rig(acceptors, run(START));
    for (const slot of [0, 1, 2]) first.connect(slot);
    first.settle();
    first.write(100);
    first.settle();
    acceptors[0].acceptor.bumpTerm(5).next();
    const bump = acceptors[1].acceptor.bumpTerm(5);
    for (let step = bump.next(); step.done !== true; step = bump.next()) continue;
    first.write(10);
    first.settle();
    expect(first.over).toMatchObject({ kind: "superseded", term: 5 });
    const mine: ProposerMode = { kind: "run", startLsn: START, availableLsn: first.availableLsn, previousTerm: first.core.term };
    const again = new Rig(acceptors, mine);
    for (const slot of [0, 1, 2]) again.connect(slot);
    again.settle();
    expect(again.over).toBeNull();
    expect(again.commitLsn).toBe(START + 110);
    const other = new Rig(acceptors, run(START + 110), 2);
    for (const slot of [0, 1, 2]) other.connect(slot);
    other.settle();
    expect(other.elected).toBe(START + 110);
    const late = new Rig(acceptors, { kind: "run", startLsn: START, availableLsn: START + 110, previousTerm: again.core.term });
    for (const slot of [0, 1, 2]) late.connect(slot);
    late.settle();
    expect(late.over).toMatchObject({ kind: "start-mismatch" });
  });

  test("an answer of another configuration generation drops the connection", () => {
    const rig = new Rig(three(), run(START));
    for (const slot of [0, 1]) rig.connect(slot);
    rig.settle();
    const answer = { kind: "append", generation: 4, term: rig.core.term, flushLsn: START, commitLsn: START, pageserverFeedback: null, hotStandbyFeedback: { timestamp: 0n, xmin: 0n, catalogXmin: 0n } } as const;
    expect(rig.core.received(0, answer)).toMatchObject([{ kind: "drop", slot: 0, error: { code: "generation-mismatch" } }]);
    expect(rig.core.received(1, { ...answer, generation: 0, flushLsn: START + 1 })).toMatchObject([{ kind: "drop", error: { code: "protocol-violation" } }]);
  });

  test("needs a majority of both sets of a joint configuration", () => {
    const member = (nodeId: number) => ({ nodeId, host: "h", pgPort: 1 });
    const joint = { generation: 3, members: [1, 2, 3].map(member), newMembers: [3, 4, 5].map(member) };
    const acceptors = [1, 2, 3, 4, 5].map((id) => new MemoryAcceptor(id, START));
    for (const { acceptor } of acceptors) {
      const steps = acceptor.switchConfiguration(joint);
      for (let step = steps.next(); step.done !== true; step = steps.next()) continue;
    }
    const rig = new Rig(acceptors, run(START));
    for (const slot of [0, 1, 2]) rig.connect(slot);
    rig.settle();
    expect(rig.elected).toBeNull();
    rig.connect(3);
    rig.settle();
    expect(rig.elected).toBe(START);
    rig.disconnect(3);
    rig.write(10);
    rig.settle();
    expect(rig.commitLsn).toBe(START);
    rig.connect(4);
    rig.settle();
    expect(rig.commitLsn).toBe(START + 10);
  });
});

describe("settling", () => {
  test("a tail on one safekeeper is brought to a majority when its owner votes", () => {
    const acceptors = three();
    const writer = new Rig(acceptors, run(START));
    for (const slot of [0, 1]) writer.connect(slot);
    writer.settle();
    writer.disconnect(1);
    writer.write(500);
    writer.settle();
    expect(writer.commitLsn).toBeLessThan(START + 500);
    const sync = new Rig(acceptors, { kind: "sync" });
    sync.connect(0);
    sync.connect(2);
    sync.settle();
    expect(sync.settled).toBe(START + 500);
    expect(acceptors[2].log.bytes).toEqual(acceptors[0].log.bytes);
    expect(acceptors[2].acceptor.volatile.commitLsn).toBe(START + 500);
  });

  test("without its owner the tail is cut off, later too", () => {
    const acceptors = three();
    const writer = new Rig(acceptors, run(START));
    for (const slot of [0, 1]) writer.connect(slot);
    writer.settle();
    writer.disconnect(1);
    writer.write(500);
    writer.settle();
    const sync = new Rig(acceptors, { kind: "sync" });
    sync.connect(1);
    sync.connect(2);
    sync.settle();
    expect(sync.settled).toBe(START);
    const next = new Rig(acceptors, run(START), 2);
    for (const slot of [0, 1, 2]) next.connect(slot);
    next.settle();
    next.write(50);
    next.settle();
    expect(next.commitLsn).toBe(START + 50);
    expect(acceptors[0].log.bytes).toEqual(acceptors[1].log.bytes);
  });

  test("a safekeeper that lost its disk does not make a majority with one that lags", () => {
    const acceptors = three();
    const writer = new Rig(acceptors, run(START));
    for (const slot of [0, 1, 2]) writer.connect(slot);
    writer.settle();
    writer.disconnect(2);
    writer.write(500);
    writer.settle();
    expect(writer.commitLsn).toBe(START + 500);
    const wiped = [new MemoryAcceptor(1, 0), acceptors[1], acceptors[2]];
    const sync = new Rig(wiped, { kind: "sync" });
    sync.connect(0);
    sync.connect(2);
    sync.settle();
    expect(sync.settled).toBeNull();
    sync.connect(1);
    sync.settle();
    expect(sync.settled).toBe(START + 500);
    expect(wiped[0].log.bytes).toEqual(wiped[1].log.bytes);
  });

  test("one without WAL that guards its votes itself does: nobody else need be there", () => {
    const acceptors = three();
    const writer = new Rig(acceptors, run(START));
    for (const slot of [0, 1]) writer.connect(slot);
    writer.settle();
    writer.write(500);
    writer.settle();
    const sync = new Rig(acceptors, { kind: "sync" });
    for (const slot of [1, 2]) sync.connect(slot, true);
    sync.settle();
    expect(sync.settled).toBe(START + 500);
  });

  test("nothing anywhere settles at 0", () => {
    const sync = new Rig(three(0), { kind: "sync" });
    for (const slot of [0, 1]) sync.connect(slot);
    sync.settle();
    expect(sync.settled).toBe(0);
  });
});

/** Any interleaving of writes, cuts, crashes and new computes: what was committed stays, byte for byte. */
describe("any history", () => {
  const action = fc.oneof(
    { weight: 10, arbitrary: fc.record({ kind: fc.constant("steps" as const), slot: fc.nat(2), count: fc.integer({ min: 1, max: 12 }) }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant("write" as const), slot: fc.constant(0), count: fc.integer({ min: 1, max: 200 }) }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant("connect" as const), slot: fc.nat(2), count: fc.constant(0) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("cut" as const), slot: fc.nat(2), count: fc.constant(0) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("crash" as const), slot: fc.nat(2), count: fc.constant(0) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("new-compute" as const), slot: fc.nat(2), count: fc.constant(0) }) },
  );
  test("keeps every committed byte", () => {
    fc.assert(fc.property(fc.array(action, { minLength: 20, maxLength: 150 }), (actions) => checkHistory(actions)), { numRuns: 300 });
  });
});

function checkHistory(actions: readonly { kind: "steps" | "write" | "connect" | "cut" | "crash" | "new-compute"; slot: number; count: number }[]): void {
  const acceptors = three();
  const committed = new Map<Lsn, number>();
  let committedTo = START;
  let compute = new Rig(acceptors, run(START));
  let author = 1;
  const note = (): void => {
    if (compute.commitLsn <= committedTo) return;
    const holder = acceptors.find(({ log, acceptor }) => log.flushed >= compute.commitLsn && lastLogTerm(acceptor.persisted.termHistory, log.flushed) === compute.core.term);
    if (holder === undefined) throw new Error("committed, but nobody has it");
    for (let lsn = committedTo; lsn < compute.commitLsn; lsn++) committed.set(lsn, holder.log.bytes[lsn - holder.log.startLsn]);
    committedTo = compute.commitLsn;
  };
  for (const { kind, slot, count } of actions) {
    if (kind === "steps") for (let at = 0; at < count && compute.over === null; at++) compute.step(slot);
    else if (kind === "write" && compute.elected !== null) compute.write(count);
    else if (kind === "connect") compute.connect(slot);
    else if (kind === "cut") compute.disconnect(slot);
    else if (kind === "crash") {
      compute.disconnect(slot);
      acceptors[slot].restart();
    } else if (kind === "new-compute") {
      const sync = new Rig(acceptors, { kind: "sync" });
      for (const other of [0, 1, 2]) if (other !== slot) sync.connect(other);
      sync.settle();
      const { settled } = sync;
      if (settled === null) continue;
      expect(settled).toBeGreaterThanOrEqual(committedTo);
      compute = new Rig(acceptors, run(settled), ++author);
    }
    note();
  }
  const last = new Rig(acceptors, { kind: "sync" });
  for (const slot of [0, 1, 2]) last.connect(slot);
  last.settle();
  expect(last.settled).toBeGreaterThanOrEqual(committedTo);
  for (const { log } of acceptors) {
    for (const [lsn, byte] of committed) if (lsn >= log.startLsn && lsn < log.flushed) expect(log.bytes[lsn - log.startLsn]).toBe(byte);
  }
}
