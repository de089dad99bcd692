/** SHA-256 of a range of WAL: how two safekeepers are compared. */
import { createHash } from "node:crypto";
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { Timeline } from "../timeline/timeline.ts";

const CHUNK_BYTES = 1024 * 1024;

/** @throws StrataError fix-input `bad-range` unless timeline start <= fromLsn <= untilLsn <= end of the log */
export async function walDigest(timeline: Timeline, range: { readonly fromLsn: Lsn; readonly untilLsn: Lsn }): Promise<string> {
  const { fromLsn, untilLsn } = range;
  const { flushLsn } = timeline.acceptor;
  if (fromLsn > untilLsn || fromLsn < timeline.state.timelineStartLsn || untilLsn > flushLsn) {
    const have = `${lsnToString(timeline.state.timelineStartLsn)}–${lsnToString(flushLsn)}`;
    throw new StrataError("fix-input", "bad-range", `${lsnToString(fromLsn)}–${lsnToString(untilLsn)} is not within ${have}`);
  }
  return timeline.gate.run(async () => {
    const reader = timeline.reader(fromLsn);
    const hash = createHash("sha256");
    const chunk = new Uint8Array(CHUNK_BYTES);
    try {
      for (let at = fromLsn; at < untilLsn; ) {
        const length = await reader.read(at, chunk.subarray(0, Math.min(CHUNK_BYTES, untilLsn - at)));
        hash.update(chunk.subarray(0, length));
        at += length;
      }
    } finally {
      await reader.close();
    }
    return hash.digest("hex");
  });
}
