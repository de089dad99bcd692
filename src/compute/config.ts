/** What a compute is told: which timeline, where its storage is, how to run its PostgreSQL. */
import type { TenantId, TimelineId } from "../kit/ids.ts";
import type { PgMajor } from "../postgres/versions/major.ts";
import type { SslMode } from "../wire/client-tls.ts";
import type { LagLimits } from "./proposer/pageserver-positions.ts";
import type { SafekeeperAddress } from "./proposer/safekeeper-client.ts";

export interface ComputeConfig {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  /** libpq addresses; at least one. */
  readonly safekeepers: readonly SafekeeperAddress[];
  /** libpq address. */
  readonly pageserver: { readonly host: string; readonly port: number };
  readonly pgVersion: PgMajor;
  /** From `--pg-bin-dir`; the npm packages unless given. */
  readonly pgBinDirectory?: string;
  /** Owned by this compute, emptied at every start. */
  readonly dataDirectory: string;
  /** Where PostgreSQL listens; loopback unless given. */
  readonly listenHost?: string;
  /** 0: any free port. */
  readonly pgPort: number;
  readonly httpHost?: string;
  /** 0: any free port. */
  readonly httpPort: number;
  /** A replica is a standby that follows the timeline and serves reads. */
  readonly mode: "primary" | "replica";
  /** Into postgresql.conf; a few are forced regardless (postgres-process/settings.ts). */
  readonly settings?: Readonly<Record<string, string>>;
  /** JWT for safekeepers and pageserver. */
  readonly authToken?: string;
  /** Of connections to safekeepers and pageserver; plain text unless given. */
  readonly sslMode?: SslMode;
  /** Certificate authorities to trust instead of the system's, in PEM. */
  readonly sslCaFile?: string;
  /** Account PostgreSQL runs as when we are root; `nobody` unless given. */
  readonly osUser?: string;
  /** The cluster's bootstrap superuser; `cloud_admin` unless given. */
  readonly superuser?: string;
  /** How long stopping waits for the quorum to have the shutdown checkpoint; 10 s unless given. */
  readonly shutdownTimeoutMs?: number;
  /** How far commits may get ahead of the pageserver before they wait for it; not at all limited unless given. */
  readonly lagLimits?: LagLimits;
  /** Size of the timeline from which on transactions are read-only unless they say otherwise; without a limit unless given. */
  readonly maxClusterSizeBytes?: number;
  /** How long starting may wait for a majority of safekeepers; 60 s unless given. */
  readonly settleTimeoutMs?: number;
}

export const DEFAULT_SUPERUSER = "cloud_admin";
export const DEFAULT_SHUTDOWN_TIMEOUT_MS = 10_000;
