/** The part of a modification that keeps the state files of prepared transactions. */
import { TWO_PHASE_DIRECTORY_KEY, twoPhaseFileKey } from "../../keyspace/mapping.ts";
import type { ModificationWriter } from "./modification-writer.ts";
import { decodeTwoPhaseDirectory, encodeTwoPhaseDirectory } from "./directory-codec.ts";

export class TwoPhaseChanges {
  readonly #to: ModificationWriter;
  #xids: Set<bigint> | null = null;

  constructor(to: ModificationWriter) {
    this.#to = to;
  }

  /** The directory of an empty timeline. */
  initialize(): void {
    this.#xids = new Set();
    this.#putDirectory(this.#xids);
  }

  async #load(): Promise<Set<bigint>> {
    this.#xids ??= decodeTwoPhaseDirectory(await this.#to.get(TWO_PHASE_DIRECTORY_KEY), this.#to.version);
    return this.#xids;
  }

  #putDirectory(xids: ReadonlySet<bigint>): void {
    this.#to.putImage(TWO_PHASE_DIRECTORY_KEY, encodeTwoPhaseDirectory(xids, this.#to.version));
    this.#to.datadir.noteDirectory("two-phase", xids.size);
  }

  async xids(): Promise<readonly bigint[]> {
    return [...(await this.#load())];
  }

  /** @param xid full on 17 and later */
  async put(xid: bigint, state: Uint8Array): Promise<void> {
    const xids = await this.#load();
    xids.add(xid);
    this.#putDirectory(xids);
    this.#to.putImage(twoPhaseFileKey(xid), state);
  }

  async drop(xid: bigint): Promise<void> {
    const xids = await this.#load();
    if (xids.delete(xid)) this.#putDirectory(xids);
  }
}
