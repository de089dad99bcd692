/** What a reader is sent: raw WAL, or records interpreted for a shard. */
import { allocateBytes } from "../../kit/buffers.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { WAL_PAGE_SIZE } from "../../postgres/wal/constants.ts";
import { encodeWalDataHeader } from "../../wire/replication-messages.ts";
import { MAX_APPEND_BYTES } from "../api/proposer-protocol.ts";
import type { WalReader } from "../wal-store/wal-reader.ts";

export interface SourceMessage {
  /** The message's bytes, in pieces. */
  readonly header: Uint8Array;
  readonly body: Uint8Array;
  /** Everything below it has been sent with this message. */
  readonly positionLsn: Lsn;
}

export interface WalSource {
  /** The next message about WAL below `endLsn`; null when there is none yet. `endLsn` is above the position of the last one. */
  next(endLsn: Lsn, timestamp: bigint): Promise<SourceMessage | null>;
  close(): Promise<void>;
}

/** As much as there is and fits; cut at a page, for a record must not be torn elsewhere unless it is the end. */
export class RawWalSource implements WalSource {
  readonly #reader: WalReader;
  #lsn: Lsn;

  constructor(reader: WalReader, startLsn: Lsn) {
    this.#reader = reader;
    this.#lsn = startLsn;
  }

  async next(endLsn: Lsn, timestamp: bigint): Promise<SourceMessage> {
    const startLsn = this.#lsn;
    const full = startLsn + MAX_APPEND_BYTES;
    const chunkEnd = full >= endLsn ? endLsn : full - (full % WAL_PAGE_SIZE);
    const buffer = allocateBytes(chunkEnd - startLsn);
    const length = await this.#reader.read(startLsn, buffer);
    this.#lsn = startLsn + length;
    return { header: encodeWalDataHeader({ startLsn, endLsn, timestamp }), body: buffer.subarray(0, length), positionLsn: this.#lsn };
  }

  close(): Promise<void> {
    return this.#reader.close();
  }
}
