/** What is explored, from small to large. */
import type { Configuration as Membership } from "../../../../src/safekeeper/api/membership.ts";
import type { Budget } from "./budgets.ts";

export interface Configuration {
  readonly name: string;
  /** 3 unless given. */
  readonly nodes?: number;
  /** Logs that two earlier leaders left behind, one on a single node each; else nobody has any WAL. */
  readonly parted: boolean;
  /** The safekeepers that each compute reaches. */
  readonly reach: readonly (readonly number[])[];
  /** Candidacies each compute may run for: settling the log is one, serving another. */
  readonly candidacies: number;
  /** Entries each server may write. */
  readonly entries: number;
  /** Servers tell what is committed also when there is nothing to append. */
  readonly spreads?: boolean;
  readonly budgets?: Partial<Readonly<Record<Budget, number>>>;
  /** Old, joint and new, which an operator goes through; the old is there at the beginning. None: there is no membership. */
  readonly memberships?: readonly Membership[];
  /** The operator waits for nobody: it must be found out. */
  readonly careless?: boolean;
}

const ALL = [0, 1, 2];
/** Nobody reaches everybody: logs part, and no node but one is common. */
const MAJORITIES = [[0, 1], [1, 2]];
const parted = { parted: true, candidacies: 1, entries: 0 } as const;
const fresh = { parted: false, candidacies: 2, entries: 1 } as const;

function membership(generation: number, members: readonly number[], newMembers: readonly number[] | null = null): Membership {
  const set = (ids: readonly number[]): Membership["members"] => ids.map((nodeId) => ({ nodeId, host: "sk", pgPort: 1 }));
  return { generation, members: set(members), newMembers: newMembers === null ? null : set(newMembers) };
}

/** Node 0 is replaced by node 3. */
const REPLACE = [membership(1, ALL), membership(2, ALL, [1, 2, 3]), membership(3, [1, 2, 3])];
const replacing = { ...fresh, nodes: 4, memberships: REPLACE } as const;

/** Small enough for every reduction to be checked against the exploration without it. */
export const SMALL: readonly Configuration[] = [
  { ...parted, name: "parted logs, each proposer reaches a majority", reach: MAJORITIES },
  { ...parted, name: "the same, a connection may break", reach: MAJORITIES, budgets: { drops: 1 } },
  { ...parted, name: "the same, power may fail, also between two effects", reach: MAJORITIES, budgets: { crashes: 1 } },
  { ...fresh, name: "a new timeline, two settle it, everyone reaches everyone", reach: [ALL, ALL], candidacies: 1, entries: 0 },
  { ...fresh, name: "a new timeline, each proposer reaches a majority, settles and writes", reach: MAJORITIES },
];

export const CONFIGURATIONS: readonly Configuration[] = [
  ...SMALL,
  { ...parted, name: "parted logs, each reaches a majority: connections break, terms are bumped, peers gossip", reach: MAJORITIES, budgets: { drops: 1, bumps: 1, gossips: 1 } },
  { ...fresh, name: "one proposer, everyone reached, two entries, power may fail", reach: [ALL], entries: 2, spreads: true, budgets: { crashes: 1 } },
  { ...fresh, name: "one proposer that restarts, everyone reached", reach: [ALL], candidacies: 4, budgets: { restarts: 1 } },
  { ...fresh, name: "each reaches a majority, settles and writes two entries, commits are spread", reach: MAJORITIES, entries: 2, spreads: true },
  { ...fresh, name: "each reaches a majority, settles and writes, power may fail", reach: MAJORITIES, budgets: { crashes: 1 } },
  { ...fresh, name: "each reaches a majority, settles and writes, peers gossip, votes expire", reach: MAJORITIES, budgets: { gossips: 1, expiries: 1 } },
  { ...parted, name: "parted logs, one proposer reaches everyone, a connection may break", reach: [[0, 1], ALL], budgets: { drops: 1 } },
  { ...parted, name: "parted logs, everyone reaches everyone", reach: [ALL, ALL] },
  { ...fresh, name: "a new timeline, everyone reaches everyone, both settle and write", reach: [ALL, ALL] },
  { ...replacing, name: "a member is replaced: one proposer, joint and new configuration", reach: [[0, 1, 2, 3]], budgets: { operator: 6 } },
  { ...replacing, name: "a member is replaced between two proposers", reach: [[0, 1], [1, 2, 3]], budgets: { operator: 6 } },
  { ...fresh, name: "the same, two entries, power may fail", reach: [ALL, ALL], entries: 2, budgets: { crashes: 1 } },
];

/** Must be found out: shows that the exploration of memberships can fail. */
export const CARELESS: Configuration = { ...replacing, name: "a member is replaced by an operator who waits for nobody", reach: [[0, 1], [2, 3]], budgets: { operator: 6 }, careless: true };
