/**
 * A JSON-over-HTTP client for the roles' typed clients: a deadline on every request, replies checked against a schema,
 * error replies turned back into the errors they were made from.
 *
 *   const http = new HttpClient({ baseUrl, token, clock });
 *   const status = await http.json({ method: "GET", path: "/v1/status" }, statusSchema);
 */
import type { z } from "zod";
import { Cancelled, isStrataError, StrataError } from "../kit/errors.ts";
import type { Clock } from "../platform/clock.ts";
import { errorFromReply } from "./errors.ts";

export type Transport = (url: string, init: RequestInit) => Promise<Response>;

export interface HttpClientOptions {
  /** `http://host:port`, without a trailing slash. */
  readonly baseUrl: string;
  readonly clock: Clock;
  /** Bearer token, asked for at each request so that it can change. */
  readonly token?: string | (() => string | undefined);
  /** 30 s unless given. */
  readonly timeoutMs?: number;
  /** Certificate authority to trust instead of the system's. */
  readonly caPem?: string | undefined;
  /** In place of the network: for tests and the simulator. */
  readonly transport?: Transport;
}

export interface HttpRequest {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Begins with a slash; build it with `urlPath` when it holds names from outside. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>;
  /** Sent as JSON. */
  readonly json?: unknown;
  /** Sent as it is. */
  readonly bytes?: Uint8Array;
  readonly headers?: Readonly<Record<string, string>>;
  /** From the first byte sent to the end of the reply (of its head, for `raw`). */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Further attempts after a connection error (never after a reply). 0 unless given. */
  readonly connectRetries?: number;
}

const DEFAULT_TIMEOUT_MS = 30_000;
const RETRY_BASE_MS = 50;
const RETRY_MAX_MS = 2_000;

export class HttpClient {
  readonly #options: HttpClientOptions;

  constructor(options: HttpClientOptions) {
    this.#options = options;
  }

  get baseUrl(): string {
    return this.#options.baseUrl;
  }

  /**
   * @throws StrataError as the server reported it; unavailable `connect-failed`, retry `request-timeout`, corrupt `bad-reply`
   * @throws Cancelled when the caller's signal aborts
   */
  async json<S extends z.ZodType>(request: HttpRequest, schema: S): Promise<z.output<S>> {
    return this.#attempt(request, async (reply) => {
      const what = describe(request);
      let value: unknown;
      try {
        value = await reply.json();
      } catch (cause) {
        throw new StrataError("corrupt", "bad-reply", `${what}: the reply is not JSON`, { cause });
      }
      const parsed = schema.safeParse(value);
      if (!parsed.success) throw new StrataError("corrupt", "bad-reply", `${what}: the reply has another shape`, { cause: parsed.error });
      return parsed.data;
    });
  }

  /** For replies whose body does not matter. Errors as `json`. */
  async empty(request: HttpRequest): Promise<void> {
    await this.#attempt(request, (reply) => reply.arrayBuffer());
  }

  /** The whole body. Errors as `json`. */
  async bytes(request: HttpRequest): Promise<Uint8Array> {
    return this.#attempt(request, (reply) => reply.bytes());
  }

  /** The reply as it comes, its body unread and without a deadline; only connection errors throw. */
  async raw(request: HttpRequest): Promise<Response> {
    return this.#withDeadline(request, (signal) => this.#send(request, signal));
  }

  async #attempt<T>(request: HttpRequest, read: (reply: Response) => Promise<T>): Promise<T> {
    return this.#withDeadline(request, async (signal) => {
      const reply = await this.#send(request, signal);
      if (reply.status >= 400) throw await errorFromReply(reply, describe(request));
      return read(reply);
    });
  }

  async #withDeadline<T>(request: HttpRequest, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const timeoutMs = request.timeoutMs ?? this.#options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    const controller = new AbortController();
    const onAbort = (): void => controller.abort();
    const cancelled = (): boolean => request.signal?.aborted === true;
    if (cancelled()) throw new Cancelled(`${describe(request)} cancelled`);
    request.signal?.addEventListener("abort", onAbort, { once: true });
    const timer = this.#options.clock.after(timeoutMs, onAbort);
    try {
      return await work(controller.signal);
    } catch (error) {
      if (cancelled()) throw new Cancelled(`${describe(request)} cancelled`);
      if (!controller.signal.aborted || isStrataError(error)) throw error;
      throw new StrataError("retry", "request-timeout", `${describe(request)} took longer than ${timeoutMs} ms`, { cause: error });
    } finally {
      timer.cancel();
      request.signal?.removeEventListener("abort", onAbort);
    }
  }

  async #send(request: HttpRequest, signal: AbortSignal): Promise<Response> {
    const { url, init } = this.#prepare(request, signal);
    const transport = this.#options.transport ?? systemTransport;
    for (let attempt = 0; ; attempt++) {
      try {
        return await transport(url, init);
      } catch (cause) {
        if (signal.aborted) throw cause;
        if (attempt >= (request.connectRetries ?? 0)) {
          throw new StrataError("unavailable", "connect-failed", `${describe(request)}: cannot reach ${this.#options.baseUrl}`, { cause });
        }
        await this.#options.clock.sleep(Math.min(RETRY_MAX_MS, RETRY_BASE_MS * 2 ** attempt), signal);
      }
    }
  }

  #prepare(request: HttpRequest, signal: AbortSignal): { url: string; init: RequestInit } {
    const headers: Record<string, string> = { ...request.headers };
    const token = typeof this.#options.token === "function" ? this.#options.token() : this.#options.token;
    if (token !== undefined) headers.authorization = `Bearer ${token}`;
    if (request.json !== undefined) headers["content-type"] = "application/json";
    const body = request.json === undefined ? (request.bytes as Uint8Array<ArrayBuffer> | undefined) : JSON.stringify(request.json);
    const query = queryString(request.query);
    const init: RequestInit = {
      method: request.method,
      headers,
      signal,
      redirect: "manual",
      ...(body === undefined ? {} : { body }),
      ...(this.#options.caPem === undefined ? {} : { tls: { ca: this.#options.caPem } }),
    };
    return { url: this.#options.baseUrl + request.path + query, init };
  }
}

/** A path from literal parts and escaped values: urlPath`/v1/tenant/${id}`. */
export function urlPath(parts: TemplateStringsArray, ...values: readonly (string | number)[]): string {
  return parts.map((part, index) => (index < values.length ? part + encodeURIComponent(String(values[index])) : part)).join("");
}

/** The runtime's own five-minute limit is off: deadlines are ours. */
const systemTransport: Transport = (url, init) => fetch(url, { ...init, timeout: false } as RequestInit);

function describe(request: HttpRequest): string {
  return `${request.method} ${request.path}`;
}

function queryString(query: HttpRequest["query"]): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined) params.set(name, String(value));
  }
  return params.size === 0 ? "" : `?${params}`;
}
