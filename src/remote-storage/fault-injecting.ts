/**
 * A storage that misbehaves on purpose, around any other: latency, failures before and after the effect, downloads
 * cut midway, listings from the past. For simulation and tests; what it does is drawn from the given randomness.
 */
import type { Clock } from "../platform/clock.ts";
import type { Random } from "../platform/random.ts";
import { type ByteRange, type Download, type ListOptions, type ListPage, type OperationOptions, type RemoteStorage, storageUnavailable, type TimeTravelOptions, type UploadSource } from "./remote-storage.ts";

/** Probabilities in [0, 1]. */
export interface FaultPlan {
  /** The request never reaches the storage. */
  failBefore: number;
  /** The request takes effect, and the answer is lost. */
  failAfter: number;
  /** A download ends with an error somewhere in its body. */
  cutDownload: number;
  /** A listing answers with an earlier page for the same question, if it has one. */
  staleList: number;
  maxLatencyMs: number;
  /** The caller's end, as far as the storage can see: this many requests are served, one more with or without effect, and none after. */
  diesAfter: { readonly requests: number; readonly lastHasEffect: boolean } | null;
}

export const NO_FAULTS: FaultPlan = { failBefore: 0, failAfter: 0, cutDownload: 0, staleList: 0, maxLatencyMs: 0, diesAfter: null };
const REMEMBERED_LISTINGS_MAX = 100;

export class FaultInjectingStorage implements RemoteStorage {
  /** May be changed at any time. */
  plan: FaultPlan;
  /** How many faults were injected. */
  faults = 0;
  /** How many requests came. */
  requests = 0;
  readonly #died = Promise.withResolvers<void>();
  readonly #inner: RemoteStorage;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #listings = new Map<string, ListPage>();

  constructor(inner: RemoteStorage, options: { readonly clock: Clock; readonly random: Random; readonly plan?: Partial<FaultPlan> }) {
    this.#inner = inner;
    this.#clock = options.clock;
    this.#random = options.random;
    this.plan = { ...NO_FAULTS, ...options.plan };
  }

  /** Resolves when `diesAfter` was reached. */
  get died(): Promise<void> {
    return this.#died.promise;
  }

  get maxKeysPerDelete(): number {
    return this.#inner.maxKeysPerDelete;
  }

  #strikes(probability: number): boolean {
    const strikes = probability > 0 && this.#random.float() < probability;
    if (strikes) this.faults++;
    return strikes;
  }

  async #around<T>(what: string, signal: AbortSignal | undefined, operation: () => Promise<T>): Promise<T> {
    await this.#maybeDie(what, operation);
    if (this.plan.maxLatencyMs > 0) await this.#clock.sleep(this.#random.float() * this.plan.maxLatencyMs, signal);
    if (this.#strikes(this.plan.failBefore)) throw storageUnavailable(`injected: ${what} refused`);
    const result = await operation();
    if (this.#strikes(this.plan.failAfter)) throw storageUnavailable(`injected: answer to ${what} lost`);
    return result;
  }

  async #maybeDie(what: string, operation: () => Promise<unknown>): Promise<void> {
    const { diesAfter } = this.plan;
    const number = this.requests++;
    if (diesAfter === null || number < diesAfter.requests) return;
    if (number === diesAfter.requests && diesAfter.lastHasEffect) await operation();
    this.faults++;
    this.#died.resolve();
    throw storageUnavailable(`injected: dead before the answer to ${what}`);
  }

  upload(key: string, source: UploadSource, options?: OperationOptions): Promise<void> {
    return this.#around(`upload of ${key}`, options?.signal, () => this.#inner.upload(key, source, options));
  }

  async download(key: string, options?: OperationOptions & { readonly range?: ByteRange }): Promise<Download> {
    const download = await this.#around(`download of ${key}`, options?.signal, () => this.#inner.download(key, options));
    if (!this.#strikes(this.plan.cutDownload)) return download;
    return { sizeBytes: download.sizeBytes, body: cutAt(download.body, this.#random.below(download.sizeBytes + 1)) };
  }

  async list(options: ListOptions): Promise<ListPage> {
    const page = await this.#around(`listing of "${options.prefix}"`, options.signal, () => this.#inner.list(options));
    const question = JSON.stringify([options.prefix, options.delimiter, options.maxKeys, options.continuation]);
    const earlier = this.#listings.get(question);
    if (earlier !== undefined && this.#strikes(this.plan.staleList)) return earlier;
    if (this.#listings.size >= REMEMBERED_LISTINGS_MAX) this.#listings.clear();
    this.#listings.set(question, page);
    return page;
  }

  delete(keys: readonly string[], options?: OperationOptions): Promise<void> {
    return this.#around(`deletion of ${keys.length} objects`, options?.signal, () => this.#inner.delete(keys, options));
  }

  copy(from: string, to: string, options?: OperationOptions): Promise<void> {
    return this.#around(`copy of ${from}`, options?.signal, () => this.#inner.copy(from, to, options));
  }

  timeTravelRecover(options: TimeTravelOptions): Promise<void> {
    return this.#around(`time travel of "${options.prefix}"`, options.signal, () => this.#inner.timeTravelRecover(options));
  }
}

async function* cutAt(body: AsyncIterable<Uint8Array>, at: number): AsyncGenerator<Uint8Array> {
  let passed = 0;
  for await (const chunk of body) {
    if (passed + chunk.length > at) {
      if (at > passed) yield chunk.subarray(0, at - passed);
      throw storageUnavailable(`injected: download cut after ${at} bytes`);
    }
    passed += chunk.length;
    yield chunk;
  }
  throw storageUnavailable("injected: download cut at its end");
}
