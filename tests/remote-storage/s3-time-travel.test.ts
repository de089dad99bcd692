/** Time travel of S3: every kind of history, pages, faults, and buckets that cannot. The rule alone against a plain one. */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { utf8, utf8ToString } from "../../src/kit/bytes.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { withRetries } from "../../src/remote-storage/retry.ts";
import { S3Storage } from "../../src/remote-storage/s3.ts";
import { planTimeTravel } from "../../src/remote-storage/time-travel.ts";
import { S3TestServer } from "../support/s3-server.ts";

// A busy machine may need a while.
setDefaultTimeout(60_000);

const platform = realPlatform();
const servers: S3TestServer[] = [];
afterAll(() => servers.forEach((server) => server.stop()));

/** A versioned bucket whose clock stands still, at second 0. */
function makeBucket() {
  const server = new S3TestServer();
  servers.push(server);
  server.stored.versioning = "enabled";
  const setSecond = (second: number) => {
    server.stored.now = () => new Date(second * 1000);
  };
  setSecond(0);
  const storage = new S3Storage({ endpoint: server.endpoint, region: server.region, bucket: server.bucket, credentials: async () => server.credentials, platform, fetch: (url, init) => fetch(url, init as RequestInit) });
  const travel = (timestamp: number, doneIfAfter: number, maxVersions = 1000) => storage.timeTravelRecover({ prefix: "p/", timestampMs: timestamp * 1000, doneIfAfterMs: doneIfAfter * 1000, maxVersions });
  const contents = () => Object.fromEntries([...server.objects].map(([key, { bytes }]) => [key, utf8ToString(bytes)]).sort());
  return { server, storage, setSecond, travel, contents };
}

type Step = readonly [second: number, text: string | null];

const HISTORIES: Readonly<Record<string, { readonly steps: readonly Step[]; readonly at10: string | null }>> = {
  "p/unchanged": { steps: [[1, "a"]], at10: "a" },
  "p/at the moment": { steps: [[1, "a"], [10, "b"], [11, "c"]], at10: "b" },
  "p/changed twice": { steps: [[1, "a"], [9, "b"], [11, "c"], [12, "d"]], at10: "b" },
  "p/deleted since": { steps: [[1, "a"], [11, null]], at10: "a" },
  "p/deleted then, back since": { steps: [[1, "a"], [5, null], [11, "b"]], at10: null },
  "p/deleted then and now": { steps: [[1, "a"], [5, null], [11, "b"], [12, null]], at10: null },
  "p/deleted for good": { steps: [[1, "a"], [5, null]], at10: null },
  "p/new": { steps: [[11, "a"], [12, "b"]], at10: null },
  "p/new and gone": { steps: [[11, "a"], [12, null]], at10: null },
  "p/two in one second": { steps: [[4, "a"], [4, "b"], [11, "c"]], at10: "b" },
  "p/odd é&<+>": { steps: [[1, "a"], [11, "b"]], at10: "a" },
};

async function play(bucket: ReturnType<typeof makeBucket>): Promise<Record<string, string>> {
  const steps = Object.entries(HISTORIES).flatMap(([key, history]) => history.steps.map(([second, text]) => ({ key, second, text })));
  for (const { key, second, text } of steps.toSorted((a, b) => a.second - b.second)) {
    bucket.setSecond(second);
    if (text === null) await bucket.storage.delete([key]);
    else await bucket.storage.upload(key, { bytes: utf8(text) });
  }
  bucket.setSecond(30);
  return Object.fromEntries(Object.entries(HISTORIES).flatMap(([key, { at10 }]) => (at10 === null ? [] : [[key, at10] as const])).sort());
}

