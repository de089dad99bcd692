/**
 * The file of what was sent, `last_consumption_metrics.json` in the working directory, the peer's:
 *
 * | field | content |
 * | --- | --- |
 * | version | 2 |
 * | metrics | list of `{key: {tenant_id, timeline_id?, metric}, kind: {type, …}, value}`: what the receiver has |
 * | unanswered | ours, which the peer passes over: the same with `idempotency_key`: what may have been sent |
 * | strata_checked, strata_crc32c | ours, first and last: the checksum as in remote-timeline/checked-json.ts |
 *
 * Each entry is a line of its own here, so that a long file is read and written in pieces. Without the checksum it is the peer's: any JSON of that
 * shape, or its older one, a list of `[key, [kind, value]]`. Replaced as a whole, by a file beside it that is renamed.
 *
 * Source: the peer pageserver/src/consumption_metrics/disk_cache.rs.
 */
import { z } from "zod";
import { bytesEqual, utf8, utf8ToString } from "../../kit/bytes.ts";
import { crc32c } from "../../kit/crc32c.ts";
import { isStrataError, StrataError } from "../../kit/errors.ts";
import type { Failpoints } from "../../kit/failpoints.ts";
import type { Logger } from "../../observability/log.ts";
import type { Platform } from "../../platform/platform.ts";
import { Pacer } from "../layers/pacer.ts";
import { type EventTime, parseEventTime } from "./event-time.ts";
import { kindMembers, METRIC_NAMES, type MetricName, type Owner, ownerKey, ownerMembers, type Reading, type ReadingGroup } from "./events.ts";
import { Outbox } from "./outbox.ts";

export const CACHE_FILE = "last_consumption_metrics.json";
/** About a million timelines. */
const FILE_MAX_BYTES = 2 ** 31 - 1;
const LINES_PER_WRITE = 256;

const HEAD = `{"strata_checked":true,"version":2,"metrics":[`;
const MIDDLE = `],"unanswered":[`;
const TAIL = `]`;
const CRC_LINE = /^,"strata_crc32c":"([0-9a-f]{8})"\}$/;
const CRC_LINE_BYTES = `,"strata_crc32c":"00000000"}`.length;
/** Of a checksum, between two looks at the clock. */
const SLICE_BYTES = 256 * 1024;

export interface DiskCacheOptions {
  readonly platform: Pick<Platform, "files" | "clock" | "random">;
  readonly log: Logger;
  readonly directory: string;
  readonly failpoints?: Failpoints | undefined;
}

/** What was saved; empty when there is nothing, or nothing that can be read. Never throws for what is in the file. */
export async function loadOutbox(options: DiskCacheOptions): Promise<Outbox> {
  const { platform: { files }, log, directory } = options;
  const path = `${directory}/${CACHE_FILE}`;
  await sweep(options).catch((error: unknown) => log.info("unfinished files of consumption metrics could not be removed", { error }));
  try {
    const { sizeBytes } = await files.stat(path);
    if (sizeBytes > FILE_MAX_BYTES) throw corrupt(`${sizeBytes} bytes are too many`);
    return await decode(await files.readFile(path), new Pacer(options.platform.clock));
  } catch (error) {
    if (!isStrataError(error, "file-not-found")) log.warn("what was told of consumption before cannot be read: it begins anew", { path, error });
    return new Outbox();
  }
}

/** A process that ended while it was saving leaves a file beside the one it meant. */
async function sweep({ platform: { files }, log, directory }: DiskCacheOptions): Promise<void> {
  for (const name of await files.list(directory)) {
    if (!name.startsWith(CACHE_FILE) || name === CACHE_FILE) continue;
    const path = `${directory}/${name}`;
    if ((await files.stat(path)).isDirectory) continue;
    await files.remove(path);
    log.info("an unfinished file of consumption metrics is removed", { path });
  }
}

