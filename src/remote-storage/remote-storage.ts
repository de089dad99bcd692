/**
 * Object storage behind one interface: a directory, S3 and its compatibles, Azure Blob.
 *
 * Keys are relative paths of segments joined by "/", without empty segments, "." or "..". Objects are immutable in
 * spirit: an upload replaces the whole object at once, and a reader sees the old object or the new one, never a mix.
 * `upload` returns only when the object is durable.
 *
 * Errors: not-found `object-not-found`; fix-input `bad-object-key`; fix-input `bad-range`; unavailable
 * `storage-unavailable` for everything that may pass by itself (callers retry, see `retry.ts`); Cancelled.
 */
import { concatBytes } from "../kit/bytes.ts";
import { StrataError } from "../kit/errors.ts";
import type { TravelTimes } from "./time-travel.ts";

export interface OperationOptions {
  readonly signal?: AbortSignal;
}

export type UploadSource =
  /** Not changed by anyone until the upload has ended. */
  | { readonly bytes: Uint8Array }
  /** The first `sizeBytes` of a local file that does not change meanwhile. */
  | { readonly filePath: string; readonly sizeBytes: number };

/** Half-open, in bytes; an end beyond the object is cut to its size. */
export interface ByteRange {
  readonly start: number;
  readonly end?: number;
}

export interface Download {
  /** Of the part asked for. */
  readonly sizeBytes: number;
  /** To be consumed once, or given up with its iterator's `return()`; chunks belong to the consumer. May throw
   *  `storage-unavailable` midway. */
  readonly body: AsyncIterable<Uint8Array>;
}

export interface ListOptions extends OperationOptions {
  /** Plain string prefix of the keys; "" for all. */
  readonly prefix: string;
  /** With "/": keys are cut after the first "/" beyond the prefix and told once, in `prefixes`. */
  readonly delimiter?: "/";
  /** Keys and prefixes together; the back end's own page size (≤ 1000) unless given. */
  readonly maxKeys?: number;
  /** From the page before. */
  readonly continuation?: string;
}

export interface RemoteObject {
  readonly key: string;
  readonly sizeBytes: number;
  readonly modifiedMs: number;
}

export interface ListPage {
  /** In byte order of the keys. */
  readonly objects: readonly RemoteObject[];
  /** Each ends in the delimiter. */
  readonly prefixes: readonly string[];
  /** Not null: there is more. */
  readonly continuation: string | null;
}

export interface TimeTravelOptions extends OperationOptions, TravelTimes {
  /** Plain string prefix of the keys. */
  readonly prefix: string;
  /** Versions and deletion markers that are looked at: they are held in memory. */
  readonly maxVersions: number;
}

export interface RemoteStorage {
  /** How many keys one `delete` sends at once; more are cut into batches by `delete` itself. */
  readonly maxKeysPerDelete: number;
  upload(key: string, source: UploadSource, options?: OperationOptions): Promise<void>;
  download(key: string, options?: OperationOptions & { readonly range?: ByteRange }): Promise<Download>;
  list(options: ListOptions): Promise<ListPage>;
  /** Missing objects are no error. Durable when it returns. */
  delete(keys: readonly string[], options?: OperationOptions): Promise<void>;
  copy(from: string, to: string, options?: OperationOptions): Promise<void>;
  /**
   * Objects below a prefix become what they were at a moment, by new copies of old versions and by deletions; what was written since
   * stays among the versions. Nobody else may write there meanwhile. To be repeated with the same times after an error: until it
   * returns, some keys are of then and some of now.
   * @throws StrataError fix-input `time-travel-unsupported`, `object-not-versioned`, `too-many-versions`
   */
  timeTravelRecover(options: TimeTravelOptions): Promise<void>;
}

export const LIST_PAGE_MAX = 1000;

/** @throws StrataError fix-input `bad-object-key` */
export function checkObjectKey(key: string): void {
  const bad = key === "" || key.includes("\0") || key.split("/").some((segment) => segment === "" || segment === "." || segment === "..");
  if (bad) throw new StrataError("fix-input", "bad-object-key", `"${key}" is not an object key`);
}

export function objectNotFound(key: string, cause?: unknown): StrataError {
  return new StrataError("not-found", "object-not-found", `object ${key} does not exist`, { cause, details: { key } });
}

export function storageUnavailable(what: string, cause?: unknown): StrataError {
  return new StrataError("unavailable", "storage-unavailable", what, { cause });
}

/** The whole of a small object. @throws StrataError corrupt `object-too-large` above `maxBytes` */
export async function downloadBytes(storage: RemoteStorage, key: string, options: OperationOptions & { readonly maxBytes: number }): Promise<Uint8Array> {
  const { sizeBytes, body } = await storage.download(key, options);
  if (sizeBytes > options.maxBytes) await body[Symbol.asyncIterator]().return?.();
  if (sizeBytes > options.maxBytes) throw new StrataError("corrupt", "object-too-large", `object ${key} has ${sizeBytes} bytes, at most ${options.maxBytes} expected`);
  const parts: Uint8Array[] = [];
  let received = 0;
  for await (const part of body) {
    received += part.length;
    if (received > sizeBytes) throw storageUnavailable(`object ${key}: more than the ${sizeBytes} bytes announced`);
    parts.push(part);
  }
  if (received !== sizeBytes) throw storageUnavailable(`download of ${key} ended after ${received} of ${sizeBytes} bytes`);
  return parts.length === 1 ? parts[0] : concatBytes(parts);
}

/** All pages of a listing, at most `maxTotal` entries. @throws StrataError unavailable `listing-too-long` beyond it */
export async function listAll(storage: RemoteStorage, options: ListOptions & { readonly maxTotal: number }): Promise<{ objects: RemoteObject[]; prefixes: string[] }> {
  const objects: RemoteObject[] = [];
  const prefixes: string[] = [];
  let continuation: string | undefined;
  do {
    const page: ListPage = await storage.list({ ...options, continuation });
    objects.push(...page.objects);
    prefixes.push(...page.prefixes);
    if (objects.length + prefixes.length > options.maxTotal) {
      throw new StrataError("unavailable", "listing-too-long", `listing of "${options.prefix}" has more than ${options.maxTotal} entries`);
    }
    continuation = page.continuation ?? undefined;
  } while (continuation !== undefined);
  return { objects, prefixes };
}

/** A body that calls `end` once when it is over: read to the end, failed, or given up, even before the first chunk. */
export function bodyWithEnd(chunks: AsyncGenerator<Uint8Array>, end: () => Promise<void>): AsyncIterable<Uint8Array> {
  let ended = false;
  const endOnce = async () => {
    if (!ended) {
      ended = true;
      await end();
    }
  };
  return {
    [Symbol.asyncIterator]: () => ({
      async next(): Promise<IteratorResult<Uint8Array>> {
        try {
          const result = await chunks.next();
          if (result.done === true) await endOnce();
          return result;
        } catch (error) {
          await endOnce();
          throw error;
        }
      },
      async return(): Promise<IteratorResult<Uint8Array>> {
        await chunks.return(undefined);
        await endOnce();
        return { done: true, value: undefined };
      },
    }),
  };
}
