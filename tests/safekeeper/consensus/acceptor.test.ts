import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { isStrataError, StrataError } from "../../../src/kit/errors.ts";
import type { Lsn } from "../../../src/kit/lsn.ts";
import { EMPTY_CONFIGURATION } from "../../../src/safekeeper/api/membership.ts";
import type { AppendRequest, ProposerGreeting } from "../../../src/safekeeper/api/proposer-messages.ts";
import type { TermHistory } from "../../../src/safekeeper/api/term-history.ts";
import { Acceptor, type Effect, type LogView, type Steps } from "../../../src/safekeeper/consensus/acceptor.ts";
import { handleAppend, handleFlush, handlePeerCommit } from "../../../src/safekeeper/consensus/append.ts";
import { handleElected, handleGreeting, handleVoteRequest } from "../../../src/safekeeper/consensus/election.ts";
import { newTimelineState, type TimelinePersistentState } from "../../../src/safekeeper/control-file/state.ts";

const TENANT = "11111111111111111111111111111111";
const TIMELINE = "22222222222222222222222222222222";
const SEGMENT = 16 * 1024 * 1024;

/** A log of bytes where every byte is a record: enough for the rules, which never look inside. */
class MemoryLog implements LogView {
  writeLsn = 0;
  flushRecordLsn = 0;
  needsTruncation = true;
}

class Harness {
  readonly log = new MemoryLog();
  readonly effects: string[] = [];
  acceptor: Acceptor;
  /** Throw on the next effect of this kind. */
  failOn: Effect["kind"] | null = null;

  constructor(state: TimelinePersistentState = initialState()) {
    this.acceptor = new Acceptor({ nodeId: 1, state, log: this.log });
  }

  run<T>(steps: Steps<T>): T {
    for (let step = steps.next(); ; ) {
      if (step.done === true) return step.value;
      const effect = step.value;
      this.effects.push(effect.kind);
      if (this.failOn === effect.kind) {
        this.failOn = null;
        step = steps.throw(new StrataError("unavailable", "io-error", "injected"));
        continue;
      }
      this.#perform(effect);
      step = steps.next();
    }
  }

  #perform(effect: Effect): void {
    if (effect.kind === "truncate-wal") {
      this.log.writeLsn = this.log.flushRecordLsn = effect.lsn;
      this.log.needsTruncation = false;
    } else if (effect.kind === "write-wal") this.log.writeLsn = effect.lsn + effect.bytes.length;
    else if (effect.kind === "flush-wal") this.log.flushRecordLsn = this.log.writeLsn;
  }

  restart(): void {
    this.log.needsTruncation = true;
    this.log.writeLsn = this.log.flushRecordLsn;
    this.acceptor = new Acceptor({ nodeId: 1, state: this.acceptor.persisted, log: this.log });
  }

  elect(term: number, termHistory: TermHistory, startStreamingAt: Lsn): void {
    this.run(handleElected(this.acceptor, { kind: "elected", generation: 0, term, startStreamingAt, termHistory }));
  }

  append(over: Partial<AppendRequest> & { term: number; beginLsn: Lsn }, length = 10) {
    return this.run(handleAppend(this.acceptor, {
      kind: "append", generation: 0, endLsn: over.beginLsn + length, commitLsn: 0, truncateLsn: 0, walData: new Uint8Array(length), ...over,
    }));
  }
}

function initialState(over: Partial<Parameters<typeof newTimelineState>[0]> = {}): TimelinePersistentState {
  return newTimelineState({
    tenantId: TENANT, timelineId: TIMELINE, pgVersion: 170002, systemId: 7n, walSegmentSizeBytes: SEGMENT, startLsn: 0, commitLsn: 0, createdMs: 0, ...over,
  });
}

const greeting: ProposerGreeting = {
  kind: "greeting", tenantId: TENANT, timelineId: TIMELINE, configuration: EMPTY_CONFIGURATION, pgVersion: 170010, systemId: 7n, walSegmentSizeBytes: SEGMENT,
};

function codeOf(action: () => unknown): string | null {
  try {
    action();
    return null;
  } catch (error) {
    if (isStrataError(error)) return error.code;
    throw error;
  }
}

