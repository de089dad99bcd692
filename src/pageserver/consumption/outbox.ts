/**
 * What the receiver is known to have (`told`), and what was sent or is about to be, without an answer (`unanswered`): pure.
 *
 * - What is unanswered is sent again as it was, under the same idempotency keys, until it is accepted or refused; only then does its timeline
 *   say anything new. So each byte of WAL is in one event, and who counts an event once counts every byte once.
 * - Both are on disk before anything of them is sent (disk-cache.ts), so that this holds over a crash as well.
 * - A group that was refused is forgotten: its bytes are in the next one.
 */
import { type EventGroup, type Owner, ownerKey, type Reading, type ReadingGroup } from "./events.ts";

export class Outbox {
  readonly #told = new Map<string, ReadingGroup>();
  readonly #unanswered = new Map<string, EventGroup>();

  /** What the process before knew. */
  restore(group: ReadingGroup | EventGroup): void {
    if ("idempotencyKeys" in group) this.#unanswered.set(ownerKey(group), group);
    else this.#told.set(ownerKey(group), group);
  }

  get told(): Iterable<ReadingGroup> {
    return this.#told.values();
  }

  get unanswered(): Iterable<EventGroup> {
    return this.#unanswered.values();
  }

  get unansweredCount(): number {
    return this.#unanswered.size;
  }

  /** What to send of `owner`: what was not answered, or what `read` makes of what was told last. */
  next(owner: Owner, from: { readonly read: (previous: ReadingGroup | null) => Reading[]; readonly idempotencyKey: () => string }): { readonly group: EventGroup; readonly isNew: boolean } {
    const key = ownerKey(owner);
    const waiting = this.#unanswered.get(key);
    if (waiting !== undefined) return { group: waiting, isNew: false };
    const readings = from.read(this.#told.get(key) ?? null);
    const group: EventGroup = { tenantId: owner.tenantId, timelineId: owner.timelineId, readings, idempotencyKeys: readings.map(() => from.idempotencyKey()) };
    this.#unanswered.set(key, group);
    return { group, isNew: true };
  }

  accepted(group: EventGroup): void {
    const { tenantId, timelineId, readings } = group;
    this.#told.set(ownerKey(group), { tenantId, timelineId, readings });
    this.#unanswered.delete(ownerKey(group));
  }

  /** By the receiver; or it was never sent. */
  refused(group: EventGroup): void {
    this.#unanswered.delete(ownerKey(group));
  }

  /** Forgets who is not here any more, one at each step. */
  *retain(isHere: (owner: Owner) => boolean): Generator<void, void> {
    for (const groups of [this.#told, this.#unanswered]) {
      for (const [key, group] of groups) {
        if (!isHere(group)) groups.delete(key);
        yield;
      }
    }
  }
}
