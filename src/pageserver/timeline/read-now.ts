/**
 * One key's read without waiting: the way of most page reads, whose layers are local and whose blocks are in memory. It
 * gives up as soon as something would have to be waited for, or goes wrong: then the vectored read starts anew, and it alone
 * downloads, repairs and tells errors.
 */
import { isInheritedKey, isSparseKey } from "../../keyspace/mapping.ts";
import { readDeltaNow } from "../layers/delta-layer.ts";
import { readImageNow } from "../layers/image-layer.ts";
import { InMemoryLayer } from "../layers/in-memory-layer.ts";
import type { Layer } from "../layers/layer.ts";
import { type KeyRead, nextLayer, type Step } from "./key-read.ts";

/** Longer histories are read and applied with pauses. */
const NOW_MAX_VALUES = 100;
const NOW_MAX_DEPTH = 200;

/** True when `read` is done, and not failed. */
export function readNow(read: KeyRead): boolean {
  try {
    while (!read.done) {
      const step = nextLayer(read) ?? ancestorStep(read);
      if (step === null) break;
      if (read.values.length > NOW_MAX_VALUES || read.depth >= NOW_MAX_DEPTH || !visitNow(read, step)) return false;
    }
    return read.done;
  } catch {
    // Whatever it is, the vectored read meets it again.
    return false;
  }
}

function ancestorStep(read: KeyRead): Step | null {
  while (!read.done) {
    const below = isInheritedKey(read.key) ? read.source.ancestorSourceNow() : null;
    if (below === null) return null;
    read.source = below.source;
    read.end = Math.min(read.end, below.lsn + 1);
    const step = nextLayer(read);
    if (step !== null) return step;
  }
  return null;
}

function visitNow(read: KeyRead, { layer, floor }: Step): boolean {
  read.visit(layer);
  if (layer instanceof InMemoryLayer) {
    if (!layer.readNow({ key: read.key, lsnFloor: floor, lsnEnd: read.end }, read.values)) return false;
  } else if (!visitFileNow(read, layer, floor)) return false;
  if (read.values.length > 0 && read.values[read.values.length - 1].willInit) read.done = true;
  read.end = floor;
  return true;
}

function visitFileNow(read: KeyRead, layer: Layer, floor: number): boolean {
  const file = layer.fileNow();
  if (file === null) return false;
  if (layer.name.kind === "delta") return readDeltaNow(file, { keyBytes: read.keyBytes, lsnFloor: floor, lsnEnd: read.end }, read.values);
  const image = readImageNow(file, read.keyBytes);
  if (image === null) return false;
  if (image !== undefined) read.takeImage(image, layer.name.lsn);
  // What a sparse key lacks in an image was removed before: the vectored read says so.
  else if (isSparseKey(read.key)) return false;
  return true;
}
