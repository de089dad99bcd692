/** The file of what was told: as it was after a restart, the peer's forms, and whatever else may stand there. */
import { afterAll, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { Failpoints } from "../../../src/kit/failpoints.ts";
import { RecordingLogger } from "../../../src/observability/recording-logger.ts";
import { CACHE_FILE, loadOutbox, saveOutbox } from "../../../src/pageserver/consumption/disk-cache.ts";
import { eventTime } from "../../../src/pageserver/consumption/event-time.ts";
import type { EventGroup, ReadingGroup } from "../../../src/pageserver/consumption/events.ts";
import { Outbox } from "../../../src/pageserver/consumption/outbox.ts";
import { makeDurableDirectory } from "../../../src/platform/durable-directory.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";
import { Lifeline } from "../../../src/platform/virtual/lifeline.ts";
import { SeededRandom } from "../../../src/platform/virtual/seeded-random.ts";
import { VirtualDisk } from "../../../src/platform/virtual/virtual-disk.ts";

setDefaultTimeout(60_000);

const root = mkdtempSync(join(tmpdir(), "strata-consumption-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const platform = realPlatform();
let directory = "";
let log = new RecordingLogger();
let count = 0;
beforeEach(() => {
  directory = join(root, String(count++));
  mkdirSync(directory);
  log = new RecordingLogger();
});

const TENANT = "a".repeat(32);
const hex = (n: number) => n.toString(16).padStart(32, "0");
const file = () => join(directory, CACHE_FILE);
const load = () => loadOutbox({ platform, log, directory });
const save = (outbox: Outbox) => saveOutbox(outbox, { platform, log, directory });
const contents = (outbox: Outbox) => ({ told: [...outbox.told], unanswered: [...outbox.unanswered] });

function groupOf(timeline: number, values: readonly number[]): EventGroup {
  const readings: ReadingGroup["readings"] = [
    { metric: "written_data_bytes_delta", kind: { type: "incremental", startTime: eventTime(1000 + values[0]), stopTime: eventTime(2000 + values[0], 17) }, value: values[0] },
    ...values.slice(1).map((value) => ({ metric: "written_size", kind: { type: "absolute", time: eventTime(value) }, value }) as const),
  ];
  return { tenantId: TENANT, timelineId: timeline === 0 ? null : hex(timeline), readings, idempotencyKeys: readings.map((_, index) => `1970-01-01 00:00:01.000000017 UTC-1-${index}`) };
}
function restored(groups: readonly (ReadingGroup | EventGroup)[]): Outbox {
  const outbox = new Outbox();
  for (const group of groups) outbox.restore(group);
  return outbox;
}
const withoutKeys = ({ tenantId, timelineId, readings }: EventGroup): ReadingGroup => ({ tenantId, timelineId, readings });

test("what was saved is there again, whatever it was; and any JSON program reads it as the peer's file", async () => {
  const groups = fc.uniqueArray(fc.tuple(fc.nat(50), fc.array(fc.nat(), { minLength: 1, maxLength: 4 })), { selector: ([timeline]) => timeline, maxLength: 30 });
  await fc.assert(
    fc.asyncProperty(groups, groups, async (told, unanswered) => {
      const outbox = restored([...told.map(([timeline, values]) => withoutKeys(groupOf(timeline, values))), ...unanswered.map(([timeline, values]) => groupOf(timeline, values))]);
      await save(outbox);
      const after = contents(await load());
      expect(after).toEqual(contents(outbox));
      const document = JSON.parse(readFileSync(file(), "utf8")) as { version: number; metrics: { key: { metric: string } }[] };
      expect([document.version, document.metrics.length]).toEqual([2, told.reduce((sum, [, values]) => sum + values.length, 0)]);
    }),
    { numRuns: 40 },
  );
  log.assertQuiet();
  expect(readdirSync(directory)).toEqual([CACHE_FILE]);
});

test("the peer's file, and its older form; names that are new are passed over", async () => {
  const key = (metric: string) => ({ tenant_id: TENANT, timeline_id: hex(1), metric });
  const time = "2023-09-15T00:00:00.123456789Z";
  const entries = [
    { key: key("written_size"), kind: { type: "absolute", time }, value: 5 },
    { key: key("written_data_bytes_delta"), kind: { type: "incremental", start_time: "2023-09-14T00:00:00Z", stop_time: time }, value: 3 },
    { key: { tenant_id: TENANT, metric: "synthetic_storage_size" }, kind: { type: "absolute", time }, value: 1 },
  ];
  const expected = [
    { tenantId: TENANT, timelineId: hex(1), readings: [{ metric: "written_size", kind: { type: "absolute", time }, value: 5 }, { metric: "written_data_bytes_delta", kind: { type: "incremental", startTime: "2023-09-14T00:00:00Z", stopTime: time }, value: 3 }] },
    { tenantId: TENANT, timelineId: null, readings: [{ metric: "synthetic_storage_size", kind: { type: "absolute", time }, value: 1 }] },
  ];
  const documents = [{ version: 2, metrics: [...entries, { ...entries[0], key: key("of_the_future") }] }, entries.map((entry) => [entry.key, [entry.kind, entry.value]])];
  for (const document of documents) {
    writeFileSync(file(), JSON.stringify(document));
    const { told, unanswered } = contents(await load());
    expect(told).toMatchObject(expected);
    expect(unanswered).toEqual([]);
  }
  log.assertQuiet();
});

test("damaged: it begins anew, with a word in the log, and never fails", async () => {
  await save(restored([...[groupOf(1, [5, 6]), groupOf(2, [7, 8])].map(withoutKeys), groupOf(3, [1, 2])]));
  const whole = readFileSync(file());
  log.expectWarn(/begins anew/);
  for (let size = 0; size < whole.length; size += 7) {
    writeFileSync(file(), whole.subarray(0, size));
    const before = log.entries.length;
    expect([size, [...(await load()).told]]).toEqual([size, []]);
    expect(log.entries.length).toBe(before + 1);
  }
  for (let at = 0; at < whole.length; at++) {
    const damaged = Buffer.from(whole);
    damaged[at] ^= 1 << (at % 8);
    writeFileSync(file(), damaged);
    expect([at, contents(await load())]).toEqual([at, { told: [], unanswered: [] }]);
  }
  for (const text of ["null", "{}", "[[]]", `{"version":2,"metrics":[{"value":1}]}`, `{"version":3,"metrics":[]}`, `{"version":2,"metrics":{}}`, `[[{"tenant_id":"x"},1]]`]) {
    writeFileSync(file(), text);
    expect([text, [...(await load()).told]]).toEqual([text, []]);
  }
  log.assertQuiet();
});

test("nothing there is nothing to tell of; a directory in its place is, and is left alone", async () => {
  expect([...(await load()).told]).toEqual([]);
  expect(log.entries).toEqual([]);
  mkdirSync(file());
  log.expectWarn(/begins anew/);
  expect([...(await load()).told]).toEqual([]);
  await expect(save(new Outbox())).rejects.toThrow();
  expect(readdirSync(directory)).toEqual([CACHE_FILE]);
});

test("what an ended process left beside it is removed, and nothing else; a failed one leaves nothing", async () => {
  const names = [`${CACHE_FILE}a1b2c3.tmp`, `${CACHE_FILE}.tmp`, "other.json", "last_consumption_metrics.jso"];
  for (const name of names) writeFileSync(join(directory, name), "x");
  mkdirSync(join(directory, `${CACHE_FILE}.d`));
  await load();
  expect(new Set(readdirSync(directory))).toEqual(new Set([`${CACHE_FILE}.d`, "last_consumption_metrics.jso", "other.json"]));
  const failpoints = new Failpoints({ ...platform, say: () => {}, exit: () => {} });
  failpoints.configure("before-persist-last-metrics-collected", "1*return");
  await expect(saveOutbox(new Outbox(), { platform, log, directory, failpoints })).rejects.toMatchObject({ code: "failpoint" });
  expect(existsSync(file())).toBe(false);
  await saveOutbox(new Outbox(), { platform, log, directory, failpoints });
  expect(JSON.parse(readFileSync(file(), "utf8"))).toMatchObject({ version: 2, metrics: [], unanswered: [] });
});

test("whatever the disk does in the middle of it, and wherever the power goes: what was saved before, or what was to be saved", async () => {
  const random = new SeededRandom(11);
  const groups = (first: number) => Array.from({ length: 200 }, (_, index) => groupOf(first + index, [5, 6]));
  for (const [how, cut] of [["io-error", true], ["disk-full", true], ["io-error", false], ["disk-full", false]] as const) {
    let completed = false;
    for (let failsAt = 0; !completed; failsAt++) {
      expect(failsAt).toBeLessThan(100);
      let operations = Number.NEGATIVE_INFINITY;
      // A disk that has failed fails for good, until the power is cut; a full one may have room again.
      const disk = new VirtualDisk({ clock: platform.clock, random, faults: { fail: () => (cut ? operations++ >= failsAt : operations++ === failsAt) ? how : undefined } });
      const at = (files: ReturnType<VirtualDisk["files"]>) => ({ platform: { ...platform, files }, log, directory: "/data" });
      const before = disk.files(new Lifeline());
      await makeDurableDirectory(before, "/data");
      await saveOutbox(restored(groups(1000).map(withoutKeys)), at(before));
      operations = 0;
      completed = await saveOutbox(restored(groups(2000)), at(before)).then(
        () => true,
        () => false,
      );
      operations = Number.NEGATIVE_INFINITY;
      if (cut) disk.crash();
      const files = cut ? disk.files(new Lifeline()) : before;
      const { told, unanswered } = contents(await loadOutbox(at(files)));
      expect([told.length + unanswered.length, unanswered.length > 0 || !completed, (await files.list("/data")).length]).toEqual([200, true, 1]);
    }
  }
  log.assertQuiet();
});