describe("greeting", () => {
  test("a minor release may follow another, nothing else may differ", () => {
    const harness = new Harness();
    expect(harness.run(handleGreeting(harness.acceptor, greeting))).toEqual({ kind: "greeting", nodeId: 1, configuration: EMPTY_CONFIGURATION, term: 0 });
    expect(harness.effects).toEqual([]);
    const refused = (over: Partial<ProposerGreeting>): string | null => codeOf(() => harness.run(handleGreeting(harness.acceptor, { ...greeting, ...over })));
    expect(refused({ pgVersion: 160004 })).toBe("server-mismatch");
    expect(refused({ walSegmentSizeBytes: SEGMENT * 2 })).toBe("server-mismatch");
    expect(refused({ tenantId: TIMELINE })).toBe("wrong-timeline");
    expect(refused({ timelineId: TENANT })).toBe("wrong-timeline");
    expect(refused({ configuration: { generation: 3, members: [{ nodeId: 2, host: "b", pgPort: 1 }], newMembers: null } })).toBe("not-a-member");
  });

  test("a newer configuration is taken over and said back, an older one only said back", () => {
    const harness = new Harness();
    const configuration = { generation: 5, members: [{ nodeId: 1, host: "a", pgPort: 1 }], newMembers: null };
    expect(harness.run(handleGreeting(harness.acceptor, { ...greeting, configuration })).configuration).toEqual(configuration);
    expect(harness.acceptor.persisted.configuration).toEqual(configuration);
    expect(harness.run(handleGreeting(harness.acceptor, greeting)).configuration.generation).toBe(5);
    expect(codeOf(() => harness.run(handleVoteRequest(harness.acceptor, { kind: "vote-request", generation: 4, term: 9 })))).toBe("generation-mismatch");
    expect(codeOf(() => harness.append({ term: 1, beginLsn: 0 }))).toBe("generation-mismatch");
  });

  test("a system id is adopted once, and another refused", () => {
    const harness = new Harness({ ...initialState(), systemId: 0n });
    harness.run(handleGreeting(harness.acceptor, { ...greeting, systemId: 0n }));
    expect(harness.acceptor.persisted.systemId).toBe(0n);
    harness.run(handleGreeting(harness.acceptor, { ...greeting, systemId: 8n }));
    expect(harness.effects).toEqual(["persist"]);
    expect(harness.acceptor.persisted.systemId).toBe(8n);
    harness.run(handleGreeting(harness.acceptor, { ...greeting, systemId: 0n }));
    expect(codeOf(() => harness.run(handleGreeting(harness.acceptor, { ...greeting, systemId: 9n })))).toBe("server-mismatch");
    expect(harness.acceptor.persisted.systemId).toBe(8n);
  });
});

describe("vote", () => {
  const vote = (harness: Harness, term: number) => harness.run(handleVoteRequest(harness.acceptor, { kind: "vote-request", generation: 0, term }));

  test("once a term, after the log is durable and the term persisted", () => {
    const harness = new Harness();
    expect(vote(harness, 3).voteGiven).toBe(true);
    expect(harness.effects).toEqual(["flush-wal", "persist"]);
    expect(vote(harness, 3)).toMatchObject({ voteGiven: false, term: 3 });
    expect(vote(harness, 2)).toMatchObject({ voteGiven: false, term: 3 });
    harness.restart();
    expect(vote(harness, 3).voteGiven).toBe(false);
    expect(vote(harness, 4).voteGiven).toBe(true);
  });

  test("a vote that could not be persisted was not given", () => {
    const harness = new Harness();
    harness.failOn = "persist";
    expect(codeOf(() => vote(harness, 3))).toBe("io-error");
    expect(harness.acceptor.persisted.term).toBe(0);
    expect(vote(harness, 3).voteGiven).toBe(true);
  });
});

