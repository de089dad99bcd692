/**
 * Is a timeline that is not here new, or has this node lost it? A proposer brings it in either case. Taken for new, a node whose
 * disk was lost would vote with an empty log, and with a peer that is behind make a majority that lacks what was acknowledged.
 *
 * All the other safekeepers are asked: only when every one answers and none has voted, let alone a proposer's WAL, nobody has been
 * elected or acknowledged anything yet (a majority that has would include one of them). A proposer of ours says who they are, and so does a membership
 * configuration; of others the broker knows those that are there, which is as much as can be found out. What a timeline was made
 * with (a copy's WAL is of term 0) is no proposer's; more of it than is here is nevertheless more.
 */
import { describeError, StrataError } from "../../kit/errors.ts";
import { type Lsn, parseLsn } from "../../kit/lsn.ts";
import type { TenantTimelineId } from "../../broker/api/messages.ts";
import type { Term } from "../api/term-history.ts";
import type { Platform } from "../../platform/platform.ts";
import type { PgTls } from "../../wire/client-tls.ts";
import { PgClient } from "../../wire/client.ts";
import { type Address, parseAddress } from "../config.ts";

export type Newness = (
  | { readonly kind: "new" }
  /** @property by the safekeeper that has WAL */
  | { readonly kind: "known"; readonly by: string }
  /** Nobody has WAL, but someone may have been elected. */
  | { readonly kind: "voted"; readonly by: string }
  | { readonly kind: "uncertain"; readonly why: string }
) & {
  /** The highest term that one of those asked has voted in. */
  readonly term: Term;
  /** How many of those asked have answered. */
  readonly heard: number;
};

export interface NewnessOptions {
  readonly platform: Pick<Platform, "clock" | "network" | "random">;
  /** All other safekeepers; null when the proposer does not say who they are. */
  readonly peers: readonly Address[] | null;
  /** End of what this node's timeline was made with; 0 = nothing. */
  readonly madeWithLsn: Lsn;
  /** The token the proposer showed: what it may ask, this node may ask for it. */
  readonly password: string | null;
  /** Undefined for plain text. */
  readonly tls?: PgTls | undefined;
  /** Without a list: asks the broker; null without a broker. */
  readonly askBroker: ((id: TenantTimelineId, madeWithLsn: Lsn) => Promise<Newness>) | null;
}

const TIMEOUT_MS = 2_000;
const MAX_PEERS = 31;

/** Never rejects. */
export async function findNewness(id: TenantTimelineId, options: NewnessOptions): Promise<Newness> {
  const { peers, askBroker } = options;
  if (peers === null) return askBroker === null ? { kind: "new", term: 0, heard: 0 } : askBroker(id, options.madeWithLsn);
  const answers = await Promise.all(peers.slice(0, MAX_PEERS).map((peer) => ask(id, peer, options)));
  const worst = (["known", "uncertain", "voted"] as const).map((kind) => answers.find((answer) => answer.kind === kind));
  const verdict = worst.find((answer) => answer !== undefined) ?? { kind: "new" };
  return { ...verdict, term: Math.max(0, ...answers.map(({ term }) => term)), heard: answers.filter(({ heard }) => heard > 0).length };
}

/** `host:port,host:port` of the start-up option; null without it. @throws StrataError fix-input `bad-address`, `too-many-safekeepers` */
export function parsePeers(text: string | undefined): readonly Address[] | null {
  if (text === undefined) return null;
  const addresses = text === "" ? [] : text.split(",", MAX_PEERS + 1);
  if (addresses.length > MAX_PEERS) throw new StrataError("fix-input", "too-many-safekeepers", `a timeline has at most ${MAX_PEERS + 1} safekeepers`);
  return addresses.map(parseAddress);
}

async function ask(id: TenantTimelineId, peer: Address, options: NewnessOptions): Promise<Newness> {
  const { clock, network, random } = options.platform;
  const name = `${peer.host}:${peer.port}`;
  let client: PgClient | null = null;
  const timer = clock.after(TIMEOUT_MS, () => client?.destroy());
  try {
    client = await PgClient.connect(network, {
      address: peer,
      parameters: { user: "strata", database: "replication", application_name: "strata_safekeeper", options: `-c timeline_id=${id.timelineId} tenant_id=${id.tenantId} strata=1` },
      ...(options.password === null ? {} : { password: options.password }),
      tls: options.tls, clock, random, timeoutMs: TIMEOUT_MS,
    });
    const { columns, rows } = await client.query("TIMELINE_STATUS");
    const value = (column: string, otherwise: string): string => rows.at(0)?.[columns.findIndex((one) => one.name === column)] ?? otherwise;
    const answer = { term: Number(value("term", "0")), heard: 1 };
    if (value("state", "absent") === "unusable") return { kind: "uncertain", why: `safekeeper ${name} has the timeline, and cannot open it now`, ...answer, heard: 0 };
    const flushLsn = parseLsn(value("flush_lsn", "0/0"));
    // Who does not tell the term is not asked for more.
    const hasMore = flushLsn > options.madeWithLsn || (flushLsn > 0 && value("last_log_term", "1") !== "0");
    return hasMore ? { kind: "known", by: name, ...answer } : answer.term > 0 ? { kind: "voted", by: name, ...answer } : { kind: "new", ...answer };
  } catch (error) {
    return { kind: "uncertain", term: 0, heard: 0, why: `safekeeper ${name} does not answer: ${describeError(error)}` };
  } finally {
    timer.cancel();
    client?.destroy();
  }
}
