/** What the HTTP routes are about. */
import type { TenantTimelineId } from "../../broker/api/messages.ts";
import type { HttpAppOptions } from "../../http/app.ts";
import type { Failpoints } from "../../kit/failpoints.ts";
import type { BackedUpWal } from "../backup/backed-up-wal.ts";
import type { PartialBackup } from "../backup/partial-backup.ts";
import type { WalBackup } from "../backup/wal-backup.ts";
import type { Timelines } from "../timeline/timelines.ts";
import type { DumpContext } from "./debug-dump.ts";

export interface SafekeeperHttpOptions extends HttpAppOptions {
  readonly timelines: Timelines;
  /** Null unless in testing mode. */
  readonly failpoints?: Failpoints | null;
  readonly dump: DumpContext;
  /** Null without object storage. */
  readonly backup: { readonly whole: WalBackup; readonly partial: PartialBackup } | null;
  /** Makes a timeline from its WAL backup; null without one. */
  readonly restore: ((id: TenantTimelineId, options: { readonly ignoreGap: boolean; readonly signal: AbortSignal }) => Promise<BackedUpWal>) | null;
  /** Removes a deleted timeline's objects. */
  readonly deleteBackup: (id: TenantTimelineId) => Promise<void>;
  /** Shown to other safekeepers. */
  readonly peerToken: () => Promise<string | undefined>;
  /** Certificate authorities trusted for other safekeepers' HTTPS, in PEM. */
  readonly peerCaPem: string | undefined;
}
