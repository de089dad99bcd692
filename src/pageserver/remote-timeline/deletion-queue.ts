/**
 * Deletion of objects that no index names any more, of all tenants of a pageserver. An object may go only while our
 * generation is still the newest: somebody attached later may have read the old index and need it. So keys are first
 * written to a list on disk, then the generations are validated, then the objects are deleted, then the list.
 *
 * | file in the queue's directory | content |
 * | --- | --- |
 * | `<sequence, 16 hex>-01.list` | JSON { version 1, sequence, tenants: { shard: { timelines: { id: [names] }, generation } }, size, validated? } |
 * | `header-01` | JSON { version 1, validated_sequence }: lists up to here may be carried out without asking |
 *
 * Both carry a checksum (checked-json.ts): a damaged name must not become a deletion of something else.
 *
 * The same validation makes a remote_consistent_lsn visible to safekeepers: only the newest generation may let them
 * drop WAL. Source: the peer's deletion_queue module, RFC 025.
 */
import { Cancelled, isStrataError, StrataError } from "../../kit/errors.ts";
import { parseTenantShardId, type TenantId, type TenantShardId, tenantShardIdToString, type TimelineId } from "../../kit/ids.ts";
import type { Failpoints } from "../../kit/failpoints.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { Logger } from "../../observability/log.ts";
import type { Platform } from "../../platform/platform.ts";
import type { RemoteStorage } from "../../remote-storage/remote-storage.ts";
import { decodeCheckedJson, encodeCheckedJson } from "./checked-json.ts";
import { timelinePrefix } from "./remote-paths.ts";

export interface GenerationToValidate {
  readonly tenantShardId: TenantShardId;
  readonly generation: number;
}

/** Asks who knows the newest generations; one answer for each request, in order. Throws while nobody can tell. */
export type ValidateGenerations = (requests: readonly GenerationToValidate[]) => Promise<readonly boolean[]>;

export interface DeletionQueueOptions {
  readonly platform: Platform;
  readonly log: Logger;
  readonly storage: RemoteStorage;
  /** Of the queue alone. */
  readonly directory: string;
  readonly validate: ValidateGenerations;
  /** How long keys may gather before their list is written. */
  readonly flushIntervalMs?: number;
  readonly failpoints?: Failpoints;
}

interface TenantDeletions {
  readonly generation: number;
  readonly timelines: Record<string, string[]>;
}

interface DeletionList {
  readonly sequence: number;
  tenants: Record<string, TenantDeletions>;
  size: number;
}

interface LsnUpdate extends GenerationToValidate {
  readonly lsn: Lsn;
  readonly apply: (lsn: Lsn) => void;
}

const VERSION = 1;
const HEADER_NAME = "header-01";
const LIST_PATTERN = /^([0-9a-f]{16})-01\.list$/;
const LIST_MAX_KEYS = 10_000;
const DEFAULT_FLUSH_INTERVAL_MS = 10_000;

/** How many objects have come how far, since the start. */
export interface DeletionCounts {
  submitted: number;
  validated: number;
  executed: number;
  /** Of a generation that is no longer the newest. */
  dropped: number;
  droppedLsnUpdates: number;
  /** Requests to object storage that failed and are made again. */
  remoteErrors: number;
  /** Rounds that failed otherwise. */
  otherErrors: number;
}

export class DeletionQueue {
  readonly #options: DeletionQueueOptions;
  readonly #counts: DeletionCounts = { submitted: 0, validated: 0, executed: 0, dropped: 0, droppedLsnUpdates: 0, remoteErrors: 0, otherErrors: 0 };
  #nextSequence = 1;
  #open: DeletionList;
  /** Written to disk, not carried out yet; by rising sequence. */
  readonly #lists: DeletionList[] = [];
  /** Newest update of each timeline. */
  readonly #lsnUpdates = new Map<string, LsnUpdate>();
  #validatedSequence = 0;
  readonly #stop = new AbortController();
  #working: Promise<void> = Promise.resolve();
  #running: Promise<void> | null = null;

  private constructor(options: DeletionQueueOptions) {
    this.#options = options;
    this.#open = this.#newList();
  }

