/**
 * Worker threads of this process. A thread starts with its first job, and a new one takes the place of one that died. Both `error`
 * and `close` are listened to: a thread that ends by an unhandled rejection says nothing else.
 */
import { type ErrorDetails, type ErrorKind, StrataError, describeError } from "../../kit/errors.ts";
import type { JobCancel, JobThreads } from "../job-threads.ts";

interface Request {
  readonly input: unknown;
  /** Not 0: nobody wants the answer. */
  readonly cancelled: Int32Array;
}

type Reply = { readonly output: unknown } | { readonly error: ThrownError };

/** An error as plain data; without a kind it is none of ours, and its stack says where it comes from. */
type ThrownError =
  | { readonly kind: ErrorKind; readonly code: string; readonly message: string; readonly details: ErrorDetails }
  | { readonly kind: null; readonly message: string; readonly stack: string };

class Thread {
  readonly #url: string;
  #worker: Worker | null = null;
  #job: PromiseWithResolvers<unknown> | null = null;

  constructor(url: string) {
    this.#url = url;
  }

  get isBusy(): boolean {
    return this.#job !== null;
  }

  run(request: Request): Promise<unknown> {
    const job = Promise.withResolvers<unknown>();
    this.#job = job;
    try {
      this.#worker ??= this.#start();
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has none
      this.#worker.postMessage(request);
    } catch (error) {
      job.reject(error);
    }
    return job.promise.finally(() => {
      this.#job = null;
    });
  }

  #start(): Worker {
    const worker = new Worker(this.#url);
    worker.addEventListener("message", (event: MessageEvent<Reply>) => {
      if ("output" in event.data) this.#job?.resolve(event.data.output);
      else this.#job?.reject(errorOf(event.data.error));
    });
    const died = (why: string): void => {
      if (this.#worker !== worker) return;
      this.#worker = null;
      this.#job?.reject(new StrataError("unavailable", "worker-ended", `a worker thread ended: ${why}`));
    };
    worker.addEventListener("error", (event) => died(event.message));
    worker.addEventListener("close", () => died("without a reason"));
    // It alone does not keep a finished program alive.
    (worker as { unref?: () => void }).unref?.();
    return worker;
  }

  end(): void {
    const worker = this.#worker;
    this.#worker = null;
    worker?.terminate();
    this.#job?.reject(new StrataError("unavailable", "worker-ended", "worker threads are shut down"));
  }
}

export class RealJobThreads implements JobThreads {
  readonly #threads: readonly Thread[];
  /** Who waits for a thread, in the order of asking. */
  readonly #waiting: (() => void)[] = [];
  #closed = false;

  /** @param url the entry point */
  constructor(url: string, count: number) {
    this.#threads = Array.from({ length: count }, () => new Thread(url));
  }

  async run(input: unknown, signal?: AbortSignal): Promise<unknown> {
    signal?.throwIfAborted();
    this.#assertOpen();
    let thread = this.#threads.find((one) => !one.isBusy);
    while (thread === undefined) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
      if (signal?.aborted === true) this.#waiting.shift()?.();
      signal?.throwIfAborted();
      this.#assertOpen();
      thread = this.#threads.find((one) => !one.isBusy);
    }
    const cancelled = new Int32Array(new SharedArrayBuffer(4));
    const onAbort = (): void => void Atomics.store(cancelled, 0, 1);
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      if (signal?.aborted === true) onAbort();
      return await thread.run({ input, cancelled });
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    } finally {
      signal?.removeEventListener("abort", onAbort);
      this.#waiting.shift()?.();
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const thread of this.#threads) thread.end();
    for (const next of this.#waiting.splice(0)) next();
  }

  #assertOpen(): void {
    if (this.#closed) throw new StrataError("unavailable", "worker-ended", "worker threads are shut down");
  }
}

/** What an entry point does with each message. */
export function serveJobs(work: (input: unknown, cancel: JobCancel) => Promise<unknown>): void {
  const port = globalThis as unknown as { addEventListener(type: "message", listener: (event: MessageEvent<Request>) => void): void; postMessage(reply: Reply): void };
  port.addEventListener("message", ({ data }) => {
    const cancel: JobCancel = {
      throwIfAborted() {
        if (Atomics.load(data.cancelled, 0) !== 0) throw new StrataError("unavailable", "job-cancelled", "nobody wants this job any more");
      },
    };
    work(data.input, cancel)
      .then(
        (output) => port.postMessage({ output }),
        (error: unknown) => port.postMessage({ error: thrown(error) }),
      )
      // Shared memory is free only when every thread has let go of it, and a thread without work does not collect by itself.
      .finally(() => setTimeout(() => Bun.gc(true), 0));
  });
}

function thrown(error: unknown): ThrownError {
  const message = describeError(error);
  if (error instanceof StrataError) return { kind: error.kind, code: error.code, message, details: { ...error.details } };
  return { kind: null, message, stack: error instanceof Error ? (error.stack ?? "") : "" };
}

function errorOf(told: ThrownError): Error {
  if (told.kind === null) return Object.assign(new Error(told.message), { stack: told.stack });
  return new StrataError(told.kind, told.code, told.message, { details: told.details });
}
