/** Mistakes of a safekeeper that lost its disk: what it may promise again, and when. */
import type { Mutant } from "./mutant.ts";

const ADMISSION = "safekeeper/receive-wal/admission.ts";

const MISTAKES: readonly Mutant[] = [
  { name: "lost-is-new", rule: "a timeline of which others have WAL is not new", file: ADMISSION, find: `if (newness.kind === "new") return takeAsNew(timeline);`, replace: "return takeAsNew(timeline);" },
  { name: "new-without-waiting", rule: "promises given before the disk was lost run out before a timeline is taken for new", file: ADMISSION, find: `if (newness.kind === "new" && waitMs > 0 &&`, replace: `if (newness.kind === "new" && waitMs > 1e12 &&` },
  { name: "voted-is-new", rule: "a timeline in which others have voted is not new", file: "safekeeper/timeline/newness.ts", find: `answer.term > 0 ? { kind: "voted", by: name, ...answer } : { kind: "new", ...answer };`, replace: `{ kind: "new", ...answer };` },
  { name: "recovering-votes", rule: "who does not know what it acknowledged gives no votes", file: "safekeeper/consensus/election.ts", find: "const voteGiven = isNewTerm && !acceptor.persisted.recovering;", replace: "const voteGiven = isNewTerm;" },
  { name: "recovered-at-first-sight", rule: "a lost log is whole when the proposer has no more of it", file: "safekeeper/consensus/append.ts", find: "if (request.walData.length > 0) return;", replace: "" },
];

export const LOST_DISK_MUTANTS: readonly Mutant[] = MISTAKES.map((mutant) => ({ ...mutant, layer: "world" }));
