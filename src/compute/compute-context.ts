/** What a compute is started with, and what a running one, primary or replica, offers. */
import type { StrataError } from "../kit/errors.ts";
import type { Lsn } from "../kit/lsn.ts";
import type { Logger } from "../observability/log.ts";
import type { Metrics } from "../observability/metrics.ts";
import type { Platform } from "../platform/platform.ts";
import type { PostgresBinaries, PostgresUser } from "../platform/postgres-binaries.ts";
import type { PgTls } from "../wire/client-tls.ts";
import type { ComputeConfig } from "./config.ts";
import type { ComputeState } from "./state.ts";

export interface ComputeOptions {
  readonly platform: Platform;
  readonly log: Logger;
  readonly metrics?: Metrics;
  readonly version?: string;
  /** Breaks off the start; once started, use `stop`. */
  readonly signal?: AbortSignal;
}

export interface Compute {
  readonly pgPort: number;
  readonly httpPort: number;
  readonly socketDirectory: string;
  readonly superuser: string;
  /** What the base backup cost. */
  readonly fetchedBytes: number;
  readonly startLsn: Lsn;
  /** Lines of PostgreSQL's log since its start, the newest 2000. */
  postgresLog(): readonly string[];
  /** Resolves when the compute has ended: null after `stop`, else why (fenced, PostgreSQL crashed). Never rejects. */
  readonly ended: Promise<StrataError | null>;
  /** Waits until a quorum has the shutdown checkpoint, at most the configured time. */
  stop(): Promise<void>;
  /** As if the power failed: for tests and for giving up. */
  kill(): Promise<void>;
}

/** What starting needs. */
export interface StartContext {
  readonly config: ComputeConfig;
  readonly platform: Platform;
  readonly log: Logger;
  readonly binaries: PostgresBinaries;
  readonly user: PostgresUser | null;
  readonly state: ComputeState;
  /** Of connections to safekeepers and pageserver; undefined for plain text. */
  readonly tls: PgTls | undefined;
  readonly signal: AbortSignal;
}
