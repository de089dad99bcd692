/**
 * Waiting until a peer has taken what it was sent: without end as long as it takes anything, for it may be slow, and not at all
 * when the connection or the timeline is to end meanwhile.
 */
import { StrataError } from "../kit/errors.ts";
import type { Logger } from "../observability/log.ts";
import type { Clock } from "../platform/clock.ts";
import type { CopyStream } from "../wire/pg-session.ts";

export interface DrainOptions {
  readonly clock: Clock;
  readonly log: Logger;
  /** A peer that takes nothing for so long is given up; 0 = never. */
  readonly timeoutMs: number;
  /** What ends the wait early. */
  readonly signals: readonly AbortSignal[];
}

/** Below this nothing is waited for: half of the connection's high-water mark. */
const WAIT_FROM_BYTES = 512 * 1024;
const SLOW_MS = 5_000;
const LOOK_MS = 1_000;

/** @throws StrataError unavailable `peer-blocked` */
export async function drained(copy: Pick<CopyStream, "bufferedBytes" | "drained">, options: DrainOptions): Promise<void> {
  if (copy.bufferedBytes < WAIT_FROM_BYTES) return await copy.drained();
  const { clock, log, timeoutMs, signals } = options;
  const over = Promise.withResolvers<void>();
  const end = (): void => over.resolve();
  const startMs = clock.monotonicMs();
  let takenMs = startMs;
  let buffered = copy.bufferedBytes;
  let said = false;
  const look = (): void => {
    const nowMs = clock.monotonicMs();
    if (copy.bufferedBytes < buffered) takenMs = nowMs;
    buffered = copy.bufferedBytes;
    if (!said && nowMs - startMs >= SLOW_MS) {
      said = true;
      log.info("sending is blocked: the peer does not keep up", { waitedMs: nowMs - startMs, bufferedBytes: buffered });
    }
    if (timeoutMs > 0 && nowMs - takenMs >= timeoutMs) over.reject(new StrataError("unavailable", "peer-blocked", `the peer has taken nothing of what it was sent for ${timeoutMs} ms`));
    else timer = clock.after(lookMs, look);
  };
  const lookMs = timeoutMs > 0 ? Math.min(LOOK_MS, timeoutMs / 4) : LOOK_MS;
  let timer = clock.after(lookMs, look);
  for (const signal of signals) {
    signal.addEventListener("abort", end);
    if (signal.aborted) end();
  }
  void copy.drained().then(end);
  try {
    await over.promise;
    if (said) log.info("sending goes on", { waitedMs: clock.monotonicMs() - startMs });
  } finally {
    timer.cancel();
    for (const signal of signals) signal.removeEventListener("abort", end);
  }
}
