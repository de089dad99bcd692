/** Reading image layers: the index maps a key to the offset of its image, stored bare (no value header). */
import { dataViewOf } from "../../kit/bytes.ts";
import { decodeKey, type Key, type KeyRange, keyToBytes } from "../../keyspace/key.ts";
import { visitBtree } from "./disk-btree.ts";
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
