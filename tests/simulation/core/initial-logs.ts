/**
 * Logs that have already parted when a simulation begins: what some leaders may have left behind, each elected by a majority at
 * the end of the most advanced log, and each followed by some of its voters for some way.
 */
import { historyUpTo, type TermHistory } from "../../../src/safekeeper/api/term-history.ts";
import type { SeededRandom } from "../../../src/platform/virtual/seeded-random.ts";
import { type CoreNode, entryOf, FIRST_LSN } from "./core-node.ts";
import type { Soup } from "./soup.ts";

interface Log {
  term: number;
  history: TermHistory;
  entries: number[];
}

export function partLogs(soup: Soup, random: SeededRandom): void {
  const logs = soup.nodes.map((): Log => ({ term: 0, history: [], entries: [] }));
  const leaders = 1 + random.below(3);
  for (let term = 1; term <= leaders; term++) lead(logs, term, { writer: soup.nextWriter++, random });
  soup.nodes.forEach((node, id) => adopt(node, logs[id]));
}

function lead(logs: readonly Log[], term: number, options: { writer: number; random: SeededRandom }): void {
  const { writer, random } = options;
  const voters = shuffled(logs, random).slice(0, Math.floor(logs.length / 2) + 1);
  const best = voters.reduce((a, b) => (lastTerm(b) > lastTerm(a) || (lastTerm(b) === lastTerm(a) && b.entries.length > a.entries.length) ? b : a));
  const base = best.entries;
  const startLsn = FIRST_LSN + base.length;
  const history = [...historyUpTo(best.history, startLsn), { term, lsn: startLsn }];
  const written = [...base, ...Array.from({ length: random.below(4) }, (_, at) => entryOf(writer, startLsn + at))];
  for (const voter of voters) {
    voter.term = term;
    if (!random.chance(0.6)) continue;
    let common = 0;
    while (common < Math.min(voter.entries.length, base.length) && voter.entries[common] === base[common]) common++;
    voter.history = history;
    voter.entries = written.slice(0, common + random.below(written.length - common + 1));
  }
}

function lastTerm(log: Log): number {
  return log.history.findLast(({ lsn }) => lsn <= FIRST_LSN + log.entries.length)?.term ?? 0;
}

function shuffled<T>(items: readonly T[], random: SeededRandom): T[] {
  return items.map((item) => ({ item, at: random.u32() })).sort((a, b) => a.at - b.at).map(({ item }) => item);
}

function adopt(node: CoreNode, { term, history, entries }: Log): void {
  node.durable = { ...node.durable, term };
  if (history.length > 0) {
    node.durable = {
      ...node.durable, termHistory: history, timelineStartLsn: FIRST_LSN, localStartLsn: FIRST_LSN, commitLsn: FIRST_LSN, backupLsn: FIRST_LSN, peerHorizonLsn: FIRST_LSN, remoteConsistentLsn: FIRST_LSN,
    };
    node.log.startLsn = FIRST_LSN;
    node.log.entries = entries;
    node.log.flushed = FIRST_LSN + entries.length;
  }
  node.restart();
}
