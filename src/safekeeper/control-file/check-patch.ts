/**
 * What an operator's hand may make of a control file: nothing that the next start, or the other safekeepers, would take for
 * something that never was. A rule is asked only when one of its fields is among those changed.
 */
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { configurationToString } from "../api/membership.ts";
import { termHistoryToString } from "../api/term-history.ts";
import type { TimelinePersistentState } from "./state.ts";

export interface Patched {
  readonly before: TimelinePersistentState;
  readonly after: TimelinePersistentState;
  readonly fields: Partial<TimelinePersistentState>;
  /** End of the last whole record on the disk; 0 without WAL. */
  readonly logEndLsn: Lsn;
}

type Field = keyof TimelinePersistentState;

interface Rule {
  readonly fields: readonly Field[];
  readonly holds: boolean;
  readonly otherwise: string;
}

/** @throws StrataError fix-input `inconsistent-control-file` */
export function checkPatch(patched: Patched): void {
  const rules = [...positionRules(patched), ...termRules(patched)];
  const broken = rules.find(({ fields, holds }) => !holds && fields.some((field) => Object.hasOwn(patched.fields, field)));
  if (broken !== undefined) throw new StrataError("fix-input", "inconsistent-control-file", broken.otherwise);
}

function positionRules({ after, logEndLsn }: Patched): Rule[] {
  const { timelineStartLsn, localStartLsn, commitLsn } = after;
  const end = Math.max(logEndLsn, timelineStartLsn);
  const start = `the timeline's start ${lsnToString(timelineStartLsn)}, this node's ${lsnToString(localStartLsn)}`;
  const known = (["backupLsn", "peerHorizonLsn", "remoteConsistentLsn"] as const).map((field) => ({
    // Of what is not committed nothing may be dispensable, backed up or with the pageserver.
    fields: [field, "commitLsn"] as const, holds: after[field] <= commitLsn, otherwise: `${NAMES[field]} ${lsnToString(after[field])} is beyond commit_lsn ${lsnToString(commitLsn)}`,
  }));
  return [
    { fields: ["timelineStartLsn", "localStartLsn"], holds: timelineStartLsn <= localStartLsn && (timelineStartLsn === 0) === (localStartLsn === 0), otherwise: `WAL here cannot begin below the timeline, nor one of the two be unknown: ${start}` },
    { fields: ["timelineStartLsn"], holds: timelineStartLsn > 0 || logEndLsn === 0, otherwise: `the log reaches ${lsnToString(logEndLsn)}: the timeline has a start` },
    { fields: ["commitLsn", "timelineStartLsn", "localStartLsn"], holds: commitLsn >= localStartLsn, otherwise: `commit_lsn ${lsnToString(commitLsn)} is below where the WAL begins: ${start}` },
    { fields: ["commitLsn"], holds: commitLsn <= end, otherwise: `commit_lsn ${lsnToString(commitLsn)} is beyond the end of the log here, ${lsnToString(end)}` },
    ...known,
  ];
}

const NAMES = { backupLsn: "backup_lsn", peerHorizonLsn: "peer_horizon_lsn", remoteConsistentLsn: "remote_consistent_lsn" } as const;

function termRules({ before, after, logEndLsn }: Patched): Rule[] {
  const { term, termHistory, timelineStartLsn, localStartLsn } = after;
  const history = termHistoryToString(termHistory);
  const first = termHistory.at(0);
  const last = termHistory.at(-1);
  const covers = first === undefined ? logEndLsn === 0 : first.lsn >= timelineStartLsn && first.lsn <= Math.max(localStartLsn, timelineStartLsn);
  const [was, is] = [before.configuration, after.configuration].map(configurationToString);
  return [
    { fields: ["term"], holds: term >= before.term, otherwise: `term ${term} is below ${before.term}, in which this node may have voted` },
    { fields: ["term", "termHistory"], holds: (last?.term ?? 0) <= term, otherwise: `the history ${history} is of later terms than ${term}` },
    { fields: ["termHistory", "timelineStartLsn"], holds: covers, otherwise: `the history ${history} does not begin where the timeline does, at ${lsnToString(timelineStartLsn)}` },
    { fields: ["configuration"], holds: after.configuration.generation > before.configuration.generation || was === is, otherwise: `a configuration is decided once for its generation: here is ${was}, not ${is}` },
  ];
}
