/**
 * Peer recovery: a safekeeper whose log is behind fetches what it lacks from the most advanced peer, when no compute
 * does it. It plays the proposer towards itself, in the donor's term: vote, elected, appends, through the same rules.
 *
 * A donor qualifies when its log is ahead and ends in its current term: then it follows the leader of that term, whose
 * log is the one to have. Uncommitted WAL is fetched as well; commit_lsn comes from the broker as always.
 *
 * Source: the peer safekeeper/src/recovery.rs.
 */
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString, parseLsn } from "../../kit/lsn.ts";
import type { SafekeeperTimelineInfo } from "../../broker/api/messages.ts";
import { HttpClient, type Transport } from "../../http/client.ts";
import type { Platform } from "../../platform/platform.ts";
import { PgClient } from "../../wire/client.ts";
import type { ClientCopyStream } from "../../wire/client-copy-stream.ts";
import { decodeSenderMessage } from "../../wire/replication-messages.ts";
import { SafekeeperClient } from "../api/client.ts";
import { MAX_APPEND_BYTES } from "../api/proposer-protocol.ts";
import { checkTermHistory, highestCommonPoint, type Term, type TermHistory, termHistoryToString } from "../api/term-history.ts";
import { parseAddress } from "../config.ts";
import { handleAppend, handleFlush } from "../consensus/append.ts";
import { handleElected, handleVoteRequest } from "../consensus/election.ts";
import type { PeerSecurity } from "./peer-security.ts";
import type { Timeline } from "./timeline.ts";

export interface RecoveryOptions {
  readonly platform: Pick<Platform, "clock" | "network" | "random">;
  readonly nodeId: number;
  /** Shown to the donor. */
  readonly token: string | undefined;
  readonly security: PeerSecurity;
  readonly signal: AbortSignal;
  /** In place of the network for HTTP. */
  readonly transport?: Transport | undefined;
}

export interface LogPosition {
  readonly term: Term;
  readonly lastLogTerm: Term;
  readonly flushLsn: Lsn;
}

const CONNECT_TIMEOUT_MS = 10_000;
const STATUS_TIMEOUT_MS = 10_000;
/** A donor says something every second; one that does not holds up the recovery of all timelines. */
const DONOR_SILENCE_MS = 15_000;

/** The peer to fetch from; null when none is ahead in the way that counts. */
export function chooseDonor(own: LogPosition, peers: readonly SafekeeperTimelineInfo[]): SafekeeperTimelineInfo | null {
  const ahead = peers.filter((peer) => isAhead(peer, own) && peer.term === peer.lastLogTerm && peer.term >= own.term);
  return ahead.reduce<SafekeeperTimelineInfo | null>((best, peer) => (best === null || isAhead(peer, best) ? peer : best), null);
}

/** Raft's comparison of logs: by last term, then by length. */
function isAhead(a: Omit<LogPosition, "term">, b: Omit<LogPosition, "term">): boolean {
  return a.lastLogTerm !== b.lastLogTerm ? a.lastLogTerm > b.lastLogTerm : a.flushLsn > b.flushLsn;
}

/** One attempt, when there is something to recover. Returns whether it fetched anything. @throws what went wrong */
export async function recoverFromPeer(timeline: Timeline, options: RecoveryOptions): Promise<boolean> {
  // A compute that streams brings everything itself, and would be disturbed.
  if (timeline.receivers.streaming > 0 || timeline.store.failure !== null) return false;
  const { state, acceptor } = timeline;
  const donor = chooseDonor({ term: state.term, lastLogTerm: acceptor.lastLogTerm, flushLsn: acceptor.flushLsn }, timeline.alivePeers().filter((peer) => peer.safekeeperId !== options.nodeId));
  if (donor === null) return false;
  timeline.log.info("recovering from a peer", { donor: donor.safekeeperId, term: donor.term, from: lsnToString(acceptor.flushLsn), to: lsnToString(donor.flushLsn) });
  const { unregister } = timeline.receivers.register(null);
  try {
    const leader = await donorLeader(timeline, donor, options);
    const startLsn = await becomeFollower(timeline, leader);
    await fetchWal(timeline, { donor, startLsn, options });
  } finally {
    unregister();
  }
  timeline.log.info("recovered from a peer", { donor: donor.safekeeperId, flushLsn: lsnToString(acceptor.flushLsn) });
  return true;
}

/** What the donor knows of the elected proposer that it follows. */
interface Leader {
  readonly term: Term;
  readonly termHistory: TermHistory;
  readonly safekeeperCount: number;
}

async function donorLeader(timeline: Timeline, donor: SafekeeperTimelineInfo, options: RecoveryOptions): Promise<Leader> {
  const http = new HttpClient({ baseUrl: baseUrl(donor, options.security), caPem: options.security.caPem, clock: options.platform.clock, timeoutMs: STATUS_TIMEOUT_MS, ...(options.token === undefined ? {} : { token: options.token }), ...(options.transport === undefined ? {} : { transport: options.transport }) });
  const status = await new SafekeeperClient(http).timelineStatus(timeline.id, { signal: options.signal });
  if (status.acceptor_state.term !== donor.term) throw new StrataError("retry", "term-changed", `the donor's term is ${status.acceptor_state.term} now, not ${donor.term}`);
  const termHistory = checkTermHistory(status.acceptor_state.term_history.map((entry) => ({ term: entry.term, lsn: parseLsn(entry.lsn) })));
  return { term: donor.term, termHistory, safekeeperCount: status.safekeeper_count };
}

