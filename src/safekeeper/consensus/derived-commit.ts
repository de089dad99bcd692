/**
 * What safekeepers can know of the commit position among themselves, when no proposer tells them: after everything was killed, what
 * it committed last is in nobody's control file.
 *
 * WAL that a majority has is not committed by that alone: a leader of a term in between may have a majority's votes, and cut it
 * (Raft 5.4.2, figure 8). It is when each of that majority took it in under the term in which it was written and has voted in no
 * later one since: then no later leader has been elected without one of them, and all of them had the WAL before they vote. That
 * is the leader's own rule (5.4.2: entries of its current term, by counting), which needs no leader to be applied. The positions
 * may have been told at different times, for within a term a log only grows.
 */
import { type Lsn } from "../../kit/lsn.ts";
import type { NodeId } from "../../kit/ids.ts";
import { type Configuration, INVALID_GENERATION } from "../api/membership.ts";
import type { Term } from "../api/term-history.ts";
import type { Acceptor, Steps } from "./acceptor.ts";

/** What a safekeeper says of itself. */
export interface LogPosition {
  readonly nodeId: NodeId;
  /** Highest it has voted in. */
  readonly term: Term;
  /** Of its last byte. */
  readonly lastLogTerm: Term;
  readonly flushLsn: Lsn;
}

/** @param peers each of the other safekeepers at most once; of those missing nothing is assumed */
export function* deriveCommit(acceptor: Acceptor, peers: readonly LogPosition[]): Steps<void> {
  const { term, configuration, safekeeperCount } = acceptor.persisted;
  const { lastLogTerm, flushLsn, nodeId } = acceptor;
  // What a recovering node has voted in it does not know itself.
  if (acceptor.persisted.recovering || term === 0 || term !== lastLogTerm) return;
  const own = { nodeId, term, lastLogTerm, flushLsn };
  // Whose last log term it is, its log reaches the term's start at least.
  const following = [own, ...peers.filter((peer) => peer.nodeId !== nodeId)].filter((one) => one.term === term && one.lastLogTerm === term);
  const reached = memberSets(configuration, following, safekeeperCount).map(({ size, lsns }) => lsns.sort((a, b) => b - a).at(Math.floor(size / 2)) ?? 0);
  const commitLsn = Math.min(...reached);
  if (commitLsn > acceptor.volatile.commitLsn) yield* acceptor.advanceCommit(commitLsn);
}

/** The sets of which each must have a majority; the `lsns` are of those that follow the term. */
function memberSets(configuration: Configuration, following: readonly LogPosition[], safekeeperCount: number): { readonly size: number; readonly lsns: Lsn[] }[] {
  // Without a configuration only a proposer knows how many there are; nobody has said yet: then there is no majority.
  if (configuration.generation === INVALID_GENERATION) return [{ size: safekeeperCount === 0 ? Number.POSITIVE_INFINITY : safekeeperCount, lsns: following.map(({ flushLsn }) => flushLsn) }];
  const { members, newMembers } = configuration;
  return [members, ...(newMembers === null ? [] : [newMembers])].map((set) => ({
    size: set.length, lsns: following.filter(({ nodeId }) => set.some((member) => member.nodeId === nodeId)).map(({ flushLsn }) => flushLsn),
  }));
}
