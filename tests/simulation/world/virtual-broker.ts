/** The broker without gRPC: its real registry and message codec, behind a network that delays, and that faults may cut off. */
import type { BrokerClient, TimelineInfoPublisher } from "../../../src/broker/api/client.ts";
import { type BrokerFilter, type BrokerMessage, decodeMessage, encodeMessage, unwrapTyped } from "../../../src/broker/api/messages.ts";
import { Registry } from "../../../src/broker/registry/registry.ts";
import { Cancelled, StrataError } from "../../../src/kit/errors.ts";
import type { Platform } from "../../../src/platform/platform.ts";
import type { SeededRandom } from "../../../src/platform/virtual/seeded-random.ts";

const MAX_DELAY_MS = 5;
/** Small, so that subscribers are shed now and then. */
const LIMITS = { timelineQueueLength: 4, allKeysQueueLength: 16 };


export class VirtualBroker {
  readonly #random: SeededRandom;
  readonly #cutOff = new Set<() => void>();
  #registry = new Registry(LIMITS, { dropped: () => undefined });
  #isUp = true;

  constructor(random: SeededRandom) {
    this.#random = random;
  }

  /** All connections break, and nothing is remembered. */
  stop(): void {
    this.#isUp = false;
    this.#registry = new Registry(LIMITS, { dropped: () => undefined });
    for (const cut of [...this.#cutOff]) cut();
    this.#cutOff.clear();
  }

  start(): void {
    this.#isUp = true;
  }

  /** For a process on the machine of `platform`: when it dies, so does the client. */
  client(platform: Platform): BrokerClient {
    return {
      subscribe: (filter, onMessage, signal) => this.#subscribe(platform, { filter, onMessage, signal }),
      publisher: () => this.#publisher(platform),
      publishOne: async (one) => {
        if (!this.#isUp) throw unreachable();
        this.#publishLater(platform, one);
      },
      close: () => undefined,
    };
  }

  #delayMs(): number {
    return this.#random.float() * MAX_DELAY_MS;
  }

  #publishLater(platform: Platform, one: BrokerMessage): void {
    const bytes = encodeMessage(one);
    platform.clock.after(this.#delayMs(), () => {
      if (!this.#isUp) return;
      const { type, inner } = unwrapTyped(bytes);
      this.#registry.publish(type, inner);
    });
  }

  #publisher(platform: Platform): TimelineInfoPublisher {
    const ended = Promise.withResolvers<void>();
    ended.promise.catch(() => undefined);
    const cut = (): void => ended.reject(unreachable());
    if (this.#isUp) this.#cutOff.add(cut);
    else cut();
    return {
      ended: ended.promise,
      publish: (info) => (this.#publishLater(platform, { type: "timeline-info", info }), true),
      end: () => (this.#cutOff.delete(cut), ended.resolve()),
    };
  }

  #subscribe(platform: Platform, request: { filter: BrokerFilter; onMessage: (one: BrokerMessage) => void; signal: AbortSignal }): Promise<void> {
    const { filter, onMessage, signal } = request;
    if (!this.#isUp) return Promise.reject(unreachable());
    return new Promise((_, reject) => {
      const registry = this.#registry;
      const subscriber = registry.subscribe(filter, true, () => platform.clock.after(this.#delayMs(), drain));
      const end = (error: Error): void => {
        this.#cutOff.delete(cut);
        registry.unsubscribe(subscriber);
        reject(error);
      };
      const cut = (): void => end(unreachable());
      const drain = (): void => {
        for (let bytes = subscriber.take(); bytes !== null && !signal.aborted; bytes = subscriber.take()) onMessage(decodeMessage(bytes));
      };
      this.#cutOff.add(cut);
      signal.addEventListener("abort", () => end(new Cancelled()), { once: true });
    });
  }
}

function unreachable(): StrataError {
  return new StrataError("unavailable", "broker-stream-ended", "the broker is away");
}
