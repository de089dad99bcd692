/**
 * Which safekeeper to stream from. Pure: what the broker told, the present connection and the time in, a decision out.
 *
 * A connection that makes progress is kept. It is given up when the broker's word has gone stale for it, when another
 * safekeeper is ahead of what it has received by more than `maxLsnWalLagBytes`, or when nothing came for
 * `laggingWalTimeoutMs` although another has more. Among candidates those of our own zone come first, then those with
 * the most committed WAL. A safekeeper that failed rests, longer each time.
 *
 * Source: the peer's pageserver walreceiver connection manager.
 */
import type { NodeId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";

export interface Candidate {
  readonly safekeeperId: NodeId;
  readonly commitLsn: Lsn;
  /** host:port. */
  readonly connstr: string;
  readonly availabilityZone: string | undefined;
  /** When the broker last spoke of it. */
  readonly heardMs: number;
}

export interface PresentConnection {
  readonly safekeeperId: NodeId;
  readonly startedMs: number;
  /** End of WAL received so far. */
  readonly receivedLsn: Lsn;
  /** When `receivedLsn` last rose; the start of the connection before that. */
  readonly progressMs: number;
  /** When anything came last, keepalives included. */
  readonly heardMs: number;
}

export interface Failures {
  readonly count: number;
  readonly lastMs: number;
}

export interface ChoiceInput {
  readonly nowMs: number;
  readonly ownZone: string | null;
  readonly lastRecordLsn: Lsn;
  readonly candidates: readonly Candidate[];
  readonly present: PresentConnection | null;
  readonly failures: ReadonlyMap<NodeId, Failures>;
  readonly laggingWalTimeoutMs: number;
  readonly maxLsnWalLagBytes: number;
}

export type Choice =
  | { readonly kind: "stay" }
  /** Nobody to connect to; look again after `afterMs` or when the broker speaks. */
  | { readonly kind: "wait"; readonly afterMs: number }
  | { readonly kind: "connect"; readonly candidate: Candidate; readonly reason: ConnectReason };

/** In the peer's words. */
export type ConnectReason = "NoExistingConnection" | "LaggingWal" | "NoWalTimeout" | "NoKeepAlives";

const REST_BASE_MS = 100;
const REST_MAX_MS = 15_000;
const LOOK_AGAIN_MS = 1000;

/** How long a safekeeper rests after its `count`-th failure in a row. */
function restMs(failures: Failures | undefined): number {
  return failures === undefined ? 0 : Math.min(REST_MAX_MS, REST_BASE_MS * 2 ** Math.min(failures.count - 1, 16));
}

function better(a: Candidate, b: Candidate, ownZone: string | null): number {
  const zone = Number(b.availabilityZone === ownZone) - Number(a.availabilityZone === ownZone);
  return (ownZone === null ? 0 : zone) || b.commitLsn - a.commitLsn || a.safekeeperId - b.safekeeperId;
}

function reasonToLeave(input: ChoiceInput, present: PresentConnection, best: Candidate): ConnectReason | null {
  const { nowMs, laggingWalTimeoutMs, maxLsnWalLagBytes } = input;
  if (best.safekeeperId === present.safekeeperId) return null;
  if (nowMs - present.heardMs > laggingWalTimeoutMs) return "NoKeepAlives";
  const ahead = best.commitLsn - present.receivedLsn;
  if (ahead >= maxLsnWalLagBytes) return "LaggingWal";
  if (ahead > 0 && nowMs - present.progressMs > laggingWalTimeoutMs) return "NoWalTimeout";
  return null;
}

export function chooseSafekeeper(input: ChoiceInput): Choice {
  const { nowMs, present, failures, ownZone, lastRecordLsn } = input;
  const fresh = input.candidates.filter((one) => one.connstr !== "" && nowMs - one.heardMs <= input.laggingWalTimeoutMs);
  const rested = fresh.filter((one) => nowMs - (failures.get(one.safekeeperId)?.lastMs ?? Number.NEGATIVE_INFINITY) >= restMs(failures.get(one.safekeeperId)));
  const best = rested.filter((one) => one.commitLsn > lastRecordLsn).sort((a, b) => better(a, b, ownZone))[0];
  if (present !== null) {
    const reason = best === undefined ? null : reasonToLeave(input, present, best);
    return reason === null || best === undefined ? { kind: "stay" } : { kind: "connect", candidate: best, reason };
  }
  if (best !== undefined) return { kind: "connect", candidate: best, reason: "NoExistingConnection" };
  const soonest = Math.min(...fresh.map((one) => (failures.get(one.safekeeperId)?.lastMs ?? nowMs) + restMs(failures.get(one.safekeeperId)) - nowMs), LOOK_AGAIN_MS);
  return { kind: "wait", afterMs: Math.max(REST_BASE_MS, soonest) };
}