  /**
   * Takes up lists left on disk. `attached` tells the generation each tenant shard has been attached with now: a list
   * made one generation earlier by this same node is still good (nobody was in between).
   */
  static async open(options: DeletionQueueOptions, attached: ReadonlyMap<string, number>): Promise<DeletionQueue> {
    const queue = new DeletionQueue(options);
    await options.platform.files.makeDirectory(options.directory);
    await queue.#recover(attached);
    return queue;
  }

  async #recover(attached: ReadonlyMap<string, number>): Promise<void> {
    const { files } = this.#options.platform;
    const { directory, log } = this.#options;
    const names = await files.list(directory);
    if (names.includes(HEADER_NAME)) this.#validatedSequence = readHeader(await files.readFile(`${directory}/${HEADER_NAME}`), log);
    for (const name of names) {
      const match = LIST_PATTERN.exec(name);
      if (match === null) continue;
      const list = readList(await files.readFile(`${directory}/${name}`), log);
      this.#nextSequence = Math.max(this.#nextSequence, Number.parseInt(match[1] as string, 16) + 1);
      if (list === null) continue;
      if (list.sequence > this.#validatedSequence) adoptGenerations(list, attached);
      this.#lists.push(list);
    }
    this.#nextSequence = Math.max(this.#nextSequence, this.#validatedSequence + 1);
    this.#open = this.#newList();
  }

  #newList(): DeletionList {
    return { sequence: this.#nextSequence++, tenants: {}, size: 0 };
  }

  get counts(): Readonly<DeletionCounts> {
    return this.#counts;
  }

  /** Starts the background work; it ends with `shutdown`. */
  start(): void {
    this.#running ??= this.#loop();
  }

