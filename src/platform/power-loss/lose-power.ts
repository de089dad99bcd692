/**
 * What a loss of power leaves of a directory: its shadow, plus some of what was not synced. The processes that use it have been
 * killed. As on the virtual disk each 512-byte sector is kept on its own; here it has the content of the last sync or the
 * newest, for what was in between is not known.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { InvariantError } from "../../kit/errors.ts";
import type { Random } from "../random.ts";
import type { Key, Names } from "./durable-tree.ts";
import { shadowOf } from "./power-loss-files.ts";
import { isDirectoryKey, keyOf, Shadow, walk } from "./shadow.ts";

const SECTOR_BYTES = 512;

export interface PowerLoss {
  readonly lostNameChanges: number;
  readonly lostSectors: number;
  /** Sectors of unsynced writes that were kept. */
  readonly keptSectors: number;
}

/**
 * Puts in `root`'s place what survived, all of it durable from now on. A missing root stays missing.
 * @throws InvariantError when no process kept a shadow of it since the last time: nothing would be lost, and nothing shown
 */
export function losePower(options: { readonly root: string; readonly shadowDirectory: string; readonly random: Random }): PowerLoss {
  const { root, shadowDirectory, random } = options;
  const directory = shadowOf(shadowDirectory, root);
  const rootKey = keyOf(root);
  if (rootKey === null) {
    fs.rmSync(directory, { recursive: true, force: true });
    return { lostNameChanges: 0, lostSectors: 0, keptSectors: 0 };
  }
  if (!fs.existsSync(directory)) throw new InvariantError(`there is no shadow of ${root}`);
  const shadow = new Shadow(root, directory);
  const { names, lostChanges } = shadow.tree.survivor(random);
  const restored = `${root}.restored`;
  fs.rmSync(restored, { recursive: true, force: true });
  const builder = new Builder({ names, shadow, paths: walk(root).paths, random });
  builder.build(restored, rootKey, 0);
  fs.chmodSync(restored, fs.statSync(root).mode);
  shadow.close();
  fs.rmSync(root, { recursive: true, force: true });
  fs.renameSync(restored, root);
  fs.rmSync(directory, { recursive: true, force: true });
  return { lostNameChanges: lostChanges, lostSectors: builder.lostSectors, keptSectors: builder.keptSectors };
}

const DEPTH_MAX = 64;

class Builder {
  readonly #from: { readonly names: Names; readonly shadow: Shadow; readonly paths: ReadonlyMap<Key, string>; readonly random: Random };
  lostSectors = 0;
  keptSectors = 0;

  constructor(from: { names: Names; shadow: Shadow; paths: ReadonlyMap<Key, string>; random: Random }) {
    this.#from = from;
  }

  build(to: string, directory: Key, depth: number): void {
    fs.mkdirSync(to);
    const entries = this.#from.names.get(directory) ?? new Map<string, Key>();
    // Sorted: the order in which files draw their fate must not depend on how they came to be there.
    for (const [name, key] of [...entries].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const path = join(to, name);
      if (!isDirectoryKey(key)) fs.writeFileSync(path, this.#content(key));
      else if (depth < DEPTH_MAX) this.build(path, key, depth + 1);
    }
  }

  #content(key: Key): Uint8Array {
    const { shadow, paths, random } = this.#from;
    const durable = shadow.durableContent(key);
    const livePath = paths.get(key);
    // Gone for programs, and yet not durably: what it held unsynced at its removal is not known any more.
    if (livePath === undefined) return durable;
    const live = new Uint8Array(fs.readFileSync(livePath));
    const keepPercent = random.below(101);
    const sizeBytes = random.below(100) < keepPercent ? live.length : durable.length;
    const content = new Uint8Array(Math.max(live.length, durable.length));
    content.set(durable);
    for (let at = 0; at < content.length; at += SECTOR_BYTES) {
      const newest = sectorOf(live, at);
      if (Buffer.compare(newest, sectorOf(durable, at)) === 0) continue;
      if (random.below(100) < keepPercent) {
        content.fill(0, at, at + SECTOR_BYTES);
        content.set(newest.subarray(0, Math.min(SECTOR_BYTES, content.length - at)), at);
        this.keptSectors++;
      } else this.lostSectors++;
    }
    return content.subarray(0, sizeBytes);
  }
}

/** Beyond the end of a file there are zeros. */
function sectorOf(content: Uint8Array, at: number): Uint8Array {
  const sector = new Uint8Array(SECTOR_BYTES);
  sector.set(content.subarray(at, at + SECTOR_BYTES));
  return sector;
}
