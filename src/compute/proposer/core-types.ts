/** What goes into the proposer's core and what comes out of it. */
import type { StrataError } from "../../kit/errors.ts";
import type { TenantId, TimelineId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { Configuration } from "../../safekeeper/api/membership.ts";
import type { HotStandbyFeedback, ProposerMessage } from "../../safekeeper/api/proposer-messages.ts";
import type { PageserverFeedback } from "../../safekeeper/api/pageserver-feedback.ts";
import type { Term, TermHistory } from "../../safekeeper/api/term-history.ts";

export interface ProposerIdentity {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  /** 0n when not known: before there is a data directory. */
  readonly systemId: bigint;
  /** PG_VERSION_NUM, 0 when not known. */
  readonly pgVersion: number;
  readonly walSegmentSizeBytes: number;
}

export type ProposerMode =
  /** Only brings a majority to the end of the most advanced log. */
  | { readonly kind: "sync" }
  /** Writes the WAL of a server that began at `startLsn`. */
  | {
      readonly kind: "run";
      readonly startLsn: Lsn;
      /** End of the local, flushed WAL now. */
      readonly availableLsn: Lsn;
      /** Highest term this same server's proposer was elected in before; null the first time. */
      readonly previousTerm: Term | null;
    };

export interface CoreOptions {
  readonly identity: ProposerIdentity;
  /** How many safekeepers we connect to; they are called by their slot, 0 to slots - 1. */
  readonly slots: number;
  readonly configuration: Configuration;
  readonly mode: ProposerMode;
}

export interface Election {
  readonly term: Term;
  /** Where our term begins: the end of the most advanced log among the voters. */
  readonly startLsn: Lsn;
  readonly history: TermHistory;
  /** Slot of the safekeeper that has everything up to startLsn; null when there was no WAL at all. */
  readonly donor: number | null;
}

export type CoreEffect =
  | { readonly kind: "send"; readonly slot: number; readonly message: ProposerMessage }
  /** Close the connection; a new one may do better. */
  | { readonly kind: "drop"; readonly slot: number; readonly error: StrataError }
  | { readonly kind: "elected"; readonly election: Election }
  /** Ask `nextAppend` for this slot from now on, until it disconnects. */
  | { readonly kind: "stream"; readonly slot: number }
  | { readonly kind: "committed"; readonly lsn: Lsn }
  /** No safekeeper needs WAL below this any more. */
  | { readonly kind: "truncated"; readonly lsn: Lsn }
  | { readonly kind: "feedback"; readonly slot: number; readonly hotStandby: HotStandbyFeedback; readonly pageserver: PageserverFeedback | null }
  /** Sync mode: a majority has and knows committed everything up to lsn; `all`: everyone connected does. */
  | { readonly kind: "settled"; readonly lsn: Lsn; readonly all: boolean }
  /** Terminal: a higher term, or a newer configuration, is about. */
  | { readonly kind: "superseded"; readonly term: Term; readonly configuration: Configuration; readonly error: StrataError }
  /** Terminal: the log ends elsewhere than our server's WAL begins. */
  | { readonly kind: "start-mismatch"; readonly error: StrataError };
