/** Stack samples of a processor profile, as the pprof tool reads them and as a flame graph. */
import { renderFlameGraph } from "./flame-graph.ts";
import { encodeProfile, type ProfileFrame } from "./pprof.ts";

export interface CpuSamples {
  /** Of each sample, the innermost frame first. */
  readonly stacks: readonly (readonly ProfileFrame[])[];
  readonly intervalMs: number;
  readonly durationMs: number;
  readonly startedMs: number;
}

export function cpuPprof({ stacks, intervalMs, durationMs, startedMs }: CpuSamples): Uint8Array {
  const period = Math.round(intervalMs * 1e6);
  const cpu = { type: "cpu", unit: "nanoseconds" };
  return encodeProfile({
    sampleTypes: [{ type: "samples", unit: "count" }, cpu],
    stacks: stacks.map((frames) => ({ frames, values: [1, period] })),
    periodType: cpu,
    period,
    startedMs,
    durationMs,
  });
}

export function cpuFlameGraph({ stacks }: CpuSamples): string {
  return renderFlameGraph(`all, ${stacks.length} samples`, stacks.map((frames) => ({ frames, weight: 1 })));
}
