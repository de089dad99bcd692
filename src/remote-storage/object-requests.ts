/**
 * What S3 and Azure do alike: requests to an object store over HTTP, so many at once, each with its time limit; short answers as text,
 * downloads as streams, and the parts of what is uploaded. How a request is addressed and signed is the store's own affair.
 */
import { allocateBytes } from "../kit/buffers.ts";
import { StrataError } from "../kit/errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { FileSystem } from "../platform/files.ts";
import { ConcurrencyLimit } from "./concurrency-limit.ts";
import { answerText, checkStatus, RequestTimeout, requestFailed, responseChunks } from "./http-request.ts";
import { bodyWithEnd, type ByteRange, checkObjectKey, type Download, storageUnavailable, type UploadSource } from "./remote-storage.ts";

export interface ObjectRequest {
  readonly method: "GET" | "PUT" | "POST" | "DELETE" | "HEAD";
  /** Null for the bucket or container itself. */
  readonly key: string | null;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  /** For errors. */
  readonly what: string;
  readonly signal?: AbortSignal;
}

export interface ObjectRequestsOptions {
  readonly clock: Clock;
  readonly maxConcurrent: number;
  readonly timeoutMs: number;
  /** Signs and sends; the response with its body not read yet. */
  readonly send: (request: ObjectRequest, signal: AbortSignal) => Promise<Response>;
}

export const DEFAULT_TIMEOUT_MS = 120_000;
/** The longest are lists: a page of 5000 names of a kilobyte each, with what is said of them, is a third of it. */
const ANSWER_MAX_BYTES = 32 * 1024 * 1024;
const ERROR_MAX_BYTES = 64 * 1024;

export class ObjectRequests {
  readonly #options: ObjectRequestsOptions;
  readonly #limit: ConcurrencyLimit;

  constructor(options: ObjectRequestsOptions) {
    this.#options = options;
    this.#limit = new ConcurrencyLimit(options.maxConcurrent);
  }

  async #send(request: ObjectRequest, timeout: RequestTimeout): Promise<Response> {
    try {
      return await this.#options.send(request, timeout.signal);
    } catch (error) {
      throw requestFailed(request.what, error, request.signal);
    }
  }

  /** A request whose answer is short. @throws StrataError by status */
  run(request: ObjectRequest): Promise<{ readonly text: string; readonly headers: Headers }> {
    return this.#limit.run(async () => {
      request.signal?.throwIfAborted();
      const timeout = new RequestTimeout(this.#options.clock, this.#options.timeoutMs, request.signal);
      try {
        const response = await this.#send(request, timeout);
        const text = await answerText(response, { ...request, maxBytes: ANSWER_MAX_BYTES });
        checkStatus(response.status, { what: request.what, key: request.key, text, headers: response.headers });
        return { text, headers: response.headers };
      } finally {
        timeout.end();
      }
    }, request.signal);
  }

  /** Counts against the concurrency limit until its body has ended. @param options.rangeHeader the store's name for it */
  async download(key: string, options: { readonly range?: ByteRange; readonly rangeHeader: string; readonly signal?: AbortSignal }): Promise<Download> {
    checkObjectKey(key);
    const what = `download of ${key}`;
    const { range, rangeHeader, signal } = options;
    if (range?.end !== undefined && range.end <= range.start) throw new StrataError("fix-input", "bad-range", `empty range of object ${key}`);
    const headers: Record<string, string> = range === undefined ? {} : { [rangeHeader]: `bytes=${range.start}-${range.end === undefined ? "" : range.end - 1}` };
    const release = await this.#limit.take(signal);
    const timeout = new RequestTimeout(this.#options.clock, this.#options.timeoutMs, signal);
    const end = () => {
      timeout.end();
      release();
    };
    try {
      const response = await this.#send({ method: "GET", key, headers, what, signal }, timeout);
      if (response.status !== 200 && response.status !== 206) checkStatus(response.status, { what, key, text: await answerText(response, { what, signal, maxBytes: ERROR_MAX_BYTES }), headers: response.headers });
      const sizeBytes = Number(response.headers.get("content-length") ?? Number.NaN);
      if (!Number.isSafeInteger(sizeBytes)) throw storageUnavailable(`${what}: no length in the answer`);
      return { sizeBytes, body: bodyWithEnd(responseChunks(response, { what, signal, progress: () => timeout.restart() }), async () => end()) };
    } catch (error) {
      end();
      throw error;
    }
  }
}

/** What is to be uploaded, in parts: of a file only the part that is asked for is in memory. */
export interface UploadParts {
  readonly sizeBytes: number;
  /** Bytes [start, end). */
  part(start: number, end: number): Promise<Uint8Array>;
}

/** @throws StrataError corrupt `file-too-short`; not-found `file-not-found` */
export async function withUploadParts<T>(files: FileSystem, source: UploadSource, work: (parts: UploadParts) => Promise<T>): Promise<T> {
  if ("bytes" in source) return await work({ sizeBytes: source.bytes.length, part: (start, end) => Promise.resolve(source.bytes.subarray(start, end)) });
  const file = await files.open(source.filePath, "read");
  try {
    return await work({
      sizeBytes: source.sizeBytes,
      part: async (start, end) => {
        const bytes = allocateBytes(end - start);
        const got = await file.read(bytes, start);
        if (got < bytes.length) throw new StrataError("corrupt", "file-too-short", `${file.path} ends at ${start + got}, ${end} bytes wanted`);
        return bytes;
      },
    });
  } finally {
    await file.close();
  }
}
