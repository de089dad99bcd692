/** Object storage that refuses for a while, as with rotated credentials or a clock that is wrong; and a layer that is gone. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { utf8 } from "../../../src/kit/bytes.ts";
import { StrataError } from "../../../src/kit/errors.ts";
import { relBlockKey } from "../../../src/keyspace/mapping.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import type { RemoteStorage } from "../../../src/remote-storage/remote-storage.ts";
import { type StorageFixture, storageFixture } from "../timeline/storage-fixture.ts";

const KEY = relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 }, 1);

let fixture: StorageFixture;
beforeEach(async () => {
  fixture = await storageFixture();
});
afterEach(async () => await fixture.close());

/** `bucket`, whose uploads fail with what `failure` returns, if anything. */
function failingUploads(bucket: RemoteStorage, failure: () => StrataError | null): RemoteStorage {
  return new Proxy(bucket, {
    get(target, property) {
      if (property !== "upload") return typeof target[property as keyof RemoteStorage] === "function" ? (target[property as keyof RemoteStorage] as () => unknown).bind(target) : target[property as keyof RemoteStorage];
      return async (...args: Parameters<RemoteStorage["upload"]>) => {
        const error = failure();
        if (error !== null) throw error;
        await target.upload(...args);
      };
    },
  });
}

async function flushOne(timeline: Timeline): Promise<void> {
  await timeline.put([{ key: KEY, lsn: 0x1000, value: { kind: "image", bytes: utf8("a") } }]);
  timeline.advance(0x1000, 0xff8);
  await timeline.freezeAndFlush();
}

test("uploads that are refused go on when they no longer are", async () => {
  let refusals = 0;
  const bucket = failingUploads(fixture.bucket, () => (refusals++ < 3 ? new StrataError("forbidden", "storage-forbidden", "403") : null));
  const manager = await fixture.attach(1, { bucket });
  const timeline = await manager.createTimeline({ timelineId: "11".repeat(16), initdbLsn: 0x1000, pgVersion: 17 });
  await flushOne(timeline);
  await timeline.waitUploaded();
  expect(refusals).toBeGreaterThan(3);
  expect(timeline.remoteClient.cleanIndex?.layers.size).toBe(1);
  await manager.shutdown({ flush: false });
  fixture.log.assertQuiet();
});

test("an upload that cannot succeed is told to everybody who waits, now and later", async () => {
  const bucket = failingUploads(fixture.bucket, () => new StrataError("not-found", "file-not-found", "the layer is gone"));
  const manager = await fixture.attach(1, { bucket });
  const timeline = await manager.createTimeline({ timelineId: "11".repeat(16), initdbLsn: 0x1000, pgVersion: 17 });
  await flushOne(timeline);
  for (let i = 0; i < 2; i++) expect(await timeline.waitUploaded().catch((error: unknown) => error)).toMatchObject({ code: "file-not-found" });
  expect(timeline.remoteClient.cleanIndex).toBeNull();
  await manager.shutdown({ flush: false });
  fixture.log.expectWarn("upload cannot succeed; the timeline's uploads stand still");
  fixture.log.assertQuiet();
});
