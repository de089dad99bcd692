/** Texts as values of one page's key, for tests of what becomes of a timeline's history. */
import { utf8, utf8ToString } from "../../../src/kit/bytes.ts";
import { relBlockKey } from "../../../src/keyspace/mapping.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";

export const TEXT_KEY = relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 }, 1);

/** In memory, and readable. */
export async function putText(timeline: Timeline, lsn: number, text: string): Promise<void> {
  await timeline.put([{ key: TEXT_KEY, lsn, value: { kind: "image", bytes: utf8(text) } }]);
  timeline.advance(lsn, lsn - 8);
}

/** In a layer of its own. */
export async function putTextLayer(timeline: Timeline, lsn: number, text: string): Promise<void> {
  await putText(timeline, lsn, text);
  await timeline.freezeAndFlush();
}

export async function textAt(timeline: Timeline, lsn: number): Promise<string> {
  return utf8ToString(await timeline.get(TEXT_KEY, lsn, { task: "test" }));
}
