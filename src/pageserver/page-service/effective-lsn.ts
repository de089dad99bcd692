/**
 * At which LSN a request is answered. A primary asks for the latest (all ones) and says up to where it knows the page
 * unchanged; a standby or an old branch point asks for one LSN.
 *
 * Source: the peer's pageserver page_service module (wait_or_get_last_lsn).
 */
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, LSN_INVALID, lsnToString } from "../../kit/lsn.ts";
import type { ServedTimeline } from "./served-timeline.ts";

export interface RequestedLsn {
  readonly requestLsn: Lsn;
  readonly notModifiedSince: Lsn;
}

/** @throws StrataError fix-input `bad-request-lsn`, `lsn-garbage-collected`; retry `wait-lsn-timeout` */
export async function effectiveLsn(timeline: ServedTimeline, requested: RequestedLsn, signal: AbortSignal): Promise<Lsn> {
  const { requestLsn, notModifiedSince } = requested;
  const { store } = timeline.datadir;
  if (requestLsn === LSN_INVALID) throw new StrataError("fix-input", "bad-request-lsn", "invalid LSN 0/0 in request");
  if (requestLsn < notModifiedSince) {
    throw new StrataError("fix-input", "bad-request-lsn", `request LSN ${lsnToString(requestLsn)} lies before not_modified_since ${lsnToString(notModifiedSince)}`);
  }
  checkNotCollected(timeline, requestLsn);
  if (notModifiedSince > store.lastRecordLsn) {
    await store.waitLsn(notModifiedSince, { signal, who: "page service" });
    return notModifiedSince;
  }
  return Math.min(store.lastRecordLsn, requestLsn);
}

/** The same when it needs no waiting and nothing is wrong; else LSN_INVALID. Positional parameters on purpose: called for each page request. */
export function effectiveLsnNow(timeline: ServedTimeline, requestLsn: Lsn, notModifiedSince: Lsn): Lsn {
  const { lastRecordLsn, gcCutoffLsn } = timeline.datadir.store;
  if (requestLsn < notModifiedSince || notModifiedSince > lastRecordLsn) return LSN_INVALID;
  if (requestLsn < gcCutoffLsn && !timeline.hasLease(requestLsn)) return LSN_INVALID;
  return Math.min(lastRecordLsn, requestLsn);
}

/** @throws StrataError fix-input `lsn-garbage-collected` */
export function checkNotCollected(timeline: ServedTimeline, lsn: Lsn): void {
  const { gcCutoffLsn } = timeline.datadir.store;
  if (lsn >= gcCutoffLsn || timeline.hasLease(lsn)) return;
  throw new StrataError(
    "fix-input",
    "lsn-garbage-collected",
    `tried to request a page version that was garbage collected: requested at ${lsnToString(lsn)}, gc cutoff ${lsnToString(gcCutoffLsn)}`,
  );
}