describe("elected", () => {
  test("the first proposer sets where the timeline begins", () => {
    const harness = new Harness();
    harness.elect(1, [{ term: 1, lsn: 1000 }], 1000);
    expect(harness.effects).toEqual(["persist", "initialize-first-segment", "truncate-wal", "persist"]);
    expect(harness.acceptor.persisted).toMatchObject({
      term: 1, timelineStartLsn: 1000, localStartLsn: 1000, commitLsn: 1000, backupLsn: 1000, peerHorizonLsn: 1000, remoteConsistentLsn: 1000,
    });
    expect(harness.acceptor.lastLogTerm).toBe(1);
  });

  test("the log is cut where the histories part, and nowhere else", () => {
    const harness = new Harness();
    harness.elect(1, [{ term: 1, lsn: 1000 }], 1000);
    harness.append({ term: 1, beginLsn: 1000 }, 100);
    harness.run(handleFlush(harness.acceptor, 0));
    // The new leader's term 2 begins at 1050: 1050–1100 here was never committed.
    const history = [{ term: 1, lsn: 1000 }, { term: 2, lsn: 1050 }];
    expect(codeOf(() => harness.elect(2, history, 1100))).toBe("wrong-truncation-point");
    expect(codeOf(() => harness.elect(2, history, 1000))).toBe("wrong-truncation-point");
    harness.elect(2, history, 1050);
    expect(harness.log).toMatchObject({ writeLsn: 1050, flushRecordLsn: 1050 });
    expect(harness.acceptor.logHistory).toEqual(history);
  });

  test("what is committed is never cut", () => {
    const harness = new Harness();
    harness.elect(1, [{ term: 1, lsn: 1000 }], 1000);
    harness.append({ term: 1, beginLsn: 1000, commitLsn: 1100 }, 100);
    harness.run(handleFlush(harness.acceptor, 1100));
    expect(harness.acceptor.volatile.commitLsn).toBe(1100);
    expect(codeOf(() => harness.elect(2, [{ term: 1, lsn: 1000 }, { term: 2, lsn: 1050 }], 1050))).toBe("truncation-of-committed");
    expect(harness.log.writeLsn).toBe(1100);
  });

  test("the history is adopted only after the cut", () => {
    const harness = new Harness();
    harness.elect(1, [{ term: 1, lsn: 1000 }], 1000);
    harness.append({ term: 1, beginLsn: 1000 }, 100);
    harness.run(handleFlush(harness.acceptor, 0));
    harness.failOn = "truncate-wal";
    expect(codeOf(() => harness.elect(2, [{ term: 1, lsn: 1000 }, { term: 2, lsn: 1050 }], 1050))).toBe("io-error");
    expect(harness.acceptor.persisted).toMatchObject({ term: 2, termHistory: [{ term: 1, lsn: 1000 }] });
  });

  test("an older proposer is ignored, an impossible history refused", () => {
    const harness = new Harness();
    harness.elect(5, [{ term: 5, lsn: 1000 }], 1000);
    harness.elect(4, [{ term: 4, lsn: 900 }], 900);
    expect(harness.acceptor.persisted.termHistory).toEqual([{ term: 5, lsn: 1000 }]);
    expect(codeOf(() => harness.elect(6, [], 1000))).toBe("bad-term-history");
    expect(codeOf(() => harness.elect(7, [{ term: 8, lsn: 1000 }], 1000))).toBe("bad-term-history");
    expect(codeOf(() => harness.elect(8, [{ term: 5, lsn: 999 }], 999))).toBe("term-history-mismatch");
  });
});

