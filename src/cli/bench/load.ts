/**
 * Runs clients side by side for a while, and tells what came of it: answers a second while it goes on, the distribution of latencies
 * (HDR histogram, 3 digits, microseconds) in the end.
 */
import { writeFile } from "node:fs/promises";
import { createHistogram } from "node:perf_hooks";
import { formatDuration } from "../../kit/humantime.ts";
import type { Platform } from "../../platform/platform.ts";

const PERCENTILES = [50, 95, 99, 99.9, 99.99];
const REPORT_EVERY_MS = 1000;
/** From one microsecond to a quarter of an hour. */
const HISTOGRAM = { lowest: 1, highest: 1_000_000_000, figures: 3 };
/** What the pageserver samples in one go. */
const PROFILE_SECONDS_MAX = 60;

export interface LoadResult {
  readonly request_count: number;
  readonly missed: number;
  readonly requests_per_second: number;
  readonly latency_mean: string;
  readonly latency_percentiles: Readonly<Record<string, string>>;
}

export class LoadRecorder {
  readonly #histogram = createHistogram(HISTOGRAM);
  done = 0;
  missed = 0;

  observe(latencyMs: number): void {
    this.#histogram.record(Math.max(1, Math.round(latencyMs * 1000)));
    this.done++;
  }

  result(durationMs: number): LoadResult {
    const duration = (us: number): string => formatDuration(us / 1000);
    return {
      request_count: this.done,
      missed: this.missed,
      requests_per_second: Math.round((this.done * 10_000) / durationMs) / 10,
      latency_mean: this.done === 0 ? duration(0) : duration(Math.round(this.#histogram.mean)),
      latency_percentiles: Object.fromEntries(PERCENTILES.map((p) => [`p${p}`, duration(this.done === 0 ? 0 : this.#histogram.percentile(p))])),
    };
  }
}

export type LoadClient = (recorder: LoadRecorder, stop: AbortSignal) => Promise<void>;

export interface LoadOptions {
  readonly platform: Platform;
  readonly runtimeMs: number;
  readonly print: (line: string) => void;
  /** Called when the load has begun; its picture goes to `profilePath`. */
  readonly flameGraph: (seconds: number) => Promise<string>;
  readonly profilePath: string | null;
  /** Ends the load early. */
  readonly signal: AbortSignal;
}

/** @throws what the first failing client throws; the others are stopped then */
export async function runLoad(clients: readonly LoadClient[], options: LoadOptions): Promise<LoadResult> {
  const { clock } = options.platform;
  const recorder = new LoadRecorder();
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  const startMs = clock.monotonicMs();
  const running = Promise.all(clients.map((client) => client(recorder, signal)));
  const profiled = options.profilePath === null ? null : writeFlameGraph(options.profilePath, options);
  profiled?.catch(() => {});
  const reporting = report(recorder, { ...options, signal });
  try {
    await Promise.race([running, clock.sleep(options.runtimeMs, signal).catch(() => {})]);
  } finally {
    stop.abort();
  }
  const durationMs = clock.monotonicMs() - startMs;
  const result = recorder.result(durationMs);
  await Promise.all([running, reporting]);
  await profiled;
  return result;
}

async function writeFlameGraph(path: string, { runtimeMs, flameGraph }: LoadOptions): Promise<void> {
  await writeFile(path, await flameGraph(Math.min(PROFILE_SECONDS_MAX, Math.max(1, Math.floor(runtimeMs / 1000)))));
}

async function report(recorder: LoadRecorder, { platform, print, signal }: LoadOptions): Promise<void> {
  let before = { done: 0, missed: 0, atMs: platform.clock.monotonicMs() };
  while (!signal.aborted) {
    await platform.clock.sleep(REPORT_EVERY_MS, signal).catch(() => {});
    const now = { done: recorder.done, missed: recorder.missed, atMs: platform.clock.monotonicMs() };
    const seconds = (now.atMs - before.atMs) / 1000;
    if (!signal.aborted) print(`RPS: ${Math.round((now.done - before.done) / seconds)}  MISSED: ${Math.round((now.missed - before.missed) / seconds)}`);
    before = now;
  }
}