describe("S3 time travel", () => {
  test("each kind of history, in pages of any size; what needs no change gets none; repeating changes nothing", async () => {
    for (const versionsPerPage of [1, 2, 7, 1000]) {
      const bucket = makeBucket();
      bucket.server.versionsPerPage = versionsPerPage;
      const wanted = await play(bucket);
      const versions = () => Object.keys(HISTORIES).map((key) => bucket.server.stored.versionsOf(key).length);
      const before = versions();
      await bucket.travel(10, 20);
      expect(bucket.contents()).toEqual(wanted);
      expect(versions().map((count, i) => count - before[i])).toEqual([0, 1, 1, 1, 1, 0, 0, 1, 0, 1, 1]);
      await bucket.travel(10, 20);
      expect(bucket.contents()).toEqual(wanted);
      expect(versions().reduce((sum, count) => sum + count)).toBe(before.reduce((sum, count) => sum + count) + 7);
    }
  });

  test("a key changed after done_if_after is left as it is", async () => {
    const bucket = makeBucket();
    for (const [second, text] of [[1, "a"], [11, "b"], [21, "c"]] as const) {
      bucket.setSecond(second);
      await bucket.storage.upload("p/x", { bytes: utf8(text) });
    }
    await bucket.travel(10, 20);
    expect(bucket.contents()).toEqual({ "p/x": "c" });
    await bucket.travel(10, 21);
    expect(bucket.contents()).toEqual({ "p/x": "a" });
  });

  test("any request may fail: repeated until it succeeds, the result is the same", async () => {
    // Two pages, five copies, one deletion.
    for (let failing = 0; failing < 8; failing++) {
      const bucket = makeBucket();
      const wanted = await play(bucket);
      bucket.server.versionsPerPage = 20;
      bucket.server.failures.push(...Array.from({ length: failing }, () => null), 503);
      const { failures } = bucket.server;
      let attempts = 0;
      await withRetries(async () => (attempts++, await bucket.travel(10, 20)), { clock: platform.clock, random: platform.random, maxAttempts: 3 });
      expect([failures.length, attempts]).toEqual([0, 2]);
      expect(bucket.contents()).toEqual(wanted);
    }
  });

  test("buckets without versions, with holes in them, or with too many are refused, and nothing is touched", async () => {
    const never = makeBucket();
    never.server.stored.versioning = "never";
    await never.storage.upload("p/x", { bytes: utf8("x") });
    await expect(never.travel(10, 20)).rejects.toMatchObject({ kind: "fix-input", code: "object-not-versioned" });
    for (const suspendedDeletion of [false, true]) {
      const suspended = makeBucket();
      const wanted = await play(suspended);
      suspended.server.stored.versioning = "suspended";
      if (suspendedDeletion) await suspended.storage.delete(["p/unchanged"]);
      else await suspended.storage.upload("p/unchanged", { bytes: utf8("unknown") });
      const before = suspended.contents();
      await expect(suspended.travel(10, 40)).rejects.toMatchObject({ code: "object-not-versioned" });
      expect(suspended.contents()).toEqual(before);
      expect(before).not.toEqual(wanted);
    }
    const many = makeBucket();
    many.server.versionsPerPage = 5;
    await play(many);
    const count = Object.values(HISTORIES).reduce((sum, { steps }) => sum + steps.length, 0);
    const before = many.contents();
    await expect(many.travel(10, 20, count - 1)).rejects.toMatchObject({ kind: "fix-input", code: "too-many-versions" });
    expect(many.contents()).toEqual(before);
    await many.travel(10, 20, count);
    expect(many.contents()).not.toEqual(before);
  });

  test("answers that are none", async () => {
    const answer = async (text: string) => {
      const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response(text) });
      const storage = new S3Storage({ endpoint: `http://127.0.0.1:${server.port}`, region: "r", bucket: "b", credentials: async () => ({ accessKeyId: "a", secretAccessKey: "b" }), platform, fetch: (url, init) => fetch(url, init as RequestInit) });
      return await storage.timeTravelRecover({ prefix: "p/", timestampMs: 1, doneIfAfterMs: 2, maxVersions: 10 }).finally(() => server.stop(true));
    };
    const version = "<Version><Key>p/x</Key><VersionId>1</VersionId><LastModified>2026-01-01T00:00:00Z</LastModified></Version>";
    await expect(answer("<ListBucketResult></ListBucketResult>")).rejects.toMatchObject({ code: "time-travel-unsupported" });
    await expect(answer(`<ListVersionsResult><IsTruncated>true</IsTruncated>${version}</ListVersionsResult>`)).rejects.toMatchObject({ code: "storage-unavailable" });
    await expect(answer(`<ListVersionsResult><IsTruncated>true</IsTruncated><NextKeyMarker>p/x</NextKeyMarker></ListVersionsResult>`)).rejects.toMatchObject({ code: "storage-unavailable" });
    await expect(answer(`<ListVersionsResult><IsTruncated>true</IsTruncated><NextKeyMarker>p/x</NextKeyMarker>${version}</ListVersionsResult>`)).rejects.toMatchObject({ code: "too-many-versions" });
    for (const part of [/<Key>.*<\/Key>/, /<VersionId>.*<\/VersionId>/, /<LastModified>.*<\/LastModified>/]) {
      await expect(answer(`<ListVersionsResult>${version.replace(part, "")}</ListVersionsResult>`)).rejects.toMatchObject({ code: "storage-unavailable" });
    }
  });
});

test("the plan leads to what was there, for random histories", () => {
  const step = fc.record({ key: fc.constantFrom("a", "b", "c"), deleted: fc.boolean(), wait: fc.integer({ min: 0, max: 2 }) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), fc.integer({ min: 0, max: 20 }), (steps, timestampMs) => {
      let modifiedMs = 0;
      const history = steps.map(({ key, deleted, wait }, i) => ({ key, modifiedMs: (modifiedMs += wait), versionId: deleted ? null : `v${i}` }));
      const stateAfter = (part: typeof history) => new Map<string, string | null>(part.map(({ key, versionId }) => [key, versionId]));
      const state = stateAfter(history);
      const { copies, deletions } = planTimeTravel(history.toReversed(), { timestampMs, doneIfAfterMs: modifiedMs });
      for (const { key, versionId } of copies) state.set(key, versionId);
      for (const key of deletions) {
        expect(state.get(key)).not.toBeNull();
        state.set(key, null);
      }
      const there = (versions: typeof state) => Object.fromEntries([...versions].filter(([, id]) => id !== null).sort());
      expect(there(state)).toEqual(there(stateAfter(history.filter((one) => one.modifiedMs <= timestampMs))));
    }),
    { verbose: 1 },
  );
});
