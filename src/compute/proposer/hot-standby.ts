/** The oldest of what all standbys need, each safekeeper speaking for its own. */
import type { HotStandbyFeedback } from "../../safekeeper/api/proposer-messages.ts";

/** 0 means "nothing needed" and so never is the minimum. */
export function aggregateFeedback(all: readonly HotStandbyFeedback[]): HotStandbyFeedback {
  const oldest = (values: readonly bigint[]): bigint => values.filter((value) => value !== 0n).reduce((a, b) => (a === 0n || b < a ? b : a), 0n);
  return {
    timestamp: all.reduce((latest, { timestamp }) => (timestamp > latest ? timestamp : latest), 0n),
    xmin: oldest(all.map((feedback) => feedback.xmin)),
    catalogXmin: oldest(all.map((feedback) => feedback.catalogXmin)),
  };
}
