/** What requests to object stores over HTTP have in common: time limits, statuses as errors, bodies as streams. */
import { isStrataError, StrataError } from "../kit/errors.ts";
import type { Clock, Timer } from "../platform/clock.ts";
import { objectNotFound, storageUnavailable } from "./remote-storage.ts";
import { xmlBlocks, xmlText } from "./xml.ts";

/** The part of the runtime's `fetch` that is used; passed in. */
export type HttpFetch = (url: string, init: { method: string; headers: Headers; body?: Uint8Array; signal: AbortSignal; redirect: "manual" }) => Promise<Response>;

/** Aborts when the caller does, or when nothing has come for the given time. */
export class RequestTimeout {
  readonly #abort = new AbortController();
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #caller: AbortSignal | undefined;
  readonly #onCallerAbort = () => this.#abort.abort(this.#caller?.reason);
  #timer: Timer;

  constructor(clock: Clock, timeoutMs: number, caller?: AbortSignal) {
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
    this.#caller = caller;
    caller?.addEventListener("abort", this.#onCallerAbort, { once: true });
    this.#timer = this.#arm();
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  #arm(): Timer {
    return this.#clock.after(this.#timeoutMs, () => this.#abort.abort(storageUnavailable(`nothing came for ${this.#timeoutMs} ms`)));
  }

  restart(): void {
    this.#timer.cancel();
    this.#timer = this.#arm();
  }

  end(): void {
    this.#timer.cancel();
    this.#caller?.removeEventListener("abort", this.#onCallerAbort);
  }
}

/** The error of a request that got no answer: the caller's reason if it gave up, else one to be tried again. */
export function requestFailed(what: string, error: unknown, caller: AbortSignal | undefined): unknown {
  if (caller?.aborted === true) return caller.reason;
  if (isStrataError(error)) return error;
  return storageUnavailable(`${what} failed`, error);
}

/** What a store itself calls the error: S3 and Azure say it in the body, Azure in a header as well, where HEAD has no body. */
export function storeErrorCode(headers: Headers, text: string): string | null {
  const [error] = xmlBlocks(text, "Error");
  return headers.get("x-ms-error-code") ?? (error === undefined ? null : xmlText(error, "Code"));
}

/** The bucket or container, not the object. */
const BUCKET_MISSING = new Set(["NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled"]);
/** Not of the object either: parts of an upload that somebody has dropped since. The upload begins anew. */
const UPLOAD_MISSING = new Set(["NoSuchUpload"]);
/** Told with a status that says it is the caller's mistake, and over by the next time. */
const PASSING = new Set(["RequestTimeout", "RequestTimeoutException", "SlowDown", "Throttling", "ThrottlingException", "OperationAborted", "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "Md5Mismatch", "IncompleteBody"]);
const CREDENTIALS_OVER = new Set(["ExpiredToken", "TokenRefreshRequired", "InvalidToken"]);

/** @throws StrataError for any status but success */
export function checkStatus(status: number, answer: { readonly what: string; readonly key: string | null; readonly text: string; readonly headers: Headers }): void {
  if (status >= 200 && status < 300) return;
  const { what, key, text, headers } = answer;
  const code = storeErrorCode(headers, text);
  const told = `${what}: status ${status}: ${text.slice(0, 300)}`;
  if (status === 404) throw whatIsMissing(code, key, told);
  if (code !== null && (PASSING.has(code) || BUCKET_MISSING.has(code))) throw storageUnavailable(told);
  if (status === 416) throw new StrataError("fix-input", "bad-range", told);
  if (status === 401 || status === 403 || (code !== null && CREDENTIALS_OVER.has(code))) throw new StrataError("forbidden", "storage-forbidden", told);
  if (status === 405 || status === 501) throw new StrataError("fix-input", "storage-not-capable", told);
  if (status === 408 || status === 409 || status === 429 || status >= 500) throw storageUnavailable(told);
  throw new StrataError("fix-input", "storage-refused", told);
}

/**
 * Only a store that says so of an object makes it missing. A bucket that is not there (yet, or under this name), a gateway that knows
 * no such page: taken for missing objects, they would make a timeline look as if it had never been.
 */
function whatIsMissing(code: string | null, key: string | null, told: string): StrataError {
  if (code !== null && UPLOAD_MISSING.has(code)) return storageUnavailable(told);
  if (key === null || code === null || BUCKET_MISSING.has(code)) return new StrataError("unavailable", "storage-bucket-missing", `the bucket is not there: ${told}`);
  return objectNotFound(key, new Error(told));
}

/** A whole answer, which is not to be long. @throws StrataError unavailable `storage-unavailable`, of one that is too long as well */
export async function answerText(response: Response, options: { readonly what: string; readonly signal?: AbortSignal; readonly maxBytes: number }): Promise<string> {
  const { what, signal, maxBytes } = options;
  const decoder = new TextDecoder();
  let text = "";
  let sizeBytes = 0;
  // Giving up refuses the rest.
  for await (const chunk of responseChunks(response, { what, signal, progress: () => {} })) {
    sizeBytes += chunk.length;
    if (sizeBytes > maxBytes) throw storageUnavailable(`${what}: status ${response.status}, and more than ${maxBytes} bytes to say of it`);
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

/** Chunks of a response; what was not read is refused when the reader gives up. */
export async function* responseChunks(response: Response, options: { readonly what: string; readonly signal?: AbortSignal; readonly progress: () => void }): AsyncGenerator<Uint8Array> {
  try {
    if (response.body === null) return;
    for await (const chunk of response.body) {
      options.progress();
      yield chunk;
    }
  } catch (error) {
    throw requestFailed(options.what, error, options.signal);
  }
}
