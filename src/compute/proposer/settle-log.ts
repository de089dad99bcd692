/**
 * Settling the log before a base backup: where does it end, for good? Afterwards every majority of safekeepers agrees on
 * the returned LSN and knows it as committed, so that a pageserver can get there and the next proposer starts there.
 *
 * Source: the peer (neondatabase/neon) compute_tools/src/sync_sk.rs (the fast path), pgxn/neon/walproposer.c with
 * syncSafekeepers.
 */
import { Cancelled, StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { Logger } from "../../observability/log.ts";
import { type Configuration, EMPTY_CONFIGURATION } from "../../safekeeper/api/membership.ts";
import type { PgTls } from "../../wire/client-tls.ts";
import { Candidacy } from "./candidacy.ts";
import type { CoreEffect, ProposerIdentity } from "./core-types.ts";
import { type NetworkPlatform, type SafekeeperAddress, type TimelineStatus, connectSafekeeper, timelineStatus } from "./safekeeper-client.ts";

export interface SettleOptions {
  readonly identity: ProposerIdentity;
  readonly safekeepers: readonly SafekeeperAddress[];
  readonly platform: NetworkPlatform;
  readonly authToken?: string;
  readonly tls?: PgTls | undefined;
  readonly log: Logger;
  readonly signal?: AbortSignal;
  /** In all, retries included; 60 s unless given. */
  readonly timeoutMs?: number;
}

const TIMEOUT_MS = 60_000;
const STATUS_TIMEOUT_MS = 2_000;
/** How long a settled majority waits for the safekeepers that are connected but not there yet. */
const STRAGGLER_MS = 500;
const RETRY_MS = 300;
const LAST_WORD_MS = 10;

/**
 * Returns the LSN at which the log ends, 0 when no safekeeper has any WAL of the timeline.
 * @throws StrataError unavailable `settle-timeout` when no majority can be reached in time
 */
export async function settleLog(options: SettleOptions): Promise<Lsn> {
  const { clock } = options.platform;
  const deadline = clock.monotonicMs() + (options.timeoutMs ?? TIMEOUT_MS);
  const quick = await fastPath(options);
  if (quick !== null) {
    options.log.info("log is settled already", { lsn: lsnToString(quick) });
    return quick;
  }
  let configuration = EMPTY_CONFIGURATION;
  for (;;) {
    const leftMs = deadline - clock.monotonicMs();
    const outcome = await runElection(options, configuration, Math.max(1, leftMs));
    if (typeof outcome === "number") {
      options.log.info("log settled by election", { lsn: lsnToString(outcome) });
      return outcome;
    }
    if (outcome instanceof StrataError) throw outcome;
    configuration = outcome;
    await clock.sleep(RETRY_MS + options.platform.random.below(RETRY_MS), options.signal);
  }
}

/** All safekeepers, not only a majority, must say the same: flush = commit = one value. */
async function fastPath(options: SettleOptions): Promise<Lsn | null> {
  const answers = await Promise.all(options.safekeepers.map((address) => askStatus(options, address)));
  const [first] = answers;
  if (first === null || first === undefined) return null;
  const lsn = first.flushLsn;
  return lsn > 0 && answers.every((answer) => answer !== null && answer.flushLsn === lsn && answer.commitLsn === lsn) ? lsn : null;
}

async function askStatus(options: SettleOptions, address: SafekeeperAddress): Promise<TimelineStatus | null> {
  const { tenantId, timelineId } = options.identity;
  const { platform, authToken, tls, log } = options;
  try {
    const client = await connectSafekeeper(platform, address, { tenantId, timelineId, tls, timeoutMs: STATUS_TIMEOUT_MS, ...(authToken === undefined ? {} : { authToken }) });
    const timer = platform.clock.after(STATUS_TIMEOUT_MS, () => client.destroy());
    try {
      return await timelineStatus(client);
    } finally {
      timer.cancel();
      client.destroy();
    }
  } catch (error) {
    log.info("safekeeper did not tell its status", { safekeeper: `${address.host}:${address.port}`, error });
    return null;
  }
}

/** The settled LSN, or the configuration for another candidacy after a lost one, or the error of a timeout. */
async function runElection(options: SettleOptions, configuration: Configuration, timeoutMs: number): Promise<Lsn | StrataError | Configuration> {
  const { clock } = options.platform;
  const result = Promise.withResolvers<Lsn | StrataError | Configuration>();
  let stragglers = false;
  const onEffect = (effect: CoreEffect): void => {
    if (effect.kind === "settled") {
      if (effect.all) result.resolve(effect.lsn);
      else if (!stragglers) clock.after(STRAGGLER_MS, () => result.resolve(effect.lsn));
      stragglers = true;
    } else if (effect.kind === "superseded") {
      options.log.info("settling the log: candidacy lost, trying again", { error: effect.error });
      result.resolve(effect.configuration);
    }
  };
  const { identity, safekeepers, platform, authToken, tls, log } = options;
  const candidacy = new Candidacy({
    identity, safekeepers, platform, log, tls, configuration, mode: { kind: "sync" }, localWal: null, onEffect, ...(authToken === undefined ? {} : { authToken }),
  });
  const timer = clock.after(timeoutMs, () => result.resolve(timeoutError(options, candidacy.troubles())));
  const abort = (): void => result.reject(new Cancelled("settling the log was broken off"));
  if (options.signal?.aborted === true) abort();
  options.signal?.addEventListener("abort", abort, { once: true });
  candidacy.start();
  try {
    const outcome = await result.promise;
    // The last word on commit and truncation helps the next start to take the fast path: let it get out.
    candidacy.heartbeatNow();
    await clock.sleep(LAST_WORD_MS).catch(() => {});
    return outcome;
  } finally {
    options.signal?.removeEventListener("abort", abort);
    timer.cancel();
    await candidacy.close();
  }
}

function timeoutError(options: SettleOptions, troubles: string): StrataError {
  const within = `within ${options.timeoutMs ?? TIMEOUT_MS} ms`;
  return new StrataError("unavailable", "settle-timeout", `no majority of safekeepers agreed on the end of the log ${within}${troubles === "" ? "" : `: ${troubles}`}`);
}