/** Durable when it returns. */
export async function saveOutbox(outbox: Outbox, options: DiskCacheOptions): Promise<void> {
  const { platform: { files, random, clock }, directory, failpoints } = options;
  const temporary = `${directory}/${CACHE_FILE}${random.bytes(6).toHex()}.tmp`;
  const pacer = new Pacer(clock);
  try {
    const file = await files.open(temporary, "create-new");
    try {
      let position = 0;
      let crc = 0;
      for (const piece of pieces(outbox)) {
        const bytes = utf8(piece);
        await file.write(bytes, position);
        crc = crc32c(bytes, 0, bytes.length, crc);
        position += bytes.length;
        await pacer.pause();
      }
      await file.write(utf8(`,"strata_crc32c":"${crc.toString(16).padStart(8, "0")}"}`), position);
      await file.sync();
    } finally {
      await file.close();
    }
    await failpoints?.hit("before-persist-last-metrics-collected");
    await files.rename(temporary, `${directory}/${CACHE_FILE}`);
  } catch (error) {
    await files.remove(temporary).catch(() => {});
    throw error;
  }
  await files.syncDirectory(directory);
}

// ---- Text

function* pieces(outbox: Outbox): Generator<string> {
  let lines: string[] = [HEAD];
  for (const line of entryLines(outbox)) {
    lines.push(line);
    if (lines.length < LINES_PER_WRITE) continue;
    yield `${lines.join("\n")}\n`;
    lines = [];
  }
  lines.push(TAIL);
  yield `${lines.join("\n")}\n`;
}

function* entryLines(outbox: Outbox): Generator<string> {
  yield* separated(entries(outbox.told));
  yield MIDDLE;
  yield* separated(entries(outbox.unanswered));
}

function* separated(texts: Iterable<string>): Generator<string> {
  let last: string | null = null;
  for (const text of texts) {
    if (last !== null) yield `${last},`;
    last = text;
  }
  if (last !== null) yield last;
}

function* entries(groups: Iterable<ReadingGroup & { readonly idempotencyKeys?: readonly string[] }>): Generator<string> {
  for (const group of groups) {
    const owner = ownerMembers(group);
    for (const [index, { metric, kind, value }] of group.readings.entries()) {
      const idempotencyKey = group.idempotencyKeys === undefined ? "" : `,"idempotency_key":"${group.idempotencyKeys[index]}"`;
      yield `{"key":{${owner},"metric":"${metric}"},"kind":{${kindMembers(kind)}},"value":${value}${idempotencyKey}}`;
    }
  }
}

async function decode(bytes: Uint8Array, pacer: Pacer): Promise<Outbox> {
  const told = new Grouping();
  const unanswered = new Grouping();
  const head = utf8(`${HEAD}\n`);
  if (bytesEqual(bytes.subarray(0, head.length), head)) await decodeLines(bytes, { start: head.length, told, unanswered, pacer });
  else await decodeDocument(parsedJson(utf8ToString(bytes)), { told, unanswered, pacer });
  const outbox = new Outbox();
  for (const { tenantId, timelineId, readings } of told.groups()) {
    outbox.restore({ tenantId, timelineId, readings });
    await pacer.pause();
  }
  for (const group of unanswered.groups()) {
    if (group.idempotencyKeys.length === group.readings.length) outbox.restore(group);
    await pacer.pause();
  }
  return outbox;
}

interface Into {
  readonly told: Grouping;
  readonly unanswered: Grouping;
  readonly pacer: Pacer;
}

/** The peer's. */
async function decodeDocument(document: unknown, { told, unanswered, pacer }: Into): Promise<void> {
  const { metrics, unanswered: waiting } = Array.isArray(document) ? { metrics: document, unanswered: [] } : checked(documentSchema, document);
  for (const [grouping, list] of [[told, metrics], [unanswered, waiting]] as const) {
    for (const item of list) {
      grouping.add(item);
      await pacer.pause();
    }
  }
}

/** Ours. */
async function decodeLines(bytes: Uint8Array, { start, told, unanswered, pacer }: Into & { readonly start: number }): Promise<void> {
  const end = bytes.length - CRC_LINE_BYTES;
  const crc = CRC_LINE.exec(utf8ToString(bytes.subarray(Math.max(0, end))));
  if (crc === null || (await checksum(bytes, end, pacer)) !== Number.parseInt(crc[1], 16)) throw corrupt("its checksum does not match");
  let into = told;
  for (const line of linesOf(bytes, start, end)) {
    if (line === MIDDLE) into = unanswered;
    else if (line !== TAIL) into.add(parsedJson(line.endsWith(",") ? line.slice(0, -1) : line));
    await pacer.pause();
  }
}

