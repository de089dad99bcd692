/** Reading image layers: the index maps a key to the offset of its image, stored bare (no value header). */
import { dataViewOf } from "../../kit/bytes.ts";
import { decodeKey, type Key, KEY_SIZE, type KeyRange, keyToBytes } from "../../keyspace/key.ts";
import { type BtreeNode, visitBtree, visitRangeNow } from "./disk-btree.ts";
import type { LayerFile } from "./layer-file.ts";

/** Up to a page; compressed images are shorter, and what is read too much belongs to the neighbours. */
const GUESS_BYTES = 4096;

/** The images of `keys` (rising), undefined where there is none; views of shared memory, perhaps. */
export async function readImages(file: LayerFile, keys: readonly Key[]): Promise<(Uint8Array | undefined)[]> {
  const offsets: number[] = [];
  const slots: number[] = [];
  for (let i = 0; i < keys.length; i++) {
    const wanted = keyToBytes(keys[i]);
    await visitBtree({ source: (block) => file.indexBlock(block), rootBlock: file.summary.indexRootBlock, from: wanted }, (key, value) => {
      if (Buffer.compare(key, wanted) === 0) {
        offsets.push(value);
        slots.push(i);
      }
      return false;
    });
  }
  const images = await file.readBlobs(offsets, GUESS_BYTES);
  const result: (Uint8Array | undefined)[] = new Array(keys.length).fill(undefined);
  for (let i = 0; i < slots.length; i++) result[slots[i]] = images[i];
  return result;
}

/** Of the search under way: it does not wait, so there is one at a time. */
let foundOffset = -1;
/** The key right above the one looked for. */
const rangeEnd = new Uint8Array(KEY_SIZE);

function noteOffset(node: BtreeNode, index: number): void {
  foundOffset = node.value(index);
}

/**
 * The image of one key, perhaps a view of shared memory: undefined when the layer has none, null when that cannot be told
 * without waiting. @throws StrataError corrupt
 */
export function readImageNow(file: LayerFile, keyBytes: Uint8Array): Uint8Array | undefined | null {
  foundOffset = -1;
  rangeEnd.set(keyBytes);
  // The carry never leaves the array: nothing is stored at KEY_MAX.
  for (let i = KEY_SIZE - 1; i >= 0; i--) {
    rangeEnd[i]++;
    if (rangeEnd[i] !== 0) break;
  }
  if (!visitRangeNow(file.summary.indexRootBlock, { source: file, range: { from: keyBytes, end: rangeEnd }, visit: noteOffset })) return null;
  return foundOffset < 0 ? undefined : file.blobNow(foundOffset);
}

/** The keys a layer has in `range`, in order, at most `maxKeys`. */
export async function readImageKeys(file: LayerFile, range: KeyRange, maxKeys: number): Promise<Key[]> {
  const keys: Key[] = [];
  const end = keyToBytes(range.end);
  await visitBtree({ source: (block) => file.indexBlock(block), rootBlock: file.summary.indexRootBlock, from: keyToBytes(range.start) }, (key) => {
    if (Buffer.compare(key, end) >= 0) return false;
    keys.push(decodeKey(dataViewOf(key), 0));
    return keys.length < maxKeys;
  });
  return keys;
}
