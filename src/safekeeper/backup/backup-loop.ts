/** Goes round the timelines and has their WAL backed up: whole segments first, then unfinished ones that have rested. */
import type { Clock } from "../../platform/clock.ts";
import type { SafekeeperConfig } from "../config.ts";
import type { Timeline } from "../timeline/timeline.ts";
import type { PartialBackup } from "./partial-backup.ts";
import type { WalBackup } from "./wal-backup.ts";

export interface BackupLoopOptions {
  readonly timelines: { readonly all: readonly Timeline[] };
  readonly backup: WalBackup;
  readonly partialBackup: PartialBackup;
  readonly config: SafekeeperConfig;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

const INTERVAL_MS = 1000;
/** Timelines whose last attempt failed: said once a row, for a store that is down is down for all of them, every second. */
const failing = new WeakSet<Timeline>();

/** Until the signal. What fails is logged and tried again in the next round. */
export async function backupLoop(options: BackupLoopOptions): Promise<void> {
  const { timelines, clock, signal, config } = options;
  while (!signal.aborted) {
    for (const timeline of timelines.all) await wholeSegments(timeline, options);
    const due = timelines.all.filter((timeline) => !timeline.gate.isClosed && timeline.store.failure === null && options.partialBackup.isDue(timeline));
    for (let at = 0; at < due.length && !signal.aborted; at += config.partialBackupConcurrency) {
      await Promise.all(due.slice(at, at + config.partialBackupConcurrency).map((timeline) => partialSegment(timeline, options)));
    }
    await clock.sleep(INTERVAL_MS, signal).catch(() => undefined);
  }
}

async function wholeSegments(timeline: Timeline, { backup, signal }: BackupLoopOptions): Promise<void> {
  if (signal.aborted || timeline.gate.isClosed) return;
  try {
    const uploaded = await timeline.gate.run(() => backup.backUp(timeline));
    if (uploaded === 0) return;
    failing.delete(timeline);
    timeline.log.info("WAL backed up", { uploaded, backupLsn: timeline.acceptor.volatile.backupLsn });
  } catch (error) {
    noteFailure(timeline, signal, error);
  }
}

async function partialSegment(timeline: Timeline, { partialBackup, signal }: BackupLoopOptions): Promise<void> {
  try {
    await timeline.gate.run(() => partialBackup.upload(timeline));
    failing.delete(timeline);
    timeline.log.info("unfinished WAL segment backed up", { name: timeline.state.partialBackup.at(-1)?.name });
  } catch (error) {
    noteFailure(timeline, signal, error);
  }
}

function noteFailure(timeline: Timeline, signal: AbortSignal, error: unknown): void {
  const said = failing.has(timeline) || signal.aborted || timeline.gate.isClosed;
  failing.add(timeline);
  timeline.log[said ? "debug" : "warn"]("WAL backup failed, trying again", { error });
}
