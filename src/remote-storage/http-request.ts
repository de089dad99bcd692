/** What requests to object stores over HTTP have in common: time limits, statuses as errors, bodies as streams. */
import { isStrataError, StrataError } from "../kit/errors.ts";
import type { Clock, Timer } from "../platform/clock.ts";
import { objectNotFound, storageUnavailable } from "./remote-storage.ts";

/** The part of the runtime's `fetch` that is used; passed in. */
export type HttpFetch = (url: string, init: { method: string; headers: Headers; body?: Uint8Array; signal: AbortSignal }) => Promise<Response>;

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

/** @throws StrataError for any status but success */
export function checkStatus(status: number, answer: { readonly what: string; readonly key: string; readonly text: string }): void {
  if (status >= 200 && status < 300) return;
  const { what, key, text } = answer;
  const told = `${what}: status ${status}: ${text.slice(0, 300)}`;
  if (status === 404) throw objectNotFound(key, new Error(told));
  if (status === 416) throw new StrataError("fix-input", "bad-range", told);
  if (status === 401 || status === 403) throw new StrataError("forbidden", "storage-forbidden", told);
  if (status === 405 || status === 501) throw new StrataError("fix-input", "storage-not-capable", told);
  if (status === 408 || status === 429 || status >= 500) throw storageUnavailable(told);
  throw new StrataError("fix-input", "storage-refused", told);
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
