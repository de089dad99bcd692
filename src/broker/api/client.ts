/**
 * Client of the storage broker, for Bun and Node.
 *
 * ```ts
 * const client = connectBroker({ endpoint: "http://127.0.0.1:50051" });
 * await client.subscribe({ types: [MESSAGE_TYPE_TIMELINE_INFO], timeline: null }, (m) => console.log(m), signal);
 * ```
 *
 * Nothing here reconnects: a stream that ends rejects, and its owner starts another after a pause of its choosing
 * (the broker keeps no state worth resuming).
 */
import type { PeerCertificate } from "node:tls";
import { type ChannelCredentials, type ChannelOptions, Client, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { Cancelled, StrataError } from "../../kit/errors.ts";
import { certificateMismatch, isIpAddress } from "../../platform/server-identity.ts";
import { type BrokerFilter, type BrokerMessage, decodeMessage, encodeMessage, encodeTimelineInfo, type SafekeeperTimelineInfo } from "./messages.ts";
import { encodeFilterRequest } from "./requests.ts";
import { BROKER_METHODS } from "./service.ts";

export interface TimelineInfoPublisher {
  /** Queues one info; false when the stream's buffer is full (the caller should skip a round). */
  publish(info: SafekeeperTimelineInfo): boolean;
  /** Settles when the stream ends: resolves after `end`, rejects when it broke. */
  readonly ended: Promise<void>;
  end(): void;
}

/** What roles ask of a broker. The simulator implements it without a network of gRPC. */
export interface BrokerClient {
  /** Calls `onMessage` for each message until the stream ends. @throws Cancelled on abort, StrataError unavailable `broker-stream-ended` */
  subscribe(filter: BrokerFilter, onMessage: (message: BrokerMessage) => void, signal: AbortSignal): Promise<void>;
  publisher(): TimelineInfoPublisher;
  publishOne(message: BrokerMessage): Promise<void>;
  close(): void;
}

export interface BrokerClientOptions {
  /** `http://host:port` or `https://host:port`. */
  readonly endpoint: string;
  /** JWT, where the broker asks for one. */
  readonly token?: string | undefined;
  /** PEM of the certificate authority, for https. */
  readonly caPem?: string | undefined;
  /** HTTP/2 keepalive interval; the peer's default. */
  readonly keepaliveIntervalMs?: number;
}

const PUBLISH_ONE_TIMEOUT_MS = 10_000;

function brokerError(error: ServiceError): Error {
  if (error.code === status.CANCELLED) return new Cancelled("broker call cancelled");
  const kind = error.code === status.UNAUTHENTICATED ? "unauthenticated"
    : error.code === status.PERMISSION_DENIED ? "forbidden"
    : error.code === status.INVALID_ARGUMENT ? "fix-input" : "unavailable";
  return new StrataError(kind, "broker-call-failed", `broker: ${error.details}`, { cause: error });
}

interface Channel {
  readonly credentials: ChannelCredentials;
  readonly options: ChannelOptions;
}

/**
 * TLS names a server by its host name only (RFC 6066): the library would send an address as one, which runtimes refuse. So a
 * server that is known by its address is sent a name that says nothing, and its certificate is looked through for the address.
 */
const NAMELESS = "broker.invalid";

function channelTo(url: URL, options: BrokerClientOptions): Channel {
  if (url.protocol === "http:") return { credentials: credentials.createInsecure(), options: {} };
  if (url.protocol !== "https:") throw new StrataError("fix-input", "bad-broker-endpoint", `broker endpoint "${options.endpoint}" is neither http nor https`);
  const ca = options.caPem === undefined ? null : Buffer.from(options.caPem);
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const checkServerIdentity = (_name: string, certificate: PeerCertificate): Error | undefined => certificateMismatch(host, certificate);
  return {
    credentials: credentials.createSsl(ca, null, null, { checkServerIdentity }),
    options: isIpAddress(host) ? { "grpc.ssl_target_name_override": NAMELESS } : {},
  };
}

/** Connects lazily. @throws StrataError fix-input `bad-broker-endpoint` */
export function connectBroker(options: BrokerClientOptions): BrokerClient {
  if (!URL.canParse(options.endpoint)) throw new StrataError("fix-input", "bad-broker-endpoint", `broker endpoint "${options.endpoint}" is not a URL`);
  const url = new URL(options.endpoint);
  const channel = channelTo(url, options);
  // The library's own default is 443 for either.
  const port = url.port !== "" ? url.port : url.protocol === "https:" ? "443" : "80";
  const client = new Client(`${url.hostname}:${port}`, channel.credentials, {
    ...channel.options,
    "grpc.keepalive_time_ms": options.keepaliveIntervalMs ?? 5000,
    "grpc.keepalive_timeout_ms": 20_000,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2000,
  });
  return new GrpcBrokerClient(client, options.token);
}

class GrpcBrokerClient implements BrokerClient {
  readonly #client: Client;
  readonly #metadata: Metadata;

  constructor(client: Client, token: string | undefined) {
    this.#client = client;
    this.#metadata = new Metadata();
    if (token !== undefined) this.#metadata.set("authorization", `Bearer ${token}`);
  }

  subscribe(filter: BrokerFilter, onMessage: (message: BrokerMessage) => void, signal: AbortSignal): Promise<void> {
    const { path, requestSerialize, responseDeserialize } = BROKER_METHODS.subscribeByFilter;
    return new Promise((_resolve, reject) => {
      if (signal.aborted) return reject(new Cancelled());
      const call = this.#client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, encodeFilterRequest(filter), this.#metadata);
      const abort = (): void => call.cancel();
      signal.addEventListener("abort", abort, { once: true });
      const fail = (error: Error): void => {
        signal.removeEventListener("abort", abort);
        reject(signal.aborted ? new Cancelled() : error);
      };
      call.on("data", (bytes: Buffer) => {
        try {
          onMessage(decodeMessage(bytes));
        } catch (error) {
          call.cancel();
          fail(error as Error);
        }
      });
      call.on("error", (error: ServiceError) => fail(brokerError(error)));
      call.on("end", () => fail(new StrataError("unavailable", "broker-stream-ended", "the broker ended the subscription")));
    });
  }

  publisher(): TimelineInfoPublisher {
    const { path, requestSerialize, responseDeserialize } = BROKER_METHODS.publishSafekeeperInfo;
    let settle: (error: ServiceError | null) => void = () => undefined;
    const ended = new Promise<void>((resolve, reject) => {
      settle = (error) => (error === null ? resolve() : reject(brokerError(error)));
    });
    const call = this.#client.makeClientStreamRequest(path, requestSerialize, responseDeserialize, this.#metadata, (error) => settle(error));
    let writable = true;
    call.on("drain", () => (writable = true));
    // Errors arrive through the callback above; without a listener the stream would throw them.
    call.on("error", () => undefined);
    ended.catch(() => (writable = false));
    return {
      publish(info) {
        if (!writable) return false;
        writable = call.write(encodeTimelineInfo(info));
        return true;
      },
      ended,
      end: () => call.end(),
    };
  }

  publishOne(message: BrokerMessage): Promise<void> {
    const { path, requestSerialize, responseDeserialize } = BROKER_METHODS.publishOne;
    return new Promise((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(path, requestSerialize, responseDeserialize, encodeMessage(message), this.#metadata, (error) => {
        timeout.removeEventListener("abort", cancel);
        if (error) reject(timeout.aborted ? new StrataError("retry", "broker-timeout", `the broker did not answer within ${PUBLISH_ONE_TIMEOUT_MS} ms`, { cause: error }) : brokerError(error));
        else resolve();
      });
      const timeout = AbortSignal.timeout(PUBLISH_ONE_TIMEOUT_MS);
      const cancel = (): void => call.cancel();
      timeout.addEventListener("abort", cancel, { once: true });
    });
  }

  close(): void {
    this.#client.close();
  }
}
