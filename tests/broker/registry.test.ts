import { expect, test } from "bun:test";
import { decodeTimelineInfo, encodeTimelineInfo, MESSAGE_TYPE_DISCOVERY_REQUEST, MESSAGE_TYPE_TIMELINE_INFO, unwrapTyped } from "../../src/broker/api/messages.ts";
import { QUEUE_MAX_BYTES, Registry, timelineInfoFilter } from "../../src/broker/registry/registry.ts";
import { timelineInfo } from "./timeline-info.ts";

function makeRegistry() {
  const dropped: number[] = [];
  const registry = new Registry({ timelineQueueLength: 3, allKeysQueueLength: 5 }, { dropped: (subscriber) => void dropped.push(subscriber.id) });
  return { registry, dropped };
}

function publish(registry: Registry, timeline: string, commitLsn: number): void {
  registry.publish(MESSAGE_TYPE_TIMELINE_INFO, encodeTimelineInfo(timelineInfo({ timelineId: timeline.repeat(32), commitLsn })));
}

test("a message reaches the subscribers of its timeline and of everything, and no others", () => {
  const { registry } = makeRegistry();
  const all = registry.subscribe(timelineInfoFilter(null), false, () => undefined);
  const one = registry.subscribe(timelineInfoFilter({ tenantId: "a".repeat(32), timelineId: "1".repeat(32) }), false, () => undefined);
  const requests = registry.subscribe({ types: [MESSAGE_TYPE_DISCOVERY_REQUEST], timeline: null }, true, () => undefined);
  publish(registry, "1", 10);
  publish(registry, "2", 20);
  expect(all.queued).toBe(2);
  expect(one.queued).toBe(1);
  expect(requests.queued).toBe(0);
  expect(decodeTimelineInfo(one.take() as Uint8Array).commitLsn).toBe(10);
});

test("a full queue loses its oldest message, and says so", () => {
  const { registry, dropped } = makeRegistry();
  const slow = registry.subscribe(timelineInfoFilter({ tenantId: "a".repeat(32), timelineId: "1".repeat(32) }), true, () => undefined);
  for (let lsn = 1; lsn <= 8; lsn++) publish(registry, "1", lsn);
  const seen: number[] = [];
  for (let bytes = slow.take(); bytes !== null; bytes = slow.take()) seen.push(decodeTimelineInfo(unwrapTyped(bytes).inner).commitLsn);
  expect(seen).toEqual([6, 7, 8]);
  expect(slow.droppedCount).toBe(5);
  expect(dropped).toHaveLength(5);
});

test("large messages do not make a long queue a large one", () => {
  const dropped: number[] = [];
  const registry = new Registry({ timelineQueueLength: 3, allKeysQueueLength: 16_384 }, { dropped: (_subscriber, count) => void dropped.push(count) });
  const slow = registry.subscribe(timelineInfoFilter(null), false, () => undefined);
  const large = encodeTimelineInfo(timelineInfo({ safekeeperConnstr: "x".repeat(1_000_000) }));
  for (let sent = 0; sent < 100; sent++) registry.publish(MESSAGE_TYPE_TIMELINE_INFO, large);
  const fit = Math.floor(QUEUE_MAX_BYTES / large.length);
  expect(slow.queued).toBe(fit);
  expect(slow.droppedCount).toBe(100 - fit);
  publish(registry, "1", 7);
  let last = 0;
  for (let bytes = slow.take(); bytes !== null; bytes = slow.take()) last = decodeTimelineInfo(bytes).commitLsn;
  expect(last).toBe(7);
  expect(dropped.reduce((sum, count) => sum + count, 0)).toBe(slow.droppedCount);
  for (let sent = 0; sent < 10; sent++) publish(registry, "1", sent);
  expect(slow.queued).toBe(10);
});

test("an unsubscribed timeline leaves nothing behind", () => {
  const { registry } = makeRegistry();
  const gone = registry.subscribe(timelineInfoFilter({ tenantId: "a".repeat(32), timelineId: "1".repeat(32) }), false, () => undefined);
  expect(registry.timelineSubscribers).toBe(1);
  registry.unsubscribe(gone);
  registry.unsubscribe(gone);
  expect(registry.timelineSubscribers).toBe(0);
  publish(registry, "1", 1);
  expect(gone.queued).toBe(0);
});
