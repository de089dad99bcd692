/** Mistakes of the proposer: what it counts, and from where it goes on. */
import type { Mutant } from "./mutant.ts";

const CORE = "compute/proposer/core.ts";
const QUORUM = "compute/proposer/quorum.ts";

export const PROPOSER_MUTANTS: readonly Mutant[] = [
  { name: "wrong-quorum", rule: "a majority is more than half", file: QUORUM, find: "return Math.floor(count / 2) + 1;", replace: "return Math.max(1, Math.floor(count / 2));" },
  { name: "commit-of-a-minority", rule: "committed is what a majority has", file: QUORUM, find: "return lsns[majority(set.length) - 1] ?? 0;", replace: "return lsns[majority(set.length) - 2] ?? 0;" },
  { name: "refused-vote-counts", rule: "a refused vote is no vote", file: CORE, find: `vote.term > this.#term || (!vote.voteGiven && this.#phase === "campaigning")`, replace: "vote.term > this.#term" },
  { name: "longest-log-wins", rule: "logs are compared by their last term before their length", file: CORE, find: "const termA = lastLogTerm(a.termHistory, a.flushLsn);\n  const termB = lastLogTerm(b.termHistory, b.flushLsn);", replace: "const termA = a.term;\n  const termB = b.term;\n  void lastLogTerm;" },
  { name: "shortest-log-wins", rule: "the most advanced log is gone on from", file: CORE, find: "termA === termB && a.flushLsn > b.flushLsn", replace: "termA === termB && a.flushLsn < b.flushLsn" },
  { name: "commit-below-term-start", rule: "WAL of earlier terms is committed only together with the own term's start", file: CORE, find: "(slot.flushLsn >= start ? slot.flushLsn : 0)", replace: "slot.flushLsn" },
  { name: "start-anywhere", rule: "a server's first election must find the log where the server begins", file: CORE, find: "if (end === 0 || end === mode.startLsn) return mode.startLsn;", replace: "return mode.startLsn;" },
  { name: "own-term-forgotten", rule: "a second election under a living server goes on only from its own WAL", file: CORE, find: "lastLogTerm(donor.termHistory, end) === mode.previousTerm && end <= this.#availableLsn", replace: "end <= this.#availableLsn" },
  { name: "settled-unknown-to-all", rule: "a log is settled when a majority knows it as committed", file: CORE, find: "if (!hasQuorum(this.#configuration, this.#slots, (slot) => slot.commitLsn >= lsn)) return;", replace: "if (!this.#slots.some((slot) => slot.flushLsn >= lsn)) return;" },
  { name: "horizon-of-a-quorum", layer: "world", rule: "WAL is dispensable when every safekeeper has it", file: CORE, find: "Math.min(this.#commitLsn, commonLsn(this.#configuration, this.#slots, (slot) => slot.flushLsn))", replace: "(void commonLsn, this.#commitLsn)" },
  { name: "settled-by-who-answers", layer: "world", rule: "only if all safekeepers say the same is no election needed", file: "compute/proposer/settle-log.ts", find: "answers.every((answer) => answer !== null && answer.flushLsn === lsn && answer.commitLsn === lsn)", replace: "answers.every((answer) => answer === null || answer.flushLsn === lsn)" },
];