function baseUrl(donor: SafekeeperTimelineInfo, { useHttps }: PeerSecurity): string {
  if (!useHttps) return `http://${donor.httpConnstr}`;
  if (donor.httpsConnstr === undefined) throw new StrataError("unavailable", "no-https-address", `safekeeper ${donor.safekeeperId} has told no HTTPS address, and --use-https-safekeeper-api asks for one`);
  return `https://${donor.httpsConnstr}`;
}

/** Makes our log a prefix of the donor's; returns where it ends then. */
async function becomeFollower(timeline: Timeline, { term, termHistory, safekeeperCount }: Leader): Promise<Lsn> {
  const { generation } = timeline.state.configuration;
  const vote = await timeline.run("recovery vote", (acceptor) => handleVoteRequest(acceptor, { kind: "vote-request", generation, term }));
  if (vote.term !== term) throw new StrataError("retry", "term-changed", `the term is ${vote.term} now, not ${term}`);
  const common = highestCommonPoint(termHistory, vote.termHistory, vote.flushLsn)?.lsn ?? termHistory.at(0)?.lsn;
  if (common === undefined) throw new StrataError("conflict", "term-history-mismatch", `nothing in common with the donor's history ${termHistoryToString(termHistory)}`);
  await timeline.run("recovery elected", (acceptor) => handleElected(acceptor, { kind: "elected", generation, term, startStreamingAt: common, termHistory }, safekeeperCount));
  return common;
}

interface Fetch {
  readonly donor: SafekeeperTimelineInfo;
  readonly startLsn: Lsn;
  readonly options: RecoveryOptions;
}

async function fetchWal(timeline: Timeline, fetch: Fetch): Promise<void> {
  const { donor, startLsn, options } = fetch;
  const { clock, network, random } = options.platform;
  const { tenantId, timelineId } = timeline.id;
  const client = await PgClient.connect(network, {
    address: parseAddress(donor.safekeeperConnstr),
    parameters: { user: "strata", replication: "true", application_name: `safekeeper_${options.nodeId}`, options: `-c timeline_id=${timelineId} tenant_id=${tenantId}` },
    ...(options.token === undefined ? {} : { password: options.token }),
    timeoutMs: CONNECT_TIMEOUT_MS, tls: options.security.tls, clock, random, signal: options.signal,
  });
  const drop = (): void => client.destroy();
  options.signal.addEventListener("abort", drop, { once: true });
  timeline.signal.addEventListener("abort", drop, { once: true });
  try {
    const copy = await client.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(startLsn)} (term='${donor.term}')`);
    const read = async (): Promise<Uint8Array | null> => {
      const timer = clock.after(DONOR_SILENCE_MS, drop);
      return await copy.read().finally(() => timer.cancel());
    };
    await takeWal(timeline, { read, copy }, { term: donor.term, startLsn, untilLsn: donor.flushLsn });
  } finally {
    options.signal.removeEventListener("abort", drop);
    timeline.signal.removeEventListener("abort", drop);
    client.destroy();
  }
}

interface DonorStream {
  readonly copy: ClientCopyStream;
  /** The stream's, with a limit in time. */
  readonly read: () => Promise<Uint8Array | null>;
}

/** Until what the donor had when it was chosen is durable here; a compute that came meanwhile has changed the term or wins by being there. */
async function takeWal(timeline: Timeline, { read, copy }: DonorStream, range: { readonly term: Term; readonly startLsn: Lsn; readonly untilLsn: Lsn }): Promise<void> {
  for (let at = range.startLsn; at < range.untilLsn && timeline.receivers.streaming === 0; ) {
    const bytes = await read();
    if (bytes === null) break;
    const message = decodeSenderMessage(bytes);
    if (message.kind === "keepalive") continue;
    if (message.startLsn !== at) throw new StrataError("corrupt", "wal-gap", `the donor sent WAL of ${lsnToString(message.startLsn)} instead of ${lsnToString(at)}`);
    for (let from = 0; from < message.data.length; from += MAX_APPEND_BYTES) await takePiece(timeline, { term: range.term, lsn: at + from, walData: message.data.subarray(from, from + MAX_APPEND_BYTES) });
    at += message.data.length;
    if (copy.pending === 0 || at >= range.untilLsn) await timeline.run("recovery flush", (acceptor) => handleFlush(acceptor, 0));
  }
}

async function takePiece(timeline: Timeline, piece: { readonly term: Term; readonly lsn: Lsn; readonly walData: Uint8Array }): Promise<void> {
  const { term, lsn, walData } = piece;
  const { generation } = timeline.state.configuration;
  const reply = await timeline.run("recovery append", (acceptor) =>
    handleAppend(acceptor, { kind: "append", generation, term, beginLsn: lsn, endLsn: lsn + walData.length, commitLsn: 0, truncateLsn: 0, walData }));
  if (reply !== null && reply.term > term) throw new StrataError("retry", "term-changed", `the term is ${reply.term} now, not ${term}`);
}
