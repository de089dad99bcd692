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
  /** Whether the server was told last that transactions are read-only. */
  #isReadOnly = false;
  #isApplying = false;
  #failed = false;
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
    this.#state = state;
    // What could not be applied is tried again with each word of the pageserver, about one a second.
    if ((state === "exceeded") !== this.#isReadOnly && !this.#isApplying) this.#applying = this.#apply();
    if (state === before) return;
    if (state === "exceeded") log.error("the timeline has reached its size quota: transactions are read-only unless they ask to write", { sizeBytes, limitBytes });
    else if (before === "exceeded") log.info("the timeline is below its size quota again: transactions may write", { sizeBytes, limitBytes });
    else if (state === "near") log.warn("the timeline comes near its size quota", { sizeBytes, limitBytes });
  }

  /** Resolves when the attempt under way has ended. */
  get applied(): Promise<void> {
    return this.#applying;
  }

  /** Until the server has been told what holds now. */
  async #apply(): Promise<void> {
    const { log, reload } = this.#options;
    this.#isApplying = true;
    try {
      while ((this.#state === "exceeded") !== this.#isReadOnly) {
        const readOnly = this.#state === "exceeded";
        await this.#write(readOnly);
        reload();
        this.#isReadOnly = readOnly;
      }
      if (this.#failed) log.info("the size quota is applied now", { state: this.#state });
      this.#failed = false;
    } catch (error) {
      // Once for a row of failures.
      if (!this.#failed) log.error("the size quota could not be applied, trying again", { error });
      this.#failed = true;
    } finally {
      this.#isApplying = false;
    }
  }

  /** The file is there from the start, and PostgreSQL's: it is rewritten in place. */
  async #write(readOnly: boolean): Promise<void> {
    const { files, dataDirectory } = this.#options;
    const file = await files.open(`${dataDirectory}/${QUOTA_FILE}`, "truncate");
    try {
      await file.write(utf8(readOnly ? READ_ONLY : ""), 0);
    } finally {
      await file.close();
    }
  }
}
