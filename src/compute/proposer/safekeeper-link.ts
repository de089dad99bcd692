/**
 * The connection to one safekeeper, made again whenever it breaks: carries the core's messages, tells the core what comes
 * back, and feeds WAL while the core says there is some to send. One link per slot, all owned by a `Candidacy`.
 */
import { Cancelled, StrataError } from "../../kit/errors.ts";
import type { Logger } from "../../observability/log.ts";
import type { AcceptorMessage, ProposerMessage } from "../../safekeeper/api/proposer-messages.ts";
import { MAX_APPEND_BYTES, decodeAcceptorMessage, encodeAppendHeader, encodeProposerMessage, GUARDED_VOTES } from "../../safekeeper/api/proposer-protocol.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { ClientCopyStream } from "../../wire/client-copy-stream.ts";
import type { PgClient } from "../../wire/client.ts";
import type { ProposerCore } from "./core.ts";
import { type NetworkPlatform, type SafekeeperAddress, type TimelineConnection, connectSafekeeper, startWalPush } from "./safekeeper-client.ts";

const PROTOCOL_VERSION = 3;
const RECONNECT_MIN_MS = 100;
const RECONNECT_MAX_MS = 3_000;
/** Heartbeats are answered every second; silence beyond this is a half-open connection. */
const SILENCE_MS = 10_000;
const NOTHING = new Uint8Array(0);

export interface LinkOptions {
  readonly slot: number;
  readonly address: SafekeeperAddress;
  readonly core: ProposerCore;
  readonly platform: NetworkPlatform;
  readonly timeline: TimelineConnection;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** WAL for this safekeeper: at least one byte, at most `maxBytes`. At once when it is in memory. */
  readonly readWal: (lsn: Lsn, maxBytes: number) => Uint8Array | Promise<Uint8Array>;
  /** What the safekeeper said. */
  readonly receive: (message: AcceptorMessage) => void;
  /** Runs what the core answered. */
  readonly carryOut: (effects: ReturnType<ProposerCore["received"]>) => void;
}

export class SafekeeperLink {
  readonly #options: LinkOptions;
  #client: PgClient | null = null;
  #stream: ClientCopyStream | null = null;
  #wake: (() => void) | null = null;
  #heardMs = 0;
  #dropped: StrataError | null = null;
  #lastError: unknown = null;

  constructor(options: LinkOptions) {
    this.#options = options;
  }

  /** Why the latest connection failed; null while it works. */
  get lastError(): unknown {
    return this.#lastError;
  }

  /** Connects, and connects again, until the signal aborts. */
  async run(): Promise<void> {
    const { signal, platform, log, address, timeline: { tenantId, timelineId } } = this.#options;
    let delayMs = RECONNECT_MIN_MS;
    while (!signal.aborted) {
      const startedMs = platform.clock.monotonicMs();
      try {
        await this.#session();
      } catch (error) {
        if (signal.aborted || error instanceof Cancelled) break;
        if (platform.clock.monotonicMs() - startedMs > RECONNECT_MAX_MS) delayMs = RECONNECT_MIN_MS;
        this.#lastError = error;
        const level = delayMs >= RECONNECT_MAX_MS ? "warn" : "info";
        log[level]("safekeeper connection lost", { tenantId, timelineId, safekeeper: `${address.host}:${address.port}`, retryMs: delayMs, error });
      }
      await platform.clock.sleep(delayMs, signal).catch(() => {});
      delayMs = Math.min(RECONNECT_MAX_MS, delayMs * 2);
    }
  }

  send(message: ProposerMessage): void {
    this.#stream?.write(encodeProposerMessage(message, PROTOCOL_VERSION));
  }

  /** Ends the connection; the next one begins after a pause. */
  drop(error: StrataError): void {
    this.#dropped = error;
    this.#client?.destroy();
  }

  /** There may be something to send. */
  wake(): void {
    this.#wake?.();
  }

  /** Called with every heartbeat. */
  checkAlive(): void {
    const { platform, core, slot } = this.#options;
    const { state } = core.slotStatus(slot);
    // Nothing is owed to us while others are waited for.
    if (state === "waiting" || state === "voted") this.#heardMs = platform.clock.monotonicMs();
    if (this.#client === null || platform.clock.monotonicMs() - this.#heardMs < SILENCE_MS) return;
    this.drop(new StrataError("unavailable", "safekeeper-silent", `nothing heard for ${SILENCE_MS} ms`));
  }

  async #session(): Promise<void> {
    const { core, slot, platform, address, timeline, signal, carryOut } = this.#options;
    this.#dropped = null;
    const client = await connectSafekeeper(platform, address, { ...timeline, signal });
    this.#client = client;
    this.#heardMs = platform.clock.monotonicMs();
    const abort = (): void => client.destroy();
    signal.addEventListener("abort", abort, { once: true });
    try {
      this.#stream = await startWalPush(client);
      this.#heardMs = platform.clock.monotonicMs();
      carryOut(core.connected(slot, client.parameterStatus.get(GUARDED_VOTES) === "on"));
      await this.#receive(this.#stream);
    } catch (error) {
      throw this.#dropped ?? error;
    } finally {
      signal.removeEventListener("abort", abort);
      client.destroy();
      this.#client = null;
      this.#stream = null;
      this.wake();
      carryOut(core.disconnected(slot));
    }
  }

  async #receive(stream: ClientCopyStream): Promise<void> {
    const { platform, receive } = this.#options;
    for (;;) {
      const payload = await stream.read();
      if (payload === null) throw new StrataError("unavailable", "connection-lost", "the safekeeper ended the stream");
      this.#heardMs = platform.clock.monotonicMs();
      this.#lastError = null;
      receive(decodeAcceptorMessage(payload, PROTOCOL_VERSION));
    }
  }

  /** Sends WAL and heartbeats as long as this connection lasts. */
  stream(): void {
    const stream = this.#stream;
    if (stream === null) return;
    void this.#feed(stream).catch((error: unknown) => {
      if (this.#stream !== stream) return;
      this.drop(error instanceof StrataError ? error : new StrataError("unavailable", "wal-read-failed", "cannot read WAL for this safekeeper", { cause: error }));
    });
  }

  async #feed(stream: ClientCopyStream): Promise<void> {
    const { core, slot, readWal, signal } = this.#options;
    while (this.#stream === stream && !signal.aborted) {
      const next = core.nextAppend(slot, MAX_APPEND_BYTES);
      if (next === null) {
        await new Promise<void>((resolve) => (this.#wake = resolve));
        continue;
      }
      const found = next.maxBytes === 0 ? NOTHING : readWal(next.beginLsn, next.maxBytes);
      const walData = found instanceof Uint8Array ? found : await found;
      if (this.#stream !== stream) return;
      const request = core.append(slot, next.beginLsn, walData);
      if (request === null) return;
      stream.write(encodeAppendHeader(request, PROTOCOL_VERSION), walData);
      if (stream.bufferedBytes > 4 * MAX_APPEND_BYTES) await stream.drained();
    }
  }
}
