/**
 * The runtime's sampling profiler, which is one a process: JavaScriptCore's, over everything this thread runs. It is started and
 * stopped while the program serves; with source maps in the executable its frames carry TypeScript names and lines.
 */
import { profile, type SamplingProfile } from "bun:jsc";
import { StrataError } from "../../kit/errors.ts";

/** The profiler goes on ticking at its last rate after it was stopped; this one costs next to nothing. */
const IDLE_INTERVAL_US = 200_000;
/** It takes up a new rate only at its next tick: without waiting for that the first samples, on a short run all of them, would be missing. */
const WARM_UP_MS = IDLE_INTERVAL_US / 1000 + 20;

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
let ticksIdly = false;

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
  const cut = Promise.withResolvers<void>();
  const sampling = sample(options, cut.promise);
  const done = sampling.then(
    () => undefined,
    () => undefined,
  );
  running = { stop: cut.resolve, done };
  try {
    return await sampling;
  } finally {
    running = null;
  }
}

async function sample(options: SampleOptions, cut: Promise<void>): Promise<StackSamples> {
  const intervalUs = 1e6 / options.frequencyHz;
  if (ticksIdly) await profile(() => pause(WARM_UP_MS, cut), intervalUs);
  const startedMs = Date.now();
  const start = performance.now();
  const result: SamplingProfile = await profile(() => pause(options.durationMs, cut), intervalUs);
  const durationMs = performance.now() - start;
  await profile(() => Promise.resolve(), IDLE_INTERVAL_US);
  ticksIdly = true;
  return { stacks: result.stackTraces.traces.map(({ frames }) => frames.map(stackFrame)), intervalMs: intervalUs / 1000, durationMs, startedMs };
}

async function pause(durationMs: number, cut: Promise<void>): Promise<void> {
  const over = Promise.withResolvers<void>();
  const timer = setTimeout(over.resolve, durationMs);
  await Promise.race([over.promise, cut]);
  clearTimeout(timer);
}

function stackFrame(frame: SamplingProfile["stackTraces"]["traces"][number]["frames"][number]): StackFrame {
  return {
    name: frame.name === "" ? "(anonymous)" : frame.name,
    file: frame.sourceURL ?? "",
    line: frame.line === undefined || frame.line >= 2 ** 31 ? 0 : frame.line,
  };
}
