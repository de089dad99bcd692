/** The control file changed by an operator's hand: as a whole, or not at all. */
import { StrataError } from "../../kit/errors.ts";
import { lsnToString } from "../../kit/lsn.ts";
import type { TimelinePersistentState } from "../control-file/state.ts";
import { isRecordEnd } from "./record-end.ts";
import type { Timeline } from "./timeline.ts";

/** @throws StrataError fix-input `inconsistent-control-file`; retry `log-changed`; not-found `wal-segment-missing` */
export async function patchControlFile(timeline: Timeline, patch: Partial<TimelinePersistentState>): Promise<void> {
  const { commitLsn } = patch;
  const { termHistory } = timeline.state;
  if (commitLsn !== undefined && commitLsn >= timeline.state.localStartLsn && commitLsn < timeline.acceptor.flushLsn && !(await isRecordEnd(timeline, commitLsn))) {
    // A restart looks for the end of the log from there on: within a record it would find none, and forget what follows.
    throw new StrataError("fix-input", "inconsistent-control-file", `no record of the log ends at commit_lsn ${lsnToString(commitLsn)}`);
  }
  await timeline.run("control file patch", function* (acceptor) {
    if (commitLsn !== undefined && acceptor.persisted.termHistory !== termHistory) throw new StrataError("retry", "log-changed", "another proposer was elected meanwhile: the log may have been cut");
    yield* acceptor.overwrite(patch);
  });
}
