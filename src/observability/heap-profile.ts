/**
 * What the heap holds, as the pprof tool reads it and as a flame graph: buffers by the stacks that asked for them (kit/buffers.ts
 * samples them), the JavaScript objects by type, and what lies outside of both. The bytes add up to the heap's size.
 */
import { type BufferSample, SAMPLE_BYTES } from "../kit/buffers.ts";
import { renderFlameGraph } from "./flame-graph.ts";
import { encodeProfile, type ProfileFrame, type WeightedStack } from "./pprof.ts";

export interface HeapTotals {
  /** Of the JavaScript objects themselves. */
  readonly objectBytes: number;
  /** Held by objects beside the heap: above all the buffers' bytes. */
  readonly externalBytes: number;
  readonly countsByType: Readonly<Record<string, number>>;
}

export interface HeapState {
  readonly totals: HeapTotals;
  readonly buffers: readonly BufferSample[];
  readonly takenMs: number;
}

/** Types of fewer objects than that are one line together. */
const MIN_TYPE_COUNT = 20;
/** Innermost frames of ours that are in every stack. */
const ALLOCATOR_FILE = /\/kit\/buffers\.ts$/;

export function heapPprof(state: HeapState): Uint8Array {
  const space = { type: "inuse_space", unit: "bytes" };
  return encodeProfile({
    sampleTypes: [{ type: "inuse_objects", unit: "count" }, space],
    stacks: heapStacks(state),
    periodType: space,
    period: SAMPLE_BYTES,
    startedMs: state.takenMs,
    durationMs: 0,
  });
}

export function heapFlameGraph(state: HeapState): string {
  const stacks = heapStacks(state).map(({ frames, values }) => ({ frames, weight: values[1] }));
  const total = stacks.reduce((sum, { weight }) => sum + weight, 0);
  return renderFlameGraph(`heap, ${mebibytes(total)}`, stacks, mebibytes);
}

/** Values: objects, bytes. Objects of JavaScript are counted by type; their bytes are known in sum only. */
function heapStacks({ totals, buffers }: HeapState): WeightedStack[] {
  const stacks: WeightedStack[] = [];
  let attributed = 0;
  for (const { stack, sizeBytes, count } of buffers) {
    attributed += sizeBytes;
    stacks.push({ frames: [...parseStack(stack), BUFFERS], values: [count, sizeBytes] });
  }
  stacks.push({ frames: [named("not sampled"), BUFFERS], values: [0, Math.max(0, totals.externalBytes - attributed)] });
  stacks.push({ frames: [OBJECTS], values: [0, totals.objectBytes] });
  let rest = 0;
  for (const [type, count] of Object.entries(totals.countsByType)) {
    if (count < MIN_TYPE_COUNT) rest += count;
    else stacks.push({ frames: [named(type), OBJECTS], values: [count, 0] });
  }
  stacks.push({ frames: [named("other types"), OBJECTS], values: [rest, 0] });
  return stacks;
}

const named = (name: string): ProfileFrame => ({ name, file: "", line: 0 });
const BUFFERS = named("(buffers and other memory beside the heap)");
const OBJECTS = named("(objects)");

/** `    at name (file:line:column)` or `    at file:line:column`, the innermost first; the allocator's own frames are left out. */
export function parseStack(stack: string): ProfileFrame[] {
  const frames: ProfileFrame[] = [];
  for (const line of stack.split("\n")) {
    const match = /^\s*at (?:(.*?) \()?(.*?)(?::(\d+))?(?::\d+)?\)?$/.exec(line);
    if (match === null) continue;
    const [, name, file, number] = match;
    if (frames.length === 0 && ALLOCATOR_FILE.test(file)) continue;
    frames.push({ name: name === undefined || name === "" ? "(anonymous)" : name.replace(/^async /, ""), file, line: Number(number ?? 0) });
  }
  return frames;
}

function mebibytes(sizeBytes: number): string {
  return `${(sizeBytes / 1024 / 1024).toFixed(1)} MiB`;
}
