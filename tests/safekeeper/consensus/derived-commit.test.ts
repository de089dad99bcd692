import { expect, test } from "bun:test";
import { type Configuration, EMPTY_CONFIGURATION } from "../../../src/safekeeper/api/membership.ts";
import { Acceptor } from "../../../src/safekeeper/consensus/acceptor.ts";
import { deriveCommit, type LogPosition } from "../../../src/safekeeper/consensus/derived-commit.ts";
import { newTimelineState } from "../../../src/safekeeper/control-file/state.ts";

const START = 1000;
const IDS = { tenantId: "11111111111111111111111111111111", timelineId: "22222222222222222222222222222222" };

interface Own {
  readonly term: number;
  readonly flushLsn: number;
  readonly safekeeperCount?: number;
  readonly configuration?: Configuration;
  readonly recovering?: boolean;
}

/** Node 1, whose log's last term is 3, begun at 2000: the commit position after its peers were heard. */
function derived(own: Own, peers: readonly LogPosition[]): number {
  const { term, flushLsn, safekeeperCount = 3, configuration = EMPTY_CONFIGURATION, recovering = false } = own;
  const fresh = newTimelineState({ ...IDS, pgVersion: 170002, systemId: 7n, walSegmentSizeBytes: 1 << 20, startLsn: START, commitLsn: START, createdMs: 0 });
  const state = { ...fresh, term, termHistory: [{ term: 1, lsn: START }, { term: 3, lsn: 2000 }], safekeeperCount, configuration, recovering };
  const acceptor = new Acceptor({ nodeId: 1, state, log: { writeLsn: flushLsn, flushRecordLsn: flushLsn, needsTruncation: true } });
  for (const effect of deriveCommit(acceptor, peers)) expect(effect.kind).toBe("persist");
  return acceptor.volatile.commitLsn;
}

const peer = (nodeId: number, flushLsn: number, over: Partial<LogPosition> = {}): LogPosition => ({ nodeId, term: 3, lastLogTerm: 3, flushLsn, ...over });

test("what a majority took in from the leader of its present term is committed", () => {
  expect(derived({ term: 3, flushLsn: 5000 }, [peer(2, 4000)])).toBe(4000);
  expect(derived({ term: 3, flushLsn: 4000 }, [peer(2, 5000)])).toBe(4000);
  expect(derived({ term: 3, flushLsn: 5000 }, [peer(2, 4000), peer(3, 4500)])).toBe(4500);
  expect(derived({ term: 3, flushLsn: 2000 }, [peer(2, 2000)])).toBe(2000);
});

test("nothing is, on whatever less is known", () => {
  // A majority has it, but one of them has voted since: a leader without it may have been elected.
  expect(derived({ term: 3, flushLsn: 5000 }, [peer(2, 5000, { term: 4 })])).toBe(START);
  expect(derived({ term: 4, flushLsn: 5000 }, [peer(2, 5000), peer(3, 5000)])).toBe(START);
  // WAL of an older term, brought by a later leader whose own is not there yet.
  expect(derived({ term: 3, flushLsn: 1900 }, [peer(2, 1900, { lastLogTerm: 1 })])).toBe(START);
  expect(derived({ term: 3, flushLsn: 5000 }, [peer(2, 5000, { lastLogTerm: 2 })])).toBe(START);
  // No majority, or of an unknown number, or of this node heard twice.
  expect(derived({ term: 3, flushLsn: 5000 }, [])).toBe(START);
  expect(derived({ term: 3, flushLsn: 5000, safekeeperCount: 5 }, [peer(2, 5000)])).toBe(START);
  expect(derived({ term: 3, flushLsn: 5000, safekeeperCount: 0 }, [peer(2, 5000), peer(3, 5000)])).toBe(START);
  expect(derived({ term: 3, flushLsn: 5000 }, [peer(1, 5000)])).toBe(START);
  // Who has lost what it voted may have voted in a later term.
  expect(derived({ term: 3, flushLsn: 5000, recovering: true }, [peer(2, 5000), peer(3, 5000)])).toBe(START);
});

test("of a configuration its members count, and both sets while it is a joint one", () => {
  const member = (nodeId: number) => ({ nodeId, host: "sk", pgPort: 1 });
  const members = [member(1), member(2), member(3)];
  const one: Configuration = { generation: 2, members, newMembers: null };
  expect(derived({ term: 3, flushLsn: 5000, configuration: one }, [peer(2, 4000)])).toBe(4000);
  expect(derived({ term: 3, flushLsn: 5000, configuration: one }, [peer(7, 4000)])).toBe(START);
  const joint: Configuration = { generation: 3, members, newMembers: [member(1), member(4), member(5)] };
  expect(derived({ term: 3, flushLsn: 5000, configuration: joint }, [peer(2, 4000)])).toBe(START);
  expect(derived({ term: 3, flushLsn: 5000, configuration: joint }, [peer(2, 4000), peer(5, 3000)])).toBe(3000);
});
