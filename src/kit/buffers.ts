/**
 * Where the roles' byte buffers come from, and who asked for those alive: every `SAMPLE_BYTES` allocated here, the stack that asked is
 * kept until its buffer is collected, and stands for as many bytes. One a thread, like the heap itself.
 *
 * For buffers whose number or size grows with the load; a few bytes here and there need no accounting.
 */

export const SAMPLE_BYTES = 2 * 1024 * 1024;
/** Live samples kept: 32 GiB of buffers. Past it the rest is not attributed. */
const MAX_SAMPLES = 16_384;
const STACK_DEPTH = 32;

export interface BufferSample {
  /** As the runtime prints it; its first lines may be this module's. */
  readonly stack: string;
  /** What it stands for. */
  readonly sizeBytes: number;
  /** Buffers of this size that it stands for. */
  readonly count: number;
}

interface Sample {
  /** Its stack is made into text only when somebody asks: that costs more than taking it. */
  readonly trace: Error;
  readonly sizeBytes: number;
  readonly count: number;
}

const live = new Map<number, Sample>();
const registry = new FinalizationRegistry<number>((id) => void live.delete(id));
let untilSample = SAMPLE_BYTES;
let nextId = 1;
let allocated = 0;

/** Zeroed. */
export function allocateBytes(sizeBytes: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(sizeBytes);
  untilSample -= sizeBytes;
  if (untilSample <= 0) sample(bytes);
  return bytes;
}

/** Zeroed, in memory that other threads can be given. It has the type of other arrays, and is used as they are. */
export function allocateSharedBytes(sizeBytes: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(new SharedArrayBuffer(sizeBytes) as unknown as ArrayBuffer);
  untilSample -= sizeBytes;
  if (untilSample <= 0) sample(bytes);
  return bytes;
}

/** A copy that owns its bytes. */
export function copyOfBytes(source: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(source);
  untilSample -= bytes.length;
  if (untilSample <= 0) sample(bytes);
  return bytes;
}

function sample(bytes: Uint8Array): void {
  const standsFor = SAMPLE_BYTES - untilSample;
  allocated += standsFor;
  untilSample = SAMPLE_BYTES;
  if (live.size >= MAX_SAMPLES) return;
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = STACK_DEPTH;
  const trace = new Error("allocation");
  Error.stackTraceLimit = limit;
  const id = nextId++;
  live.set(id, { trace, sizeBytes: standsFor, count: Math.max(1, Math.round(standsFor / Math.max(1, bytes.length))) });
  registry.register(bytes, id);
}

/** The sampled buffers that are alive, or not yet known to be dead. */
export function liveBufferSamples(): BufferSample[] {
  return [...live.values()].map(({ trace, sizeBytes, count }) => ({ stack: trace.stack ?? "", sizeBytes, count }));
}

/** Bytes ever allocated here, to the last sample. */
export function allocatedBytes(): number {
  return allocated;
}
