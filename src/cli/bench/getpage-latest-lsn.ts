/** GetPage over `pagestream_v3`, pages drawn evenly from all blocks of all relations of the timelines. */
import { StrataError } from "../../kit/errors.ts";
import { LSN_MAX, type Lsn } from "../../kit/lsn.ts";
import { keyFromHex } from "../../keyspace/key.ts";
import { isRelBlockKey, keyToRelBlock } from "../../keyspace/mapping.ts";
import type { RelTag } from "../../keyspace/relation.ts";
import { decodeResponse, encodeGetPage, RESPONSE_KINDS } from "../../pageserver/api/pagestream.ts";
import type { Platform } from "../../platform/platform.ts";
import type { Random } from "../../platform/random.ts";
import type { ClientCopyStream } from "../../wire/client-copy-stream.ts";
import type { OptionValues } from "../options/option-table.ts";
import type { GETPAGE_OPTIONS } from "./bench-options.ts";
import type { LoadClient, LoadRecorder } from "./load.ts";
import type { PageserverUnderLoad, Target } from "./targets.ts";

type Options = OptionValues<typeof GETPAGE_OPTIONS>;

/** Consecutive blocks of a relation. */
interface Blocks {
  readonly rel: RelTag;
  readonly first: number;
  /** Blocks up to the end of this one, in all of the timeline's. */
  readonly upTo: number;
}

/** Clients for each target, `numClients` each. */
export async function getPageClients(targets: readonly Target[], options: Options, tools: { readonly pageserver: PageserverUnderLoad; readonly platform: Platform }): Promise<LoadClient[]> {
  const clients: LoadClient[] = [];
  for (const target of targets) {
    const blocks = blocksOf(await tools.pageserver.keySpace(target));
    if (blocks.length === 0) throw new StrataError("not-found", "no-pages", `timeline ${target.timelineId} has no relations`);
    for (let i = 0; i < options.numClients; i++) clients.push((recorder, stop) => runClient({ target, blocks, options, recorder, stop, ...tools }));
  }
  return clients;
}

function blocksOf(ranges: readonly (readonly [string, string])[]): Blocks[] {
  const blocks: Blocks[] = [];
  let upTo = 0;
  for (const [start, end] of ranges.map(([from, to]) => [keyFromHex(from), keyFromHex(to)])) {
    if (!isRelBlockKey(start) || !isRelBlockKey(end)) continue;
    const { rel, block: first } = keyToRelBlock(start);
    const last = keyToRelBlock(end);
    const count = sameRelation(rel, last.rel) ? last.block - first : 0;
    if (count > 0) blocks.push({ rel, first, upTo: (upTo += count) });
  }
  return blocks;
}

function sameRelation(a: RelTag, b: RelTag): boolean {
  return a.spcOid === b.spcOid && a.dbOid === b.dbOid && a.relNumber === b.relNumber && a.fork === b.fork;
}

interface Client {
  readonly target: Target;
  readonly blocks: readonly Blocks[];
  readonly options: Options;
  readonly recorder: LoadRecorder;
  readonly stop: AbortSignal;
  readonly pageserver: PageserverUnderLoad;
  readonly platform: Platform;
}

async function runClient(client: Client): Promise<void> {
  const { target, platform, stop, pageserver } = client;
  await pageserver.whileConnected(stop, async (connection) => {
    const stream = await connection.copyBoth(`pagestream_v3 ${target.tenantId} ${target.timelineId}`);
    const pace = new Pace(client.options.perClientRate, platform);
    const sentMs: number[] = [];
    while (!stop.aborted) {
      await pace.next(client);
      while (sentMs.length < client.options.queueDepth) sentMs.push(request(stream, client));
      await answer(stream);
      client.recorder.observe(platform.clock.monotonicMs() - (sentMs.shift() ?? 0));
    }
  });
}

/** @returns when it was sent */
function request(stream: ClientCopyStream, { blocks, target, options, platform }: Client): number {
  const { clock, random } = platform;
  const requestLsn: Lsn = options.reqLatestProbability > random.float() ? LSN_MAX : target.lsn;
  stream.write(encodeGetPage({ requestLsn, notModifiedSince: target.lsn }, pick(blocks, random), 3));
  return clock.monotonicMs();
}

/** Every block is as likely as any other. */
function pick(blocks: readonly Blocks[], random: Random): { rel: RelTag; block: number } {
  const at = random.below(blocks[blocks.length - 1].upTo);
  let low = 0;
  for (let high = blocks.length - 1; low < high; ) {
    const middle = (low + high) >> 1;
    if (blocks[middle].upTo > at) high = middle;
    else low = middle + 1;
  }
  const before = low === 0 ? 0 : blocks[low - 1].upTo;
  return { rel: blocks[low].rel, block: blocks[low].first + at - before };
}

async function answer(stream: ClientCopyStream): Promise<void> {
  const message = await stream.read();
  if (message === null) throw new StrataError("unavailable", "connection-lost", "the pageserver ended the stream");
  const { kind } = decodeResponse(message, 3);
  if (kind !== RESPONSE_KINDS.getpage) throw new StrataError("corrupt", "bad-reply", `response of kind ${kind} to a request for a page`);
}

/** Keeps a client to its rate: a request whose time has passed before it could be sent is missed. */
class Pace {
  readonly #intervalMs: number;
  readonly #startMs: number;
  readonly #platform: Platform;
  #count = 0;

  constructor(perSecond: number | null, platform: Platform) {
    this.#intervalMs = perSecond === null ? 0 : 1000 / perSecond;
    this.#platform = platform;
    this.#startMs = platform.clock.monotonicMs();
  }

  async next({ recorder, stop }: Client): Promise<void> {
    if (this.#intervalMs === 0) return;
    const { clock } = this.#platform;
    const due = Math.floor((clock.monotonicMs() - this.#startMs) / this.#intervalMs);
    if (due > this.#count) recorder.missed += due - this.#count;
    this.#count = Math.max(this.#count, due) + 1;
    const waitMs = this.#startMs + (this.#count - 1) * this.#intervalMs - clock.monotonicMs();
    if (waitMs > 0) await clock.sleep(waitMs, stop).catch(() => {});
  }
}
