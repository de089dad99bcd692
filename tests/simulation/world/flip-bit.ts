/**
 * A bit that turns over at rest. In a control file: the checksum must refuse it at the next start. In WAL below the persisted
 * commit_lsn: whoever decodes it must notice. WAL above is not touched: after a restart a flipped bit there cannot be told from a
 * write that a crash tore, and costs the node what it had acknowledged; Raft needs a majority to keep its promises.
 */
import { isStrataError } from "../../../src/kit/errors.ts";
import type { Lsn } from "../../../src/kit/lsn.ts";
import { WalRecord } from "../../../src/postgres/wal/record.ts";
import { WalStreamDecoder } from "../../../src/postgres/wal/stream-decoder.ts";
import type { Faults } from "./faults.ts";
import type { KnownLog } from "./known-log.ts";
import { SEGMENT_SIZE } from "./virtual-postgres.ts";
import type { SimSafekeeper } from "./sim-safekeeper.ts";
import { CONTROL_FILE_NAME } from "../../../src/safekeeper/control-file/control-file.ts";
import { PARTIAL_SUFFIX, segmentName } from "../../../src/safekeeper/wal-store/segments.ts";

export function flipBit(faults: Faults): string | null {
  const safekeeper = faults.safekeeper();
  if (safekeeper === null || safekeeper.timeline === null || !faults.maySpare(safekeeper)) return null;
  return faults.stage.random.chance(0.5) ? flipInControlFile(faults, safekeeper) : flipInWal(faults, safekeeper);
}

function flipInControlFile(faults: Faults, safekeeper: SimSafekeeper): string | null {
  const { timeline } = safekeeper;
  if (timeline === null) return null;
  safekeeper.kill();
  const { position, bit } = safekeeper.disk.flipBit(`${timeline.directory}/${CONTROL_FILE_NAME}`);
  safekeeper.damaged = true;
  faults.powerBack(safekeeper, 1000);
  return `${safekeeper.name} control file byte ${position} bit ${bit}`;
}

function flipInWal(faults: Faults, safekeeper: SimSafekeeper): string | null {
  const { timeline } = safekeeper;
  const { random, checker } = faults.stage;
  if (timeline === null || checker.committed === null) return null;
  const { state, directory } = timeline;
  const segmentSize = state.walSegmentSizeBytes;
  const lengthBytes = state.commitLsn - state.timelineStartLsn;
  if (lengthBytes <= 0) return null;
  const lsn = state.timelineStartLsn + random.below(lengthBytes);
  const bit = random.below(8);
  if (!matters(checker.committed, lsn, bit)) return null;
  const path = `${directory}/${segmentName(Math.floor(lsn / segmentSize), segmentSize)}`;
  for (const name of [path, path + PARTIAL_SUFFIX]) {
    if (safekeeper.disk.tree.find(name) === undefined) continue;
    safekeeper.disk.fileAt(name).flipBit(lsn % segmentSize, bit);
    safekeeper.damaged = true;
    return `${safekeeper.name} WAL at ${lsn} bit ${bit}`;
  }
  return null;
}

/** False for padding, which nobody reads and no checksum covers. */
function matters(log: KnownLog, lsn: Lsn, bit: number): boolean {
  const bytes = log.bytes(log.startLsn, log.endLsn).slice();
  bytes[lsn - log.startLsn] ^= 1 << bit;
  const decoder = new WalStreamDecoder(log.startLsn, 17, SEGMENT_SIZE);
  const record = new WalRecord();
  try {
    decoder.feed(bytes);
    while (decoder.next(record)) continue;
    return false;
  } catch (error) {
    return isStrataError(error) && error.kind === "corrupt";
  }
}