  async #loop(): Promise<void> {
    const { platform, log, flushIntervalMs = DEFAULT_FLUSH_INTERVAL_MS } = this.#options;
    while (!this.#stop.signal.aborted) {
      try {
        await platform.clock.sleep(flushIntervalMs, this.#stop.signal);
        await this.flush();
      } catch (error) {
        if (error instanceof Cancelled || this.#stop.signal.aborted) return;
        if (isStrataError(error) && error.code.startsWith("storage-")) this.#counts.remoteErrors++;
        else this.#counts.otherErrors++;
        log.warn("deletion queue: will try again", { error });
      }
    }
  }

  /** Queues objects of a timeline, by their names within it. Not durable until the next flush: a crash leaves garbage, no harm. */
  push(owner: GenerationToValidate & { readonly timelineId: TimelineId }, names: readonly string[]): void {
    if (names.length === 0) return;
    this.#counts.submitted += names.length;
    const shard = tenantShardIdToString(owner.tenantShardId);
    const known = this.#open.tenants[shard];
    if (known !== undefined && known.generation !== owner.generation) this.#seal();
    const tenant = (this.#open.tenants[shard] ??= { generation: owner.generation, timelines: {} });
    (tenant.timelines[owner.timelineId] ??= []).push(...names);
    this.#open.size += names.length;
    if (this.#open.size >= LIST_MAX_KEYS) this.#seal();
  }

  readonly #sealed: DeletionList[] = [];

  #seal(): void {
    if (this.#open.size > 0) this.#sealed.push(this.#open);
    this.#open = this.#newList();
  }

  /** Calls `apply` once our generation is known to be the newest still. */
  pushLsnUpdate(owner: GenerationToValidate & { readonly timelineId: TimelineId }, lsn: Lsn, apply: (lsn: Lsn) => void): void {
    this.#lsnUpdates.set(`${tenantShardIdToString(owner.tenantShardId)}/${owner.timelineId}`, { ...owner, lsn, apply });
  }

  /** Everything pushed so far: to disk, validated, deleted. @throws StrataError when a step fails; nothing is lost */
  flush(): Promise<void> {
    return this.#inTurn(() => this.#flush());
  }

  /** Forgets what a tenant has pending, on disk too: the objects stay, as garbage at worst. @throws StrataError when a list cannot be written; to be repeated */
  discard(tenantId: TenantId): Promise<void> {
    return this.#inTurn(() => this.#discard((shard) => parseTenantShardId(shard).tenantId === tenantId));
  }

  /** The same of a shard, or of one timeline: what is made under a name that was used before has objects of the same names. */
  async discardShard(tenantShardId: TenantShardId, timelineId?: TimelineId): Promise<void> {
    const shard = tenantShardIdToString(tenantShardId);
    const isMeant = (other: string, timeline: TimelineId) => other === shard && (timelineId === undefined || timelineId === timeline);
    // Mostly there is nothing, and nobody waits for what is under way.
    const isThere = this.#allLists.some(({ tenants }) => Object.keys(tenants[shard]?.timelines ?? {}).some((timeline) => isMeant(shard, timeline)));
    if (isThere) await this.#inTurn(() => this.#discard(isMeant));
  }

  get #allLists(): DeletionList[] {
    return [this.#open, ...this.#sealed, ...this.#lists];
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const next = this.#working.then(work);
    this.#working = next.catch(() => {});
    return next;
  }

  async #discard(isMeant: (shard: string, timelineId: TimelineId) => boolean): Promise<void> {
    for (const list of this.#allLists) {
      const rest: Record<string, TenantDeletions> = {};
      let isLess = false;
      for (const [shard, { generation, timelines }] of Object.entries(list.tenants)) {
        const kept = Object.entries(timelines).filter(([timelineId]) => !isMeant(shard, timelineId));
        if (kept.length > 0) rest[shard] = { generation, timelines: Object.fromEntries(kept) };
        isLess ||= kept.length < Object.keys(timelines).length;
      }
      if (!isLess) continue;
      // The file first: after an error the next attempt must find them again.
      if (this.#lists.includes(list)) await this.#save(listName(list), { version: VERSION, ...list, tenants: rest });
      list.tenants = rest;
    }
  }

  /** For who deletes objects without a list of them. @throws StrataError conflict `stale-generation`; what asking throws while nobody can tell */
  async assertNewest(owner: GenerationToValidate): Promise<void> {
    const [isNewest] = await this.#options.validate([owner]);
    if (isNewest === true) return;
    throw new StrataError("conflict", "stale-generation", `${tenantShardIdToString(owner.tenantShardId)} is attached under a later generation than ${owner.generation}: nothing of it is deleted here`);
  }

  async #flush(): Promise<void> {
    this.#seal();
    for (let list = this.#sealed[0]; list !== undefined; list = this.#sealed[0]) {
      await this.#save(listName(list), { version: VERSION, ...list });
      this.#lists.push(list);
      this.#sealed.shift();
    }
    await this.#validate();
    await this.#execute();
  }

  async #save(name: string, content: Readonly<Record<string, unknown>>): Promise<void> {
    const { files } = this.#options.platform;
    const { directory } = this.#options;
    const temporary = `${directory}/${name}.tmp`;
    const file = await files.open(temporary, "truncate");
    try {
      await file.write(encodeCheckedJson(content), 0);
      await file.sync();
    } finally {
      await file.close();
    }
    await files.rename(temporary, `${directory}/${name}`);
    await files.syncDirectory(directory);
  }

  /** Asks once for all that waits; drops from the lists what belongs to generations that are no longer the newest. */
  async #validate(): Promise<void> {
    const unvalidated = this.#lists.filter((list) => list.sequence > this.#validatedSequence);
    const updates = [...this.#lsnUpdates.entries()];
    const requests = new Map<string, GenerationToValidate>();
    const ask = (request: GenerationToValidate) => requests.set(`${tenantShardIdToString(request.tenantShardId)}@${request.generation}`, request);
    for (const list of unvalidated) for (const [shard, { generation }] of Object.entries(list.tenants)) ask({ tenantShardId: parseTenantShardId(shard), generation });
    for (const [, update] of updates) ask(update);
    if (requests.size === 0) return;
    const answers = await this.#options.validate([...requests.values()]);
    if (answers.length !== requests.size) throw new StrataError("unavailable", "bad-validation", `${answers.length} answers to ${requests.size} requests`);
    const valid = new Map([...requests.keys()].map((key, i) => [key, answers[i] === true]));
    for (const list of unvalidated) {
      this.#dropStale(list, valid);
      this.#counts.validated += keysOf(list).length;
    }
    for (const [key, update] of updates) {
      if (this.#lsnUpdates.get(key) === update) this.#lsnUpdates.delete(key);
      if (valid.get(`${tenantShardIdToString(update.tenantShardId)}@${update.generation}`) === true) update.apply(update.lsn);
      else this.#counts.droppedLsnUpdates++;
    }
    const last = unvalidated.at(-1);
    if (last !== undefined) {
      // A list that lost entries must be rewritten before the header vouches for it.
      for (const list of unvalidated) await this.#save(listName(list), { version: VERSION, ...list, validated: true });
      this.#validatedSequence = last.sequence;
      await this.#save(HEADER_NAME, { version: VERSION, validated_sequence: last.sequence });
    }
  }

  #dropStale(list: DeletionList, valid: ReadonlyMap<string, boolean>): void {
    for (const [shard, { generation }] of Object.entries(list.tenants)) {
      if (valid.get(`${shard}@${generation}`) === true) continue;
      this.#options.log.info("dropping deletions of a stale generation", { tenantShardId: shard, generation });
      for (const names of Object.values(list.tenants[shard]?.timelines ?? {})) this.#counts.dropped += names.length;
      delete list.tenants[shard];
    }
  }

  async #execute(): Promise<void> {
    const { storage, directory, platform, failpoints } = this.#options;
    for (let list = this.#lists[0]; list !== undefined && list.sequence <= this.#validatedSequence; list = this.#lists[0]) {
      const keys = keysOf(list);
      await failpoints?.hit("deletion-queue-before-execute", this.#stop.signal);
      for (let at = 0; at < keys.length; at += storage.maxKeysPerDelete) {
        await storage.delete(keys.slice(at, at + storage.maxKeysPerDelete), { signal: this.#stop.signal });
      }
      this.#counts.executed += keys.length;
      await removeIfThere(platform.files, `${directory}/${listName(list)}`);
      await platform.files.syncDirectory(directory);
      this.#lists.shift();
    }
  }

  /** Writes what is pending to disk, so that the next start carries it out; asks and deletes nothing any more. */
  async shutdown(): Promise<void> {
    this.#stop.abort(new Cancelled("deletion queue is shutting down"));
    await this.#running;
    await this.#working;
    this.#seal();
    for (const list of this.#sealed.splice(0)) await this.#save(listName(list), { version: VERSION, ...list });
  }
}

/** A list may be gone already: its directory could not be synced then. */
async function removeIfThere(files: Platform["files"], path: string): Promise<void> {
  try {
    await files.remove(path);
  } catch (error) {
    if (!isStrataError(error, "file-not-found")) throw error;
  }
}

function listName({ sequence }: DeletionList): string {
  return `${sequence.toString(16).padStart(16, "0")}-01.list`;
}

function keysOf(list: DeletionList): string[] {
  return Object.entries(list.tenants).flatMap(([shard, tenant]) =>
    Object.entries(tenant.timelines).flatMap(([timelineId, names]) => names.map((name) => timelinePrefix(parseTenantShardId(shard), timelineId) + name)),
  );
}

function adoptGenerations(list: DeletionList, attached: ReadonlyMap<string, number>): void {
  for (const [shard, tenant] of Object.entries(list.tenants)) {
    const now = attached.get(shard);
    if (now === tenant.generation + 1) list.tenants[shard] = { ...tenant, generation: now };
  }
}

/** A damaged list is forgotten: its objects become garbage for the scrubber, which is safe. */
function readList(bytes: Uint8Array, log: Logger): DeletionList | null {
  try {
    const json = decodeCheckedJson(bytes, { what: "deletion list", code: "bad-deletion-list", required: true });
    if (json.version !== VERSION || typeof json.sequence !== "number") throw new StrataError("corrupt", "bad-deletion-list", "unknown version or no sequence");
    const list: DeletionList = { sequence: json.sequence, tenants: json.tenants as Record<string, TenantDeletions>, size: 0 };
    list.size = keysOf(list).length;
    return list;
  } catch (error) {
    log.warn("deletion list cannot be read and is ignored", { error });
    return null;
  }
}

function readHeader(bytes: Uint8Array, log: Logger): number {
  try {
    const sequence = decodeCheckedJson(bytes, { what: "deletion queue header", code: "bad-deletion-header", required: true }).validated_sequence;
    if (typeof sequence === "number" && Number.isSafeInteger(sequence)) return sequence;
  } catch (error) {
    log.warn("deletion queue header cannot be read: lists will be validated again", { error });
  }
  return 0;
}
