/** What is left when making or deleting a timeline fails half way: what memory says is what a restart would find, and it can be done again. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Metrics } from "../../../src/observability/metrics.ts";
import type { RecordingLogger } from "../../../src/observability/recording-logger.ts";
import { RealFiles } from "../../../src/platform/real/files.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";
import { SafekeeperMetrics } from "../../../src/safekeeper/metrics.ts";
import { Timelines } from "../../../src/safekeeper/timeline/timelines.ts";
import { Tombstones } from "../../../src/safekeeper/timeline/tombstones.ts";
import { testLogger } from "../../support/test-logger.ts";
import { FaultFiles, type FaultPoint } from "../support/fault-files.ts";
import { MIB } from "../support/sample-wal.ts";

const { clock, random } = realPlatform();
const ID = { tenantId: "11".repeat(16), timelineId: "22".repeat(16) };
const KEY = `${ID.tenantId}/${ID.timelineId}`;
const NEW = { ...ID, pgVersion: 170010, systemId: 7n, walSegmentSizeBytes: MIB, startLsn: 0, commitLsn: 0, createdMs: 0 };

let directory: string;
let files: FaultFiles;
let log: RecordingLogger;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "strata-failed-changes-"));
  files = new FaultFiles(new RealFiles());
  log = testLogger();
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

async function tombstones(): Promise<Tombstones> {
  const opened = new Tombstones({ files, directory, sync: true });
  await opened.load();
  return opened;
}

async function timelines(): Promise<Timelines> {
  const metrics = new SafekeeperMetrics(new Metrics(), clock, () => []);
  const context = { nodeId: 1, files, clock, log, metrics, sync: true, heartbeatTimeoutMs: 1000, endpoints: () => ({ pg: "", http: "", availabilityZone: null }) };
  const opened = new Timelines({ context, dataDirectory: directory, random });
  await opened.load();
  return opened;
}

/** The first operation of this kind on a path that ends so fails. */
function failAt(point: FaultPoint, pathEnd: string): void {
  files.check = (at, path) => {
    if (at !== point || !path.endsWith(pathEnd)) return;
    files.check = () => undefined;
    throw new Error("injected");
  };
}

for (const point of ["open", "write", "truncate", "sync", "syncDirectory"] as const) {
  test(`a deletion that is not written down (${point}) is not known, and is written when asked for again`, async () => {
    const first = await tombstones();
    failAt(point, point === "syncDirectory" ? directory : "deleted-timelines");
    await expect(first.add(KEY)).rejects.toThrow("injected");
    expect(first.has(KEY)).toBe(false);
    const synced = files.counts.get("syncDirectory") ?? 0;
    await first.add(KEY);
    expect(files.counts.get("syncDirectory") ?? 0).toBe(synced + 1);
    expect((await tombstones()).has(KEY)).toBe(true);
    expect(readFileSync(join(directory, "deleted-timelines"), "utf8")).toBe(`+ ${KEY}\n`);

    failAt(point, point === "syncDirectory" ? "nowhere" : "deleted-timelines");
    if (point !== "syncDirectory") await expect(first.remove(KEY)).rejects.toThrow("injected");
    if (point !== "syncDirectory") expect(first.has(KEY)).toBe(true);
    await first.remove(KEY);
    expect((await tombstones()).has(KEY)).toBe(false);
  });
}

test("a timeline that came back is here, though that could not be written down; it gives no votes before it is proved that nobody has WAL", async () => {
  const all = await timelines();
  await all.create(NEW, { revive: false });
  expect((await all.delete(ID)).existed).toBe(true);
  await expect(all.create(NEW, { revive: false })).rejects.toThrow("has been deleted");
  log.expectWarn("that the timeline was deleted once is still written down");
  failAt("open", "deleted-timelines");
  const before = clock.monotonicMs();
  const back = await all.create(NEW, { revive: true });
  expect(all.find(ID)).toBe(back);
  expect(back.state.recovering).toBe(true);
  expect(back.blankSinceMs).toBeGreaterThanOrEqual(before);
  await all.close();
  expect((await timelines()).find(ID)?.state.recovering).toBe(true);
});

test("a timeline whose directory's name could not be made durable is opened by the next who brings it", async () => {
  const all = await timelines();
  failAt("syncDirectory", ID.tenantId);
  await expect(all.create(NEW, { revive: false })).rejects.toThrow("injected");
  expect(all.find(ID)).toBeNull();
  expect(await all.presence(ID)).toBe("unusable");
  await all.create(NEW, { revive: false });
  expect(await all.presence(ID)).toBe(all.get(ID));
});

test("a deletion that breaks off is finished by the next; nobody is served meanwhile", async () => {
  const all = await timelines();
  await all.create(NEW, { revive: false });
  failAt("rename", ID.timelineId);
  await expect(all.delete(ID)).rejects.toThrow("injected");
  expect(all.find(ID)).toBeNull();
  expect(await all.presence(ID)).toBe("unusable");
  await expect(all.create(NEW, { revive: false })).rejects.toThrow("has been deleted");
  expect((await all.delete(ID)).existed).toBe(true);
  expect(await all.presence(ID)).toBe("absent");
});

test("what was under way for a deleted timeline does not write into the one that was made again", async () => {
  const all = await timelines();
  const old = await all.create(NEW, { revive: false });
  await all.delete(ID);
  await all.create(NEW, { revive: true });
  const path = join(directory, KEY, "safekeeper.control");
  const before = readFileSync(path);
  await expect(old.run("term bump", (acceptor) => acceptor.bumpTerm(99))).rejects.toThrow("is closed");
  expect(readFileSync(path).equals(before)).toBe(true);
});

test("one that cannot be opened is not called absent, nor replaced", async () => {
  const first = await timelines();
  await first.create(NEW, { revive: false });
  await first.close();
  const path = join(directory, KEY, "safekeeper.control");
  const good = readFileSync(path);
  writeFileSync(path, good.subarray(0, good.length - 1));
  log.expectWarn("timeline cannot be opened");
  const all = await timelines();
  expect(await all.presence(ID)).toBe("unusable");
  await expect(all.create(NEW, { revive: false })).rejects.toThrow("control file");
  await expect(all.addFrom(ID, async () => undefined)).rejects.toThrow("could not be opened");
  writeFileSync(path, good);
  expect((await all.create(NEW, { revive: false })).id).toEqual(ID);
});
