/**
 * Majorities: over the members of a membership configuration, of both sets while it is a joint one, or, before a
 * timeline has a configuration, over the safekeepers we were told of.
 *
 * Source: the peer (neondatabase/neon) pgxn/neon/walproposer.c (MsetHasQuorum, GetCommittedMset),
 * docs/rfcs/035-safekeeper-dynamic-membership-change.md.
 */
import type { NodeId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { type Configuration, INVALID_GENERATION } from "../../safekeeper/api/membership.ts";

/** What the counting needs to know of one safekeeper. */
export interface Voter {
  /** null until its greeting. */
  readonly nodeId: NodeId | null;
}

/** Calls `majorityOf` with the voters of each set that must agree; a member never heard of is null. */
function everySet<V extends Voter>(configuration: Configuration, voters: readonly V[], majorityOf: (set: readonly (V | null)[]) => boolean): boolean {
  return setsOf(configuration, voters).every(majorityOf);
}

function setsOf<V extends Voter>(configuration: Configuration, voters: readonly V[]): (readonly (V | null)[])[] {
  if (configuration.generation === INVALID_GENERATION) return [voters];
  const { members, newMembers } = configuration;
  return [members, ...(newMembers === null ? [] : [newMembers])].map((set) =>
    set.map((member) => voters.find((voter) => voter.nodeId === member.nodeId) ?? null),
  );
}

export function majority(count: number): number {
  return Math.floor(count / 2) + 1;
}

export function hasQuorum<V extends Voter>(configuration: Configuration, voters: readonly V[], agrees: (voter: V) => boolean): boolean {
  return everySet(configuration, voters, (set) => set.filter((voter) => voter !== null && agrees(voter)).length >= majority(set.length));
}

/** The highest LSN that a majority (of each set) has reached. */
export function quorumLsn<V extends Voter>(configuration: Configuration, voters: readonly V[], lsnOf: (voter: V) => Lsn): Lsn {
  const reached = setsOf(configuration, voters).map((set) => {
    const lsns = set.map((voter) => (voter === null ? 0 : lsnOf(voter))).sort((a, b) => b - a);
    return lsns[majority(set.length) - 1] ?? 0;
  });
  return Math.min(...reached);
}

/** The LSN that all of them, of every set, have reached. */
export function commonLsn<V extends Voter>(configuration: Configuration, voters: readonly V[], lsnOf: (voter: V) => Lsn): Lsn {
  return Math.min(...setsOf(configuration, voters).flat().map((voter) => (voter === null ? 0 : lsnOf(voter))));
}
