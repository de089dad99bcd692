/**
 * Who is subscribed to what, and the queues between publishers and subscribers. Pure: no sockets, no clock.
 *
 * Invariants: a publisher never waits; each subscriber has a ring of bounded length and of bounded size, and when it is full
 * the oldest messages go (counted); a message reaches exactly the subscribers whose types and timeline match.
 */
import { MESSAGE_TYPE_TIMELINE_INFO, type BrokerFilter, type MessageType, peekTenantTimelineId, type TenantTimelineId, wrapTyped } from "../api/messages.ts";
import { frameMessage, messageOf } from "./frame.ts";

/** A published message: the inner bytes as they came; framed for the streams, bare or as a TypedMessage, at most once each. */
class Envelope {
  readonly type: MessageType;
  readonly #inner: Uint8Array;
  readonly sizeBytes: number;
  #typedFrame: Uint8Array | null = null;
  #innerFrame: Uint8Array | null = null;

  constructor(type: MessageType, inner: Uint8Array) {
    this.type = type;
    this.#inner = inner;
    this.sizeBytes = inner.length;
  }

  frame(typed: boolean): Uint8Array {
    if (typed) return (this.#typedFrame ??= frameMessage(wrapTyped(this.type, this.#inner)));
    return (this.#innerFrame ??= frameMessage(this.#inner));
  }
}

export interface RegistryLimits {
  readonly timelineQueueLength: number;
  readonly allKeysQueueLength: number;
}

/** What may wait for one subscriber, whatever the length of its queue: honest messages are of a few hundred bytes each. */
export const QUEUE_MAX_BYTES = 32 * 1024 * 1024;

export interface RegistryEvents {
  readonly dropped: (subscriber: Subscriber, count: number) => void;
}

/** @param urgent the ring may soon be full: what waits is to be taken now, not later */
export type Wake = (urgent: boolean) => void;

/** One subscription: a ring of waiting messages. `wake` is called when it turns from empty to non-empty, and, urgently, from half full on. */
export class Subscriber {
  readonly id: number;
  readonly filter: BrokerFilter;
  droppedCount = 0;
  readonly #limit: number;
  readonly #typed: boolean;
  #ring: (Envelope | undefined)[] = [];
  #head = 0;
  #length = 0;
  #bytes = 0;
  readonly #wake: Wake;

  constructor(options: { id: number; filter: BrokerFilter; typed: boolean; limit: number; wake: Wake }) {
    this.id = options.id;
    this.filter = options.filter;
    this.#typed = options.typed;
    this.#limit = options.limit;
    this.#wake = options.wake;
  }

  get queued(): number {
    return this.#length;
  }

  /** @returns how many of the oldest messages had to go */
  offer(envelope: Envelope): number {
    let dropped = 0;
    while (this.#length === this.#limit || (this.#length > 0 && this.#bytes + envelope.sizeBytes > QUEUE_MAX_BYTES)) {
      this.#shift();
      dropped++;
    }
    this.droppedCount += dropped;
    this.#ring[(this.#head + this.#length) % this.#limit] = envelope;
    this.#length++;
    this.#bytes += envelope.sizeBytes;
    const urgent = this.#length * 2 >= this.#limit || this.#bytes * 2 >= QUEUE_MAX_BYTES;
    if (this.#length === 1 || urgent) this.#wake(urgent);
    return dropped;
  }

  #shift(): Envelope {
    const envelope = this.#ring[this.#head] as Envelope;
    this.#ring[this.#head] = undefined;
    this.#head = (this.#head + 1) % this.#limit;
    this.#length--;
    this.#bytes -= envelope.sizeBytes;
    return envelope;
  }

  /** The oldest waiting message's bytes for this subscriber, or null. */
  take(): Uint8Array | null {
    const frame = this.takeFrame();
    return frame === null ? null : messageOf(frame);
  }

  /** The same as it stands in a stream: shared by all who hear it, not to be changed. */
  takeFrame(): Uint8Array | null {
    if (this.#length === 0) return null;
    return this.#shift().frame(this.#typed);
  }
}

function timelineKey(id: TenantTimelineId): string {
  return id.tenantId + id.timelineId;
}

export class Registry {
  readonly #limits: RegistryLimits;
  readonly #events: RegistryEvents;
  readonly #toAll = new Set<Subscriber>();
  readonly #toTimeline = new Map<string, Set<Subscriber>>();
  #nextId = 0;
  #timelineSubscribers = 0;

  constructor(limits: RegistryLimits, events: RegistryEvents) {
    this.#limits = limits;
    this.#events = events;
  }

  get allKeysSubscribers(): number {
    return this.#toAll.size;
  }

  get timelineSubscribers(): number {
    return this.#timelineSubscribers;
  }

  /** @param typed whether the subscriber gets TypedMessages (or, for timeline infos only, bare infos) */
  subscribe(filter: BrokerFilter, typed: boolean, wake: Wake): Subscriber {
    const limit = filter.timeline === null ? this.#limits.allKeysQueueLength : this.#limits.timelineQueueLength;
    const subscriber = new Subscriber({ id: this.#nextId++, filter, typed, limit, wake });
    if (filter.timeline === null) {
      this.#toAll.add(subscriber);
      return subscriber;
    }
    const key = timelineKey(filter.timeline);
    const set = this.#toTimeline.get(key) ?? new Set();
    set.add(subscriber);
    this.#toTimeline.set(key, set);
    this.#timelineSubscribers++;
    return subscriber;
  }

  unsubscribe(subscriber: Subscriber): void {
    if (this.#toAll.delete(subscriber) || subscriber.filter.timeline === null) return;
    const key = timelineKey(subscriber.filter.timeline);
    const set = this.#toTimeline.get(key);
    if (set?.delete(subscriber) !== true) return;
    this.#timelineSubscribers--;
    if (set.size === 0) this.#toTimeline.delete(key);
  }

  /** Hands one message to whoever wants it. @throws StrataError fix-input when the message's id is malformed */
  publish(type: MessageType, inner: Uint8Array): void {
    const envelope = new Envelope(type, inner);
    const id = peekTenantTimelineId(type, inner);
    for (const subscriber of this.#toAll) this.#offer(subscriber, envelope);
    if (id === null) return;
    const subscribers = this.#toTimeline.get(timelineKey(id));
    if (subscribers !== undefined) for (const subscriber of subscribers) this.#offer(subscriber, envelope);
  }

  #offer(subscriber: Subscriber, envelope: Envelope): void {
    if (!subscriber.filter.types.includes(envelope.type)) return;
    const dropped = subscriber.offer(envelope);
    if (dropped > 0) this.#events.dropped(subscriber, dropped);
  }
}

/** The filter of a plain timeline-info subscription. */
export function timelineInfoFilter(timeline: TenantTimelineId | null): BrokerFilter {
  return { types: [MESSAGE_TYPE_TIMELINE_INFO], timeline };
}