async function checksum(bytes: Uint8Array, end: number, pacer: Pacer): Promise<number> {
  let crc = 0;
  for (let at = 0; at < end; at += SLICE_BYTES) {
    crc = crc32c(bytes, at, Math.min(end, at + SLICE_BYTES), crc);
    await pacer.pause();
  }
  return crc;
}

/** Each ends in a newline. */
function* linesOf(bytes: Uint8Array, start: number, end: number): Generator<string> {
  for (let at = start; at < end; ) {
    const newline = bytes.indexOf(0x0a, at);
    yield utf8ToString(bytes.subarray(at, newline));
    at = newline + 1;
  }
}

const ID = z.string().regex(/^[0-9a-f]{32}$/);
const TIME = z.string().transform((text, context): EventTime => {
  const time = parseEventTime(text);
  if (time !== null) return time;
  context.issues.push({ code: "custom", message: `"${text}" is not a time`, input: text });
  return z.NEVER;
});
const keySchema = z.object({ tenant_id: ID, timeline_id: ID.nullish(), metric: z.string() });
const kindSchema = z.discriminatedUnion("type", [z.object({ type: z.literal("absolute"), time: TIME }), z.object({ type: z.literal("incremental"), start_time: TIME, stop_time: TIME })]);
const VALUE = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
const entrySchema = z.object({ key: keySchema, kind: kindSchema, value: VALUE, idempotency_key: z.string().regex(/^[ -!#-[\]-~]{1,100}$/).optional() });
const oldEntrySchema = z.tuple([keySchema, z.tuple([kindSchema, VALUE])]);
/** With a checksum it is ours, and damaged where it does not begin as ours do. */
const documentSchema = z.object({ version: z.literal(2), metrics: z.array(z.unknown()), unanswered: z.array(z.unknown()).default([]), strata_checked: z.undefined().optional(), strata_crc32c: z.undefined().optional() });

interface Gathered extends Owner {
  readonly readings: Reading[];
  readonly idempotencyKeys: string[];
}

class Grouping {
  readonly #groups = new Map<string, Gathered>();

  /** Names that nobody here knows are passed over. @throws StrataError corrupt `bad-metrics-file` */
  add(item: unknown): void {
    const { key, kind, value, idempotency_key: idempotencyKey } = Array.isArray(item) ? fromOld(item) : checked(entrySchema, item);
    const metric = METRIC_NAMES.find((name) => name === key.metric);
    if (metric === undefined) return;
    const group = this.#group({ tenantId: key.tenant_id, timelineId: key.timeline_id ?? null });
    group.readings.push(reading(metric, kind, value));
    if (idempotencyKey !== undefined) group.idempotencyKeys.push(idempotencyKey);
  }

  #group(owner: Owner): Gathered {
    const key = ownerKey(owner);
    const known = this.#groups.get(key) ?? { ...owner, readings: [], idempotencyKeys: [] };
    this.#groups.set(key, known);
    return known;
  }

  groups(): Iterable<Gathered> {
    return this.#groups.values();
  }
}

function reading(metric: MetricName, kind: z.output<typeof kindSchema>, value: number): Reading {
  return { metric, kind: kind.type === "absolute" ? kind : { type: "incremental", startTime: kind.start_time, stopTime: kind.stop_time }, value };
}

function fromOld(item: unknown): z.output<typeof entrySchema> {
  const [key, [kind, value]] = checked(oldEntrySchema, item);
  return { key, kind, value };
}

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw corrupt("it is not JSON", cause);
  }
}

function checked<S extends z.ZodType>(schema: S, item: unknown): z.output<S> {
  const result = schema.safeParse(item);
  if (!result.success) throw corrupt(z.prettifyError(result.error));
  return result.data;
}

function corrupt(what: string, cause?: unknown): StrataError {
  return new StrataError("corrupt", "bad-metrics-file", `${CACHE_FILE}: ${what}`, { cause });
}
