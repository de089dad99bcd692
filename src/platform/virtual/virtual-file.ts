/**
 * One file of the virtual disk: what programs see, what the platter holds, and the changes between the two in the
 * order they were made. A crash keeps, of each 512-byte sector on its own, some prefix of the changes that touch it, and of the
 * file's size the value after some prefix of the changes: every state a disk that orders nothing could be left in.
 *
 * Invariant: applying all pending changes to `durable` gives `content`.
 */
import type { SeededRandom } from "./seeded-random.ts";

export const SECTOR_BYTES = 512;

interface Change {
  /** A write of `bytes` at `position`, or (null) a change of size alone. */
  readonly bytes: Uint8Array | null;
  readonly position: number;
  /** Size of the file after the change. */
  readonly sizeBytes: number;
}

/** A byte array that grows by doubling; bytes beyond `length` are zeros. */
class Extent {
  #bytes = new Uint8Array(0);
  length = 0;

  view(): Uint8Array {
    return this.#bytes.subarray(0, this.length);
  }

  resize(length: number): void {
    if (length > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(length, this.#bytes.length * 2, 4096));
      grown.set(this.view());
      this.#bytes = grown;
    } else if (length < this.length) {
      this.#bytes.fill(0, length, this.length);
    }
    this.length = length;
  }

  write(bytes: Uint8Array, position: number): void {
    if (position + bytes.length > this.length) this.resize(position + bytes.length);
    this.#bytes.set(bytes, position);
  }
}

export class VirtualFile {
  readonly isDirectory = false;
  readonly #content = new Extent();
  readonly #durable = new Extent();
  #pending: Change[] = [];
  modifiedMs = 0;

  get sizeBytes(): number {
    return this.#content.length;
  }

  /** What programs see; valid until the next change. */
  get content(): Uint8Array {
    return this.#content.view();
  }

  get pendingChanges(): number {
    return this.#pending.length;
  }

  write(bytes: Uint8Array, position: number): void {
    this.#content.write(bytes, position);
    // A copy: the caller may change its buffer afterwards.
    this.#pending.push({ bytes: bytes.slice(), position, sizeBytes: this.#content.length });
  }

  truncate(sizeBytes: number): void {
    if (sizeBytes === this.#content.length) return;
    this.#content.resize(sizeBytes);
    this.#pending.push({ bytes: null, position: 0, sizeBytes });
  }

  sync(): void {
    for (const change of this.#pending) applyTo(this.#durable, change);
    this.#pending = [];
  }

  /**
   * A sync that failed: as on Linux, the pages are marked clean whether they reached the disk or not, and a later sync that succeeds
   * says nothing about them.
   */
  failSync(random: SeededRandom): void {
    replace(this.#durable, this.#survivor(random));
    this.#pending = [];
  }

  /** Power is cut: what programs see becomes what the disk kept. */
  crash(random: SeededRandom): void {
    if (this.#pending.length > 0) {
      replace(this.#durable, this.#survivor(random));
      this.#pending = [];
    }
    replace(this.#content, this.#durable.view().slice());
  }

  /** Changes one bit at rest, behind everybody's back. */
  flipBit(position: number, bit: number): void {
    for (const extent of [this.#content, this.#durable]) {
      if (position < extent.length) extent.view()[position] ^= 1 << bit;
    }
  }

  #survivor(random: SeededRandom): Uint8Array {
    const { sectors, longest } = this.#touchedSectors();
    const keptChanges = random.below(this.#pending.length + 1);
    const sizeBytes = keptChanges === 0 ? this.#durable.length : this.#pending[keptChanges - 1].sizeBytes;
    const image = new Uint8Array(Math.max(longest, sizeBytes, this.#durable.length));
    image.set(this.#durable.view());
    for (const [sector, changes] of sectors) {
      const kept = random.below(changes.length + 1);
      for (let i = 0; i < kept; i++) applyToSector(image, this.#pending[changes[i]], sector);
    }
    return image.slice(0, sizeBytes);
  }

  /** For each sector that pending changes touch, those changes' indexes in order. */
  #touchedSectors(): { sectors: Map<number, number[]>; longest: number } {
    const sectors = new Map<number, number[]>();
    let previousSize = this.#durable.length;
    let longest = previousSize;
    this.#pending.forEach((change, index) => {
      const from = change.bytes === null ? change.sizeBytes : change.position;
      const to = change.bytes === null ? previousSize : change.position + change.bytes.length;
      for (let sector = Math.floor(from / SECTOR_BYTES); sector * SECTOR_BYTES < to; sector++) {
        const touching = sectors.get(sector);
        if (touching === undefined) sectors.set(sector, [index]);
        else touching.push(index);
      }
      previousSize = change.sizeBytes;
      longest = Math.max(longest, previousSize);
    });
    return { sectors, longest };
  }
}

function applyTo(extent: Extent, change: Change): void {
  if (change.bytes === null) extent.resize(change.sizeBytes);
  else extent.write(change.bytes, change.position);
}

function applyToSector(image: Uint8Array, change: Change, sector: number): void {
  const start = sector * SECTOR_BYTES;
  const end = start + SECTOR_BYTES;
  if (change.bytes === null) {
    image.fill(0, Math.max(start, change.sizeBytes), end);
    return;
  }
  const from = Math.max(start, change.position);
  const to = Math.min(end, change.position + change.bytes.length);
  image.set(change.bytes.subarray(from - change.position, to - change.position), from);
}

function replace(extent: Extent, bytes: Uint8Array): void {
  extent.resize(0);
  extent.write(bytes, 0);
  extent.resize(bytes.length);
}
