/**
 * A queue between one producer and one consumer, bounded in items and in weight (bytes, usually). The producer waits
 * while it is full; an item heavier than the whole bound goes through alone.
 */
export class BoundedQueue<T> {
  readonly #maxItems: number;
  readonly #maxWeight: number;
  readonly #items: { readonly value: T; readonly weight: number }[] = [];
  #head = 0;
  #weight = 0;
  #closed = false;
  #wakeConsumer: (() => void) | null = null;
  #wakeProducer: (() => void) | null = null;

  constructor(options: { maxItems: number; maxWeight: number }) {
    this.#maxItems = options.maxItems;
    this.#maxWeight = options.maxWeight;
  }

  get length(): number {
    return this.#items.length - this.#head;
  }

  get weight(): number {
    return this.#weight;
  }

  get closed(): boolean {
    return this.#closed;
  }

  #full(weight: number): boolean {
    return this.length > 0 && (this.length >= this.#maxItems || this.#weight + weight > this.#maxWeight);
  }

  /** True when `push` with this weight would not wait. */
  hasRoom(weight: number): boolean {
    return !this.#full(weight);
  }

  /** Resolves to false, with the item dropped, when the queue is closed. One call at a time. */
  async push(value: T, weight: number): Promise<boolean> {
    while (!this.#closed && this.#full(weight)) await new Promise<void>((resolve) => (this.#wakeProducer = resolve));
    return this.offer(value, weight);
  }

  /** The same without waiting: false, with the item not taken, when the queue is full or closed. */
  offer(value: T, weight: number): boolean {
    if (this.#closed || this.#full(weight)) return false;
    this.#items.push({ value, weight });
    this.#weight += weight;
    this.#wakeConsumer?.();
    return true;
  }

  /** The next item without waiting; undefined when there is none. */
  take(): T | undefined {
    if (this.length === 0) return undefined;
    const { value, weight } = this.#items[this.#head++];
    if (this.#head > 1024 || this.#head === this.#items.length) {
      this.#items.splice(0, this.#head);
      this.#head = 0;
    }
    this.#weight -= weight;
    this.#wakeProducer?.();
    return value;
  }

  /** What `take` would give. */
  peek(): T | undefined {
    return this.#items[this.#head]?.value;
  }

  /** Resolves when there is an item or the queue is closed. One call at a time. */
  async ready(): Promise<void> {
    if (this.length > 0 || this.#closed) return;
    await new Promise<void>((resolve) => (this.#wakeConsumer = resolve));
  }

  /** Nothing more goes in; what is in can still be taken. */
  close(): void {
    this.#closed = true;
    this.#wakeConsumer?.();
    this.#wakeProducer?.();
  }
}
