/**
 * Changes the donor of a replica that gets nothing although another safekeeper has more: libpq itself only leaves a donor
 * that breaks off or falls silent, not one that is cut off from its quorum and goes on saying that nothing happens.
 */
import { Cancelled } from "../../kit/errors.ts";
import { type Lsn, lsnToString, parseLsn } from "../../kit/lsn.ts";
import { PgClient } from "../../wire/client.ts";
import type { LocalServer } from "../proposer/local-wal-stream.ts";
import type { SafekeeperAddress } from "../proposer/safekeeper-client.ts";
import { addressText, askDonors, type DonorOptions } from "./donors.ts";

export interface DonorWatchOptions extends DonorOptions {
  /** The standby itself. */
  readonly server: LocalServer;
  /** Makes the standby connect anew, to the first of these that answers. */
  readonly follow: (addresses: readonly SafekeeperAddress[]) => Promise<void>;
}

const INTERVAL_MS = 2_000;
/** Nothing received for so long while others have more: longer than a reconnect takes. */
const STALL_MS = 6_000;
const QUERY_TIMEOUT_MS = 5_000;

export class DonorWatch {
  readonly #options: DonorWatchOptions;
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #receivedLsn: Lsn = 0;
  #progressMs = 0;

  constructor(options: DonorWatchOptions) {
    this.#options = options;
  }

  start(): void {
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock } = this.#options.platform;
    const { signal } = this.#stop;
    this.#progressMs = clock.monotonicMs();
    while (!signal.aborted) {
      await clock.sleep(INTERVAL_MS, signal).catch(() => undefined);
      if (signal.aborted) return;
      await this.#look().catch((error: unknown) => {
        if (!(error instanceof Cancelled)) this.#options.log.debug("the replica's donor could not be looked at", { error });
      });
    }
  }

  async #look(): Promise<void> {
    const { log, platform: { clock } } = this.#options;
    const receivedLsn = await this.#received();
    if (receivedLsn > this.#receivedLsn) {
      this.#receivedLsn = receivedLsn;
      this.#progressMs = clock.monotonicMs();
    }
    if (clock.monotonicMs() - this.#progressMs < STALL_MS) return;
    const donors = await askDonors({ ...this.#options, signal: this.#stop.signal });
    const best = donors.at(0);
    if (best === undefined || best.commitLsn <= receivedLsn) return;
    log.info("the replica's donor is behind: following another", { receivedLsn: lsnToString(receivedLsn), donor: addressText(best.address), commitLsn: lsnToString(best.commitLsn) });
    this.#progressMs = clock.monotonicMs();
    await this.#options.follow(donors.map(({ address }) => address));
  }

  async #received(): Promise<Lsn> {
    const { platform: { network, clock, random }, server } = this.#options;
    const client = await PgClient.connect(network, {
      address: { unixPath: server.socketPath }, parameters: { user: server.user, database: "postgres", application_name: "strata_donor_watch" }, clock, random,
      timeoutMs: QUERY_TIMEOUT_MS, signal: this.#stop.signal,
    });
    const timer = clock.after(QUERY_TIMEOUT_MS, () => client.destroy());
    try {
      const { rows } = await client.query("SELECT pg_catalog.pg_last_wal_receive_lsn()");
      const text = rows.at(0)?.at(0) ?? null;
      return text === null ? 0 : parseLsn(text);
    } finally {
      timer.cancel();
      client.destroy();
    }
  }
}
