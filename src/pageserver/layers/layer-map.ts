/**
 * Which layer to read next: search over rectangles of key × LSN.
 *
 * Every layer is complete for its rectangle: a delta holds all changes of its keys at its LSNs, an image all live keys
 * as of its LSN. So a search downward from an LSN may take any delta that covers the LSN, or else the next lower one:
 * between two layers nothing happened.
 *
 * The key axis is cut at the borders of all layers into cells; each cell knows the layers over it, sorted. L0 deltas
 * lie over all keys, so they are kept once, apart. A search is one binary search for the cell and one in its lists.
 *
 * Pure: no I/O, and generic in what stands for a layer.
 */
import { invariant } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { compareKeys, type Key, KEY_MIN, type KeyRange } from "../../keyspace/key.ts";
import { isL0, layerLsnRange, type LayerName, layerNameToString } from "./layer-name.ts";

export interface MappedLayer {
  readonly name: LayerName;
}

export interface SearchResult<L> {
  readonly layer: L;
  /** Read LSNs from here (for an image: its LSN) to the end asked for; continue below with this as the end. */
  readonly lsnFloor: Lsn;
}

/** Deltas over one cell, by rising end of their LSN range. */
class DeltaColumn<L extends MappedLayer> {
  readonly layers: L[] = [];
  /** `minStart[i]`: lowest start among layers i and later. */
  #minStart: number[] | null = null;

  add(layer: L): void {
    const end = layerLsnRange(layer.name).end;
    this.layers.splice(this.#firstEndingFrom(end), 0, layer);
    this.#minStart = null;
  }

  remove(layer: L): void {
    const at = this.layers.indexOf(layer);
    invariant(at >= 0, "the layer is in its column");
    this.layers.splice(at, 1);
    this.#minStart = null;
  }

  #firstEndingFrom(end: Lsn): number {
    let low = 0;
    let high = this.layers.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (layerLsnRange(this.layers[middle].name).end < end) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The delta that holds the newest LSN below `end`, and of several the one that reaches deepest. */
  search(end: Lsn): L | null {
    const at = this.#firstEndingFrom(end);
    const minStart = (this.#minStart ??= this.#suffixMinima());
    let best: L | null = null;
    for (let i = at; i < this.layers.length && minStart[i] < end; i++) {
      const start = layerLsnRange(this.layers[i].name).start;
      if (start < end && (best === null || start < layerLsnRange(best.name).start)) best = this.layers[i];
    }
    if (best !== null) return best;
    for (let i = at - 1; i >= 0; i--) {
      const candidate = layerLsnRange(this.layers[i].name);
      if (best !== null && candidate.end < layerLsnRange(best.name).end) break;
      if (best === null || candidate.start < layerLsnRange(best.name).start) best = this.layers[i];
    }
    return best;
  }

  #suffixMinima(): number[] {
    const minima: number[] = new Array(this.layers.length);
    let lowest = Number.POSITIVE_INFINITY;
    for (let i = this.layers.length - 1; i >= 0; i--) {
      lowest = Math.min(lowest, layerLsnRange(this.layers[i].name).start);
      minima[i] = lowest;
    }
    return minima;
  }
}

class Cell<L extends MappedLayer> {
  readonly deltas = new DeltaColumn<L>();
  /** By rising LSN. */
  readonly images: L[] = [];

  copy(): Cell<L> {
    const other = new Cell<L>();
    for (const layer of this.deltas.layers) other.deltas.add(layer);
    other.images.push(...this.images);
    return other;
  }

  add(layer: L): void {
    if (layer.name.kind === "delta") this.deltas.add(layer);
    else this.images.splice(this.imagesBelow(layer.name.lsn), 0, layer);
  }

  remove(layer: L): void {
    if (layer.name.kind === "delta") return this.deltas.remove(layer);
    const at = this.images.indexOf(layer);
    invariant(at >= 0, "the layer is in its cell");
    this.images.splice(at, 1);
  }

