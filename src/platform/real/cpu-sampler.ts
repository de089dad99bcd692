/**
 * The runtime's sampling profiler, which is one a process: JavaScriptCore's, over everything this thread runs. It is started and
 * stopped while the program serves; with source maps in the executable its frames carry TypeScript names and lines.
 */
import { profile, type SamplingProfile } from "bun:jsc";
import { StrataError } from "../../kit/errors.ts";

/** The profiler goes on ticking at its last rate after it was stopped; this one costs nothing. */
const IDLE_INTERVAL_US = 1_000_000;

export interface StackFrame {
  readonly name: string;
  readonly file: string;
  /** From 1; 0 when unknown. */
  readonly line: number;
}

export interface StackSamples {
  /** Of each sample, the innermost frame first. */
  readonly stacks: readonly (readonly StackFrame[])[];
  readonly intervalMs: number;
  readonly durationMs: number;
  /** Of the start, since the epoch. */
  readonly startedMs: number;
}

interface Running {
  stop(): void;
  readonly done: Promise<unknown>;
}

let running: Running | null = null;

export interface SampleOptions {
  readonly durationMs: number;
  readonly frequencyHz: number;
  /** Ends one that is running (its caller gets what it has) instead of being refused. */
  readonly force: boolean;
}

/** @throws StrataError conflict `profiler-running` */
export async function sampleCpu(options: SampleOptions): Promise<StackSamples> {
  while (running !== null) {
    if (!options.force) throw new StrataError("conflict", "profiler-running", "profiler already running (use ?force=true to cancel it)");
    running.stop();
    await running.done;
  }
  const end = Promise.withResolvers<void>();
  const timer = setTimeout(end.resolve, options.durationMs);
  const sampling = sample(end.promise, 1e6 / options.frequencyHz);
  const done = sampling.then(
    () => undefined,
    () => undefined,
  );
  running = { stop: end.resolve, done };
  try {
    return await sampling;
  } finally {
    clearTimeout(timer);
    running = null;
  }
}

async function sample(end: Promise<void>, intervalUs: number): Promise<StackSamples> {
  const startedMs = Date.now();
  const start = performance.now();
  const result: SamplingProfile = await profile(() => end, intervalUs);
  const durationMs = performance.now() - start;
  await profile(() => Promise.resolve(), IDLE_INTERVAL_US);
  const stacks = result.stackTraces.traces.map(({ frames }) =>
    frames.map((frame) => ({
      name: frame.name === "" ? "(anonymous)" : frame.name,
      file: frame.sourceURL ?? "",
      line: frame.line === undefined || frame.line >= 2 ** 31 ? 0 : frame.line,
    })),
  );
  return { stacks, intervalMs: intervalUs / 1000, durationMs, startedMs };
}
