/** A stretch of WAL that is known for good: whoever shows bytes of it must show the same. */
import { type Lsn, lsnToString } from "../../../src/kit/lsn.ts";
import { Violation } from "../violation.ts";

export class KnownLog {
  readonly name: string;
  readonly startLsn: Lsn;
  #bytes = new Uint8Array(64 * 1024);
  #length = 0;

  constructor(name: string, startLsn: Lsn) {
    this.name = name;
    this.startLsn = startLsn;
  }

  get endLsn(): Lsn {
    return this.startLsn + this.#length;
  }

  bytes(from: Lsn, to: Lsn): Uint8Array {
    return this.#bytes.subarray(from - this.startLsn, to - this.startLsn);
  }

  /** First position at which `bytes`, at `lsn`, differ from what is known; null when they do not. */
  firstDifference(lsn: Lsn, bytes: Uint8Array): Lsn | null {
    const from = Math.max(lsn, this.startLsn);
    const to = Math.min(lsn + bytes.length, this.endLsn);
    if (from >= to) return null;
    const known = this.bytes(from, to);
    const shown = bytes.subarray(from - lsn, to - lsn);
    if (Buffer.compare(known, shown) === 0) return null;
    return from + known.findIndex((byte, at) => byte !== shown[at]);
  }

  /** Checks what is known and learns the rest. @throws Violation */
  merge(lsn: Lsn, bytes: Uint8Array, who: string): void {
    if (lsn > this.endLsn) throw new Violation(`${who} shows ${this.name} from ${lsnToString(lsn)}: nobody has shown it from ${lsnToString(this.endLsn)} to there`);
    const difference = this.firstDifference(lsn, bytes);
    if (difference !== null) throw new Violation(`${who} has other bytes of ${this.name} at ${lsnToString(difference)}`);
    const more = bytes.subarray(Math.max(0, this.endLsn - lsn));
    if (more.length === 0) return;
    if (this.#length + more.length > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(this.#length + more.length, 2 * this.#bytes.length));
      grown.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = grown;
    }
    this.#bytes.set(more, this.#length);
    this.#length += more.length;
  }
}