  /** How many images lie below `lsn`. */
  imagesBelow(lsn: Lsn): number {
    let low = 0;
    let high = this.images.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (layerLsnRange(this.images[middle].name).start < lsn) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

export class LayerMap<L extends MappedLayer> {
  readonly #byName = new Map<string, L>();
  readonly #l0 = new DeltaColumn<L>();
  /** Cell i covers [bounds[i], bounds[i + 1]); the last one is open. */
  readonly #bounds: Key[] = [KEY_MIN];
  readonly #cells: Cell<L>[] = [new Cell<L>()];

  get size(): number {
    return this.#byName.size;
  }

  layers(): IterableIterator<L> {
    return this.#byName.values();
  }

  has(name: LayerName): boolean {
    return this.#byName.has(layerNameToString(name));
  }

  get(name: LayerName): L | undefined {
    return this.#byName.get(layerNameToString(name));
  }

  /** By rising end LSN. */
  get l0(): readonly L[] {
    return this.#l0.layers;
  }

  add(layer: L): void {
    const name = layerNameToString(layer.name);
    invariant(!this.#byName.has(name), `layer ${name} is in the map already`);
    this.#byName.set(name, layer);
    if (isL0(layer.name)) return this.#l0.add(layer);
    const { first, last } = this.#cut(layer.name.keyRange);
    for (let i = first; i < last; i++) this.#cells[i].add(layer);
  }

  remove(layer: L): void {
    invariant(this.#byName.delete(layerNameToString(layer.name)), `layer ${layerNameToString(layer.name)} is in the map`);
    if (isL0(layer.name)) return this.#l0.remove(layer);
    const { first, last } = this.#cut(layer.name.keyRange);
    for (let i = first; i < last; i++) this.#cells[i].remove(layer);
    this.#mergeEmpty(first, last);
  }

  /** Cells [first, last) are exactly the range. */
  #cut(range: KeyRange): { first: number; last: number } {
    const first = this.#cutAt(range.start);
    return { first, last: this.#cutAt(range.end) };
  }

  #cutAt(key: Key): number {
    const cell = this.#cellOf(key);
    if (compareKeys(this.#bounds[cell], key) === 0) return cell;
    this.#bounds.splice(cell + 1, 0, key);
    this.#cells.splice(cell + 1, 0, this.#cells[cell].copy());
    return cell + 1;
  }

  /** Drops borders between empty cells, so that the axis does not stay cut where layers have gone. */
  #mergeEmpty(first: number, last: number): void {
    const empty = (cell: Cell<L>) => cell.images.length === 0 && cell.deltas.layers.length === 0;
    for (let i = Math.min(last, this.#cells.length - 1); i >= Math.max(1, first); i--) {
      if (empty(this.#cells[i]) && empty(this.#cells[i - 1])) {
        this.#cells.splice(i, 1);
        this.#bounds.splice(i, 1);
      }
    }
  }

  #cellOf(key: Key): number {
    let low = 0;
    let high = this.#bounds.length;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (compareKeys(this.#bounds[middle], key) <= 0) low = middle;
      else high = middle;
    }
    return low;
  }

  /** The layer to read for `key` at LSNs below `endLsn`; null when there is none. */
  search(key: Key, endLsn: Lsn): SearchResult<L> | null {
    const cell = this.#cells[this.#cellOf(key)];
    const imagesBelow = cell.imagesBelow(endLsn);
    const image = imagesBelow > 0 ? cell.images[imagesBelow - 1] : null;
    const delta = newerDelta(cell.deltas.search(endLsn), this.#l0.search(endLsn), endLsn);
    if (delta === null) return image === null ? null : { layer: image, lsnFloor: layerLsnRange(image.name).start };
    const range = layerLsnRange(delta.name);
    if (image === null) return { layer: delta, lsnFloor: range.start };
    const imageLsn = layerLsnRange(image.name).start;
    // An image includes the changes at its own LSN.
    if (imageLsn + 1 >= Math.min(range.end, endLsn)) return { layer: image, lsnFloor: imageLsn };
    return { layer: delta, lsnFloor: Math.max(range.start, imageLsn + 1) };
  }

  /** Splits a range at the borders of cells: within each part all keys have the same layers (beside L0). */
  partsOf(range: KeyRange): KeyRange[] {
    const parts: KeyRange[] = [];
    let start = range.start;
    for (let i = this.#cellOf(range.start) + 1; i <= this.#bounds.length; i++) {
      const end = i < this.#bounds.length && compareKeys(this.#bounds[i], range.end) < 0 ? this.#bounds[i] : range.end;
      if (compareKeys(start, end) < 0) parts.push({ start, end });
      if (compareKeys(end, range.end) >= 0) break;
      start = end;
    }
    return parts;
  }

  /** LSN of the newest image over the cell of `key` below `endLsn`; null without one. */
  newestImageLsn(key: Key, endLsn: Lsn): Lsn | null {
    const cell = this.#cells[this.#cellOf(key)];
    const below = cell.imagesBelow(endLsn);
    return below === 0 ? null : layerLsnRange(cell.images[below - 1].name).start;
  }

  /** Deltas over the cell of `key` (L0 left out) that hold LSNs in (above, endLsn). */
  deltasAbove(key: Key, above: Lsn, endLsn: Lsn): L[] {
    const cell = this.#cells[this.#cellOf(key)];
    return cell.deltas.layers.filter((layer) => {
      const range = layerLsnRange(layer.name);
      return range.end > above + 1 && range.start < endLsn;
    });
  }

  /** Whether images at LSNs in [from, to) cover the whole range, each part by one at least. */
  coveredByImages(range: KeyRange, lsns: { from: Lsn; to: Lsn }): boolean {
    // Cell after cell without a list of them: a layer over all keys lies over tens of thousands.
    for (let i = this.#cellOf(range.start); i < this.#cells.length && compareKeys(this.#bounds[i], range.end) < 0; i++) {
      const cell = this.#cells[i];
      const below = cell.imagesBelow(lsns.to);
      if (below === 0 || layerLsnRange(cell.images[below - 1].name).start < lsns.from) return false;
    }
    return true;
  }
}

function newerDelta<L extends MappedLayer>(a: L | null, b: L | null, endLsn: Lsn): L | null {
  if (a === null || b === null) return a ?? b;
  const rangeA = layerLsnRange(a.name);
  const rangeB = layerLsnRange(b.name);
  const difference = Math.min(rangeA.end, endLsn) - Math.min(rangeB.end, endLsn);
  if (difference !== 0) return difference > 0 ? a : b;
  return rangeA.start <= rangeB.start ? a : b;
}
