/**
 * The receiver of events over HTTP: one POST a request's worth, tried again while it fails in a way that may pass.
 *
 * Source: the peer pageserver/src/consumption_metrics/upload.rs.
 */
import { StrataError } from "../../kit/errors.ts";
import { retry } from "../../kit/retry.ts";
import type { Transport } from "../../http/client.ts";
import type { Logger } from "../../observability/log.ts";
import type { Platform } from "../../platform/platform.ts";

/** `unanswered`: it may have been received, or not. */
export type Answer = "accepted" | "refused" | "unanswered";

export interface MetricsEndpointOptions {
  readonly url: string;
  readonly platform: Pick<Platform, "clock" | "random">;
  readonly log: Logger;
  readonly transport: Transport;
  /** Certificate authority to trust instead of the system's. */
  readonly caPem?: string | undefined;
}

export const POST_ATTEMPTS = 10;
const TIMEOUT_MS = 60_000;
const PAUSE = { baseMs: 100, maxMs: 3_000 };
/** Single failures are everyday. */
const WARN_FROM_ATTEMPT = 4;

export class MetricsEndpoint {
  readonly #options: MetricsEndpointOptions;
  readonly #url: string;
  readonly #headers: Readonly<Record<string, string>>;

  constructor(options: MetricsEndpointOptions) {
    this.#options = options;
    const url = new URL(options.url);
    // A name and password in the address are sent as what they are meant for; `fetch` refuses them where they stand.
    const { username, password } = url;
    url.username = "";
    url.password = "";
    this.#url = url.href;
    this.#headers = username === "" ? {} : { authorization: `Basic ${Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString("base64")}` };
  }

  /** Never throws. @param request.isLast of the requests of one round */
  async post(body: string, request: { readonly isLast: boolean; readonly maxAttempts: number; readonly signal: AbortSignal }): Promise<Answer> {
    const { platform, log } = this.#options;
    try {
      await retry(() => this.#post(body, request), {
        ...platform, ...PAUSE, maxAttempts: request.maxAttempts, signal: request.signal,
        onRetry: ({ error, attempt }) => (attempt + 1 >= WARN_FROM_ATTEMPT ? log.warn : log.info).call(log, "consumption metrics were not taken, they are sent again", { attempt: attempt + 1, error }),
      });
      return "accepted";
    } catch (error) {
      if (request.signal.aborted) return "unanswered";
      const isRefused = error instanceof StrataError && error.code === "metrics-refused";
      log.warn(isRefused ? "consumption metrics were refused" : "consumption metrics got no answer; the same are sent in the next round", { error });
      return isRefused ? "refused" : "unanswered";
    }
  }

  async #post(body: string, { isLast, signal }: { readonly isLast: boolean; readonly signal: AbortSignal }): Promise<void> {
    const { transport, caPem, platform: { clock } } = this.#options;
    const abort = new AbortController();
    const timer = clock.after(TIMEOUT_MS, () => abort.abort());
    const init = {
      // To where it points, what was a POST may come as a GET, and be answered 200.
      method: "POST", redirect: "manual" as const, body, signal: AbortSignal.any([signal, abort.signal]),
      headers: { ...this.#headers, "content-type": "application/json", "pageserver-metrics-last-upload-in-batch": String(isLast) },
      ...(caPem === undefined ? {} : { tls: { ca: caPem } }),
    };
    let reply: Response;
    try {
      reply = await transport(this.#url, init);
      // What it says beyond the status nobody needs.
      await reply.body?.cancel();
    } catch (cause) {
      signal.throwIfAborted();
      throw unavailable(abort.signal.aborted ? `no answer in ${TIMEOUT_MS} ms` : "the receiver cannot be reached", cause);
    } finally {
      timer.cancel();
    }
    checkStatus(reply);
  }
}

function checkStatus({ status, headers }: Response): void {
  if (status >= 200 && status < 300) return;
  if (status >= 500 || status === 408 || status === 429) throw unavailable(`status ${status}`);
  const elsewhere = status < 400 ? `, which points to ${headers.get("location")?.slice(0, 200) ?? "no place"}` : "";
  throw new StrataError("fix-input", "metrics-refused", `metric_collection_endpoint: status ${status}${elsewhere}`);
}

function unavailable(what: string, cause?: unknown): StrataError {
  return new StrataError("unavailable", "metrics-endpoint-unavailable", `metric_collection_endpoint: ${what}`, { cause });
}