describe("append", () => {
  function elected(): Harness {
    const harness = new Harness();
    harness.elect(1, [{ term: 1, lsn: 1000 }], 1000);
    return harness;
  }

  test("only after the election was announced here, and again after a restart", () => {
    const harness = new Harness();
    harness.run(handleVoteRequest(harness.acceptor, { kind: "vote-request", generation: 0, term: 1 }));
    expect(codeOf(() => harness.append({ term: 1, beginLsn: 0 }))).toBe("not-elected");
    harness.elect(1, [{ term: 1, lsn: 1000 }], 1000);
    expect(harness.append({ term: 1, beginLsn: 1000 })).toBeNull();
    harness.restart();
    expect(codeOf(() => harness.append({ term: 1, beginLsn: 1000 }))).toBe("not-elected");
  });

  test("a superseded proposer hears the term and nothing else", () => {
    const harness = elected();
    harness.run(handleVoteRequest(harness.acceptor, { kind: "vote-request", generation: 0, term: 2 }));
    expect(harness.append({ term: 1, beginLsn: 1000, commitLsn: 1010 })).toMatchObject({ term: 2, flushLsn: 0, commitLsn: 0 });
    expect(harness.log.writeLsn).toBe(1000);
    expect(codeOf(() => harness.append({ term: 2, beginLsn: 1000 }))).toBe("not-elected");
  });

  test("neither gaps nor rewrites", () => {
    const harness = elected();
    harness.append({ term: 1, beginLsn: 1000 }, 10);
    expect(codeOf(() => harness.append({ term: 1, beginLsn: 1011 }))).toBe("wal-not-continuous");
    expect(codeOf(() => harness.append({ term: 1, beginLsn: 1000 }))).toBe("wal-not-continuous");
    expect(harness.append({ term: 1, beginLsn: 1010 }, 0)).toBeNull();
  });

  test("commit_lsn follows the proposer's as far as the log is durable, and never goes back", () => {
    const harness = elected();
    harness.append({ term: 1, beginLsn: 1000, commitLsn: 1008 }, 10);
    expect(harness.acceptor.volatile.commitLsn).toBe(1000);
    const answer = harness.run(handleFlush(harness.acceptor, 1008));
    expect(harness.acceptor.volatile.commitLsn).toBe(1008);
    // Not the term's start, which was persisted with the election: the control file stays off the ingest path.
    expect(answer).toMatchObject({ flushLsn: 1010, commitLsn: 1000 });
    harness.append({ term: 1, beginLsn: 1010, commitLsn: 1004, truncateLsn: 5000 }, 0);
    expect(harness.acceptor.volatile).toMatchObject({ commitLsn: 1008, peerHorizonLsn: 1010 });
  });

  test("commit_lsn is persisted at once when it reaches the start of a new term", () => {
    const harness = elected();
    harness.append({ term: 1, beginLsn: 1000 }, 100);
    harness.run(handleFlush(harness.acceptor, 0));
    harness.elect(2, [{ term: 1, lsn: 1000 }, { term: 2, lsn: 1100 }], 1100);
    harness.effects.length = 0;
    harness.append({ term: 2, beginLsn: 1100, commitLsn: 1050 }, 0);
    expect(harness.effects).toEqual([]);
    harness.append({ term: 2, beginLsn: 1100, commitLsn: 1100 }, 0);
    expect(harness.effects).toEqual(["persist"]);
    expect(harness.acceptor.persisted.commitLsn).toBe(1100);
  });

  test("a peer's commit_lsn counts only with the same last term", () => {
    const harness = elected();
    harness.append({ term: 1, beginLsn: 1000 }, 100);
    harness.run(handleFlush(harness.acceptor, 0));
    harness.run(handlePeerCommit(harness.acceptor, { lastLogTerm: 2, commitLsn: 1050 }));
    expect(harness.acceptor.volatile.commitLsn).toBe(1000);
    harness.run(handlePeerCommit(harness.acceptor, { lastLogTerm: 1, commitLsn: 2000 }));
    expect(harness.acceptor.volatile.commitLsn).toBe(1100);
  });
});

test("whatever the messages, terms and commit_lsn only grow and commit_lsn <= flush_lsn", () => {
  const lsn = fc.integer({ min: 990, max: 1050 });
  const command = fc.oneof(
    fc.record({ do: fc.constant("vote" as const), term: fc.integer({ min: 1, max: 6 }) }),
    fc.record({ do: fc.constant("elect" as const), term: fc.integer({ min: 1, max: 6 }), at: lsn, start: lsn }),
    fc.record({ do: fc.constant("append" as const), term: fc.integer({ min: 1, max: 6 }), length: fc.nat(20), commit: lsn }),
    fc.record({ do: fc.constant("flush" as const) }),
    fc.record({ do: fc.constant("restart" as const) }),
  );
  fc.assert(fc.property(fc.array(command, { maxLength: 60 }), (commands) => {
    const harness = new Harness(initialState({ startLsn: 1000, commitLsn: 1000 }));
    let [term, commit] = [0, 0];
    for (const step of commands) {
      codeOf(() => {
        if (step.do === "vote") harness.run(handleVoteRequest(harness.acceptor, { kind: "vote-request", generation: 0, term: step.term }));
        if (step.do === "elect") harness.elect(step.term, [...harness.acceptor.logHistory.filter((e) => e.term < step.term && e.lsn <= step.at), { term: step.term, lsn: step.at }], step.start);
        if (step.do === "append") harness.append({ term: step.term, beginLsn: harness.log.writeLsn, commitLsn: step.commit }, step.length);
        if (step.do === "flush") harness.run(handleFlush(harness.acceptor, 0));
        if (step.do === "restart") harness.restart();
      });
      if (step.do === "restart") commit = harness.acceptor.persisted.commitLsn;
      expect(harness.acceptor.persisted.term).toBeGreaterThanOrEqual(term);
      expect(harness.acceptor.volatile.commitLsn).toBeGreaterThanOrEqual(commit);
      expect(harness.acceptor.volatile.commitLsn).toBeLessThanOrEqual(harness.acceptor.flushLsn);
      term = harness.acceptor.persisted.term;
      commit = harness.acceptor.volatile.commitLsn;
    }
  }), { numRuns: 300 });
});
