/** Long lists as JSON, put together in slices: a tenant may have ten thousand timelines, and a timeline as many layers. */
import type { Clock } from "../platform/clock.ts";
import { Pacer } from "../platform/pacer.ts";

const ITEMS_PER_STEP = 32;

/** The JSON of an array of what `present` makes of each item. What is gone when its turn comes is for `present` to see. */
export async function listJson<T>(items: Iterable<T>, present: (item: T) => unknown, options: { readonly clock: Clock; readonly signal: AbortSignal }): Promise<string> {
  const pacer = new Pacer(options.clock);
  const parts: string[] = [];
  for (const item of items) {
    parts.push(JSON.stringify(present(item)));
    const pause = parts.length % ITEMS_PER_STEP === 0 ? pacer.pause() : undefined;
    if (pause === undefined) continue;
    await pause;
    options.signal.throwIfAborted();
  }
  return `[${parts.join()}]`;
}

/** @param text JSON */
export function jsonTextReply(status: number, text: string): Response {
  return new Response(text, { status, headers: { "content-type": "application/json;charset=utf-8" } });
}
