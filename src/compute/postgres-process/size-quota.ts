/**
 * The timeline's size quota, for a server that knows nothing of it: while the pageserver's word is that the timeline has reached
 * it, transactions are read-only unless they say otherwise.
 *
 * That leaves a way out: `begin read write` (or `set default_transaction_read_only = off`) and delete, drop or truncate what is not needed.
 * So it stops whoever writes unawares, and nobody who means it: sessions, roles and databases with a setting of their own, ALTER
 * SYSTEM, and the transaction that is running when the limit is reached go on. Refused: ending sessions, which loses work that
 * might free space.
 */
import { utf8 } from "../../kit/bytes.ts";
import type { Logger } from "../../observability/log.ts";
import type { FileSystem } from "../../platform/files.ts";

/** In the data directory, read last by postgresql.conf. */
export const QUOTA_FILE = "strata_quota.conf";
const READ_ONLY = "default_transaction_read_only = on\n";
/** From this part of the quota on it is said that the end is near. */
const NEAR = 0.9;

export type QuotaState = "ok" | "near" | "exceeded";

export interface SizeQuotaOptions {
  readonly files: FileSystem;
  readonly dataDirectory: string;
  readonly limitBytes: number;
  readonly log: Logger;
  /** Makes the server read its configuration again. */
  readonly reload: () => void;
}

export class SizeQuota {
  readonly #options: SizeQuotaOptions;
  #state: QuotaState = "ok";
  #applying: Promise<void> = Promise.resolve();

  constructor(options: SizeQuotaOptions) {
    this.#options = options;
  }

  get state(): QuotaState {
    return this.#state;
  }

  get limitBytes(): number {
    return this.#options.limitBytes;
  }

  /** The timeline has this size now. */
  sized(sizeBytes: number): void {
    const { limitBytes, log } = this.#options;
    const state = sizeBytes >= limitBytes ? "exceeded" : sizeBytes >= NEAR * limitBytes ? "near" : "ok";
    const before = this.#state;
    if (state === before) return;
    this.#state = state;
    if (state === "exceeded") log.error("the timeline has reached its size quota: transactions are read-only unless they ask to write", { sizeBytes, limitBytes });
    else if (before === "exceeded") log.info("the timeline is below its size quota again: transactions may write", { sizeBytes, limitBytes });
    else if (state === "near") log.warn("the timeline comes near its size quota", { sizeBytes, limitBytes });
    if (state === "exceeded" || before === "exceeded") this.#applying = this.#applying.then(() => this.#apply());
  }

  /** Resolves when the server has been told. */
  get applied(): Promise<void> {
    return this.#applying;
  }

  async #apply(): Promise<void> {
    const { files, dataDirectory, log, reload } = this.#options;
    try {
      // The file is there from the start, and PostgreSQL's: it is rewritten in place.
      const file = await files.open(`${dataDirectory}/${QUOTA_FILE}`, "truncate");
      await file.write(utf8(this.#state === "exceeded" ? READ_ONLY : ""), 0);
      await file.close();
      reload();
    } catch (error) {
      log.error("the size quota could not be applied", { error });
    }
  }
}
