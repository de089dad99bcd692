/** Rounds against a receiver over HTTP that refuses, fails, and goes away; restarts, the bucket, and the schedule. */
import { afterAll, afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Failpoints } from "../../../src/kit/failpoints.ts";
import { RecordingLogger } from "../../../src/observability/recording-logger.ts";
import type { BackgroundTask } from "../../../src/pageserver/background-tasks.ts";
import { ConsumptionMetrics, type ConsumptionOptions } from "../../../src/pageserver/consumption/consumption-metrics.ts";
import { CACHE_FILE } from "../../../src/pageserver/consumption/disk-cache.ts";
import type { TenantView } from "../../../src/pageserver/tenant/tenants.ts";
import type { Clock } from "../../../src/platform/clock.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";
import { LocalDirectoryStorage } from "../../../src/remote-storage/local-directory.ts";
import { openRemoteStorage } from "../../../src/remote-storage/open-remote-storage.ts";
import { newCertificate } from "../../support/certificate.ts";
import { S3TestServer } from "../../support/s3-server.ts";

setDefaultTimeout(60_000);

const root = mkdtempSync(join(tmpdir(), "strata-rounds-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const TENANT = "a".repeat(32);
const hex = (n: number) => n.toString(16).padStart(32, "0");

interface Event {
  readonly type: string;
  readonly time?: string;
  readonly start_time?: string;
  readonly stop_time?: string;
  readonly metric: string;
  readonly idempotency_key: string;
  readonly value: number;
  readonly tenant_id: string;
  readonly timeline_id?: string;
}

/** Keeps what it is sent; `answers` are for the next requests in turn, then 200. */
class Receiver {
  readonly requests: { readonly events: Event[]; readonly isLast: string | null; readonly authorization: string | null }[] = [];
  answers: (number | "hang")[] = [];
  onRequest: () => void = () => {};
  readonly #hung = Promise.withResolvers<Response>();
  readonly #server;

  constructor(tls?: { readonly cert: string; readonly key: string }) {
    this.#server = Bun.serve({ port: 0, hostname: "127.0.0.1", ...(tls === undefined ? {} : { tls }), fetch: (request) => this.#take(request) });
  }

  async #take(request: Request): Promise<Response> {
    expect([request.method, request.headers.get("content-type")]).toEqual(["POST", "application/json"]);
    const { events } = (await request.json()) as { events: Event[] };
    this.requests.push({ events, isLast: request.headers.get("pageserver-metrics-last-upload-in-batch"), authorization: request.headers.get("authorization") });
    this.onRequest();
    const answer = this.answers.shift() ?? 200;
    return answer === "hang" ? await this.#hung.promise : new Response(answer === 200 ? "" : "no", { status: answer });
  }

  get port(): number {
    return Number(this.#server.port);
  }

  /** All events of one metric of a timeline, one for each key, in the order in which they came first. */
  once(metric: string, timeline: number): Event[] {
    const all = this.requests.flatMap(({ events }) => events).filter((event) => event.metric === metric && event.timeline_id === hex(timeline));
    return [...new Map(all.map((event) => [event.idempotency_key, event])).values()];
  }

  async stop(): Promise<void> {
    this.#hung.resolve(new Response(""));
    await this.#server.stop(true);
  }
}

const platform = realPlatform();
let wallMs = 0;
/** Pauses are a hundredth of what they are, and so is waiting for an answer. */
const clock: Clock = {
  monotonicMs: () => platform.clock.monotonicMs(),
  wallMs: () => wallMs,
  sleep: (durationMs, signal) => platform.clock.sleep(durationMs / 100, signal),
  after: (delayMs, callback) => platform.clock.after(delayMs / 100, callback),
};

class FakeTimeline {
  lsn = 100;
  broken: unknown = null;
  readonly id: number;

  constructor(id: number) {
    this.id = id;
  }

  view(): unknown {
    return {
      timeline: {
        timelineId: hex(this.id), broken: this.broken, stopping: { aborted: false }, loadedAt: { lsn: 100, wallMs: 1000 }, lastRecordLsn: this.lsn, ancestor: null,
        pitrCutoffLsn: null, config: { pitrIntervalMs: 1 }, stack: { map: { layers: () => [] } }, remoteClient: { cleanIndex: { layers: new Map([["l", { metadata: { sizeBytes: 11 } }]]) } },
      },
      datadir: { knownLogicalSizeBytes: 8192 },
    };
  }
}

let state = { tenant: "active", mode: "AttachedSingle" };
let timelines: FakeTimeline[] = [];
let syntheticBytes: number | null = null;
function tenantViews(): TenantView[] {
  const tenant = {
    state: state.tenant, tenantShardId: { tenantId: TENANT, number: 0, count: 0 }, manager: { brokenTimelines: new Map(), offloaded: [] },
    listTimelines: () => timelines.map((one) => one.view()), size: { lastBytes: syntheticBytes },
  };
  return [
    { id: { tenantId: TENANT, number: 0, count: 0 }, location: { mode: state.mode }, tenant },
    { id: { tenantId: "b".repeat(32), number: 1, count: 2 }, location: { mode: "AttachedSingle" }, tenant: { ...tenant, tenantShardId: { tenantId: "b".repeat(32), number: 1, count: 2 } } },
    { id: { tenantId: "c".repeat(32), number: 0, count: 0 }, location: { mode: "Secondary" }, tenant: null },
  ] as unknown as TenantView[];
}

let receiver: Receiver;
let workDirectory = "";
let log = new RecordingLogger();
let directories = 0;
const cachePath = () => join(workDirectory, CACHE_FILE);

beforeEach(() => {
  receiver = new Receiver();
  workDirectory = join(root, String(directories++));
  mkdirSync(workDirectory);
  log = new RecordingLogger();
  state = { tenant: "active", mode: "AttachedSingle" };
  timelines = [new FakeTimeline(1), new FakeTimeline(2)];
  syntheticBytes = null;
  wallMs = 1_700_000_000_000;
});
afterEach(async () => {
  await receiver.stop();
  log.assertQuiet();
});

function start(changes: Partial<ConsumptionOptions> = {}): BackgroundTask {
  const metrics = new ConsumptionMetrics({
    config: { endpoint: `http://127.0.0.1:${receiver.port}/usage_events`, intervalMs: 600_000 }, openBucket: null, nodeId: 7, workDirectory, log,
    tenants: { list: tenantViews }, platform: { ...platform, clock }, transport: (url, init) => fetch(url, init), ...changes,
  });
  return metrics.tasks()[0];
}
const round = async (task: BackgroundTask, signal = new AbortController().signal): Promise<void> => {
  wallMs += 600_000;
  await task.run(signal);
};
/** Ranges join, and their bytes are what was written since the timeline was loaded. */
function expectWhole(timeline: number, writtenLsn: number): void {
  const deltas = receiver.once("written_data_bytes_delta", timeline);
  for (const [index, { start_time: startTime }] of deltas.entries()) if (index > 0) expect(startTime).toBe(deltas[index - 1].stop_time);
  expect([timeline, deltas.reduce((sum, { value }) => sum + value, 100)]).toEqual([timeline, writtenLsn]);
}

describe("the receiver", () => {
  test("is told what there is, of shard zero of what is attached", async () => {
    const task = start();
    timelines[0].lsn = 150;
    syntheticBytes = 77;
    await round(task);
    const [{ events, isLast }] = receiver.requests;
    expect([receiver.requests.length, isLast]).toEqual([1, "true"]);
    const time = "2023-11-14T22:23:20Z";
    const told = events.map(({ idempotency_key: key, ...event }) => {
      expect(key).toMatch(/^2023-11-14 22:23:20\.\d{6,9} UTC-7-\d{4}$/);
      return event;
    });
    const of = (id: number, lsn: number) => [
      { type: "incremental", start_time: "1970-01-01T00:00:01Z", stop_time: time, metric: "written_data_bytes_delta", value: lsn - 100, tenant_id: TENANT, timeline_id: hex(id) },
      ...[["written_size", lsn], ["written_size_since_parent", lsn], ["timeline_logical_size", 8192]].map(([metric, value]) => ({ type: "absolute", time, metric, value, tenant_id: TENANT, timeline_id: hex(id) })),
    ];
    const ofTenant = [["remote_storage_size", 22], ["resident_size", 0], ["synthetic_storage_size", 77]].map(([metric, value]) => ({ type: "absolute", time, metric, value, tenant_id: TENANT }));
    expect(told as unknown[]).toEqual([...of(1, 150), ...of(2, 100), ...ofTenant]);
  });

  test("that fails is tried again, with the same", async () => {
    receiver.answers = [500, 503, 429, 200];
    await round(start());
    expect(receiver.requests.length).toBe(4);
    expect(new Set(receiver.requests.map(({ events }) => JSON.stringify(events))).size).toBe(1);
  });

  test("that refuses gets the bytes with the next round's", async () => {
    const task = start();
    receiver.answers = [400];
    log.expectWarn(/were refused/);
    timelines[0].lsn = 150;
    await round(task);
    expect(receiver.requests.length).toBe(1);
    receiver.requests.length = 0;
    timelines[0].lsn = 160;
    await round(task);
    expect(receiver.once("written_data_bytes_delta", 1).map(({ value }) => value)).toEqual([60]);
    expectWhole(1, 160);
  });

  test("that points elsewhere has taken nothing", async () => {
    const elsewhere = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => Response.redirect(`http://127.0.0.1:${receiver.port}/other`, 302) });
    try {
      log.expectWarn(/were refused.*status 302.*\/other/);
      timelines[0].lsn = 150;
      await round(start({ config: { endpoint: `http://127.0.0.1:${elsewhere.port}/usage_events`, intervalMs: 600_000 } }));
      expect(receiver.requests).toEqual([]);
      await round(start());
      expectWhole(1, 150);
    } finally {
      await elsewhere.stop(true);
    }
  });

  test("that took it and could not say so is sent the very same again, over a restart too, and only then what is new", async () => {
    receiver.answers = new Array<number>(10).fill(502);
    log.expectWarn(/not taken|no answer/);
    timelines[0].lsn = 150;
    await round(start());
    expect(receiver.requests.length).toBe(10);
    timelines[0].lsn = 175;
    timelines[1].lsn = 101;
    const task = start();
    expect(task.periodMs()).toBe(1);
    await round(task);
    expect(receiver.requests[10].events).toEqual(receiver.requests[0].events);
    await round(task);
    expect(receiver.requests.length).toBe(12);
    expectWhole(1, 175);
    expectWhole(2, 101);
  });

  test("that is away is waited for once, however much there is to tell", async () => {
    timelines = Array.from({ length: 600 }, (_, index) => new FakeTimeline(index + 1));
    receiver.answers = new Array<number>(100).fill(500);
    log.expectWarn(/not taken|no answer/);
    const task = start();
    await round(task);
    expect(receiver.requests.length).toBe(10 + 2);
    receiver.answers = [];
    receiver.requests.length = 0;
    await round(task);
    expect(receiver.requests.map(({ events, isLast }) => [events.length, isLast])).toEqual([[1000, "false"], [1000, "false"], [402, "true"]]);
  });

  test("may be behind TLS, and ask for a name and a password", async () => {
    const { certPem: cert, keyPem: key } = newCertificate();
    const secure = new Receiver({ cert, key });
    const endpoint = `https://meter:p%40ss@127.0.0.1:${secure.port}/usage_events`;
    try {
      await round(start({ config: { endpoint, intervalMs: 600_000 }, caPem: cert }));
      expect(secure.requests.map(({ authorization }) => authorization)).toEqual([`Basic ${btoa("meter:p@ss")}`]);
      log.expectWarn(/not taken|no answer/);
      await round(start({ config: { endpoint, intervalMs: 600_000 } }));
      expect(secure.requests.length).toBe(1);
      expect(JSON.stringify(log.entries)).not.toContain("p%40ss");
    } finally {
      await secure.stop();
    }
  });

  test("that hangs is given up when the pageserver stops; what it may have is sent again later", async () => {
    receiver.answers = ["hang"];
    const abort = new AbortController();
    receiver.onRequest = () => abort.abort();
    const startMs = performance.now();
    await round(start(), abort.signal);
    expect(performance.now() - startMs).toBeLessThan(5000);
    receiver.onRequest = () => {};
    await round(start());
    expect(receiver.requests[1].events).toEqual(receiver.requests[0].events);
  });
});

describe("on disk", () => {
  test("a crash at any moment tells nothing twice and leaves nothing out", async () => {
    timelines = Array.from({ length: 260 }, (_, index) => new FakeTimeline(index + 1));
    const snapshot = join(workDirectory, "snapshot");
    let crashAt = 0;
    // What a crash leaves when a request has just arrived; the round goes on, but nobody remembers it.
    receiver.onRequest = () => {
      if (crashAt-- === 0) copyFileSync(cachePath(), snapshot);
    };
    for (const [at, twice] of [[0, false], [1, false], [0, true], [1, true]] as const) {
      for (const timeline of timelines) timeline.lsn += 10;
      crashAt = at;
      await round(start());
      copyFileSync(snapshot, cachePath());
      if (twice) await round(start());
    }
    for (const timeline of timelines) timeline.lsn += 1;
    for (let count = 0; count < 2; count++) await round(start());
    for (let id = 1; id <= 260; id++) expectWhole(id, 141);
  });

  test("it is not sent while it cannot be written down", async () => {
    mkdirSync(cachePath());
    log.expectWarn(/begins anew|could not be written down/);
    const task = start();
    await round(task);
    expect(receiver.requests).toEqual([]);
    rmdirSync(cachePath());
    timelines[0].lsn = 120;
    await round(task);
    expectWhole(1, 120);
  });

  test("the failpoint stands before the file is replaced", async () => {
    const failpoints = new Failpoints({ clock, random: platform.random, say: () => {}, exit: () => {} });
    failpoints.configure("before-persist-last-metrics-collected", "1*return");
    log.expectWarn(/could not be written down/);
    const task = start({ failpoints });
    await round(task);
    expect([receiver.requests.length, readdirSync(workDirectory)]).toEqual([0, []]);
    await round(task);
    expect([receiver.requests.length, readdirSync(workDirectory)]).toEqual([1, [CACHE_FILE]]);
  });

  test("who is gone is forgotten, who is silent for now is not", async () => {
    const task = start();
    timelines[0].lsn = 150;
    await round(task);
    for (const change of [{ tenant: "attaching" }, { mode: "AttachedStale" }]) {
      const before = receiver.requests.length;
      state = { tenant: "active", mode: "AttachedSingle", ...change };
      await round(task);
      expect(receiver.requests.length).toBe(before);
    }
    state = { tenant: "active", mode: "AttachedSingle" };
    timelines[0].lsn = 170;
    timelines[0].broken = new Error("broken");
    await round(task);
    timelines[0].broken = null;
    timelines = [timelines[0]];
    await round(task);
    expectWhole(1, 170);
    expect(receiver.requests.at(-1)?.events.some((event) => event.timeline_id === hex(2))).toBe(false);
    expect(readFileSync(cachePath(), "utf8")).toContain(hex(1));
    expect(readFileSync(cachePath(), "utf8")).not.toContain(hex(2));
  });
});

describe("the schedule", () => {
  test("goes on over a restart; tenants that are being loaded are waited for", async () => {
    const task = start();
    expect(task.periodMs()).toBe(1);
    await round(task);
    expect(task.periodMs()).toBeWithin(590_000, 600_001);
    wallMs += 200_000;
    const second = start();
    await second.run(new AbortController().signal);
    expect([receiver.requests.length, second.periodMs()]).toEqual([1, 400_000]);
    state.tenant = "attaching";
    await round(second);
    expect([receiver.requests.length, second.periodMs()]).toEqual([1, 1000]);
    state.tenant = "active";
    await round(second);
    expect(receiver.requests.length).toBe(2);
  });

  test("a clock that was ahead is told, and the ranges go on", async () => {
    await round(start());
    wallMs -= 100_000_000;
    timelines[0].lsn = 150;
    log.expectWarn(/yet to come|behind what was told/);
    const task = start();
    await round(task);
    wallMs += 200_000_000;
    timelines[0].lsn = 160;
    await round(task);
    expectWhole(1, 160);
    expect(log.entries.filter(({ level }) => level === "warn").length).toBe(2);
  });
});

describe("the bucket", () => {
  const objects = (directory: string) => readdirSync(directory, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".gz")).sort();

  test("has the same events, a line each, one object a round", async () => {
    const directory = join(workDirectory, "bucket");
    const task = start({ openBucket: () => LocalDirectoryStorage.open(directory, platform) });
    for (let count = 0; count < 2; count++) await round(task);
    wallMs -= 600_000;
    await round(task);
    log.expectWarn(/behind what was told/);
    expect(objects(directory)).toEqual(["2023-11-14T22:23:20Z", "2023-11-14T22:33:20Z", "2023-11-14T22:33:21Z"].map((text) => `year=2023/month=11/day=14/hour=22/${text.slice(11)}_7.ndjson.gz`));
    const lines = objects(directory).map((name) => new TextDecoder().decode(Bun.gunzipSync(readFileSync(join(directory, name)))));
    expect(lines.every((text) => text.endsWith("\n"))).toBe(true);
    expect(lines.map((text) => text.trimEnd().split("\n").map((line) => JSON.parse(line) as Event))).toEqual(receiver.requests.map(({ events }) => events));
  });

  test("that cannot be reached keeps nobody from being told", async () => {
    let opened = 0;
    const directory = join(workDirectory, "bucket");
    const openBucket = async () => {
      if (opened++ === 0) throw new Error("not today");
      return await LocalDirectoryStorage.open(directory, platform);
    };
    log.expectWarn(/not in the bucket/);
    const task = start({ openBucket });
    await round(task);
    expect(receiver.requests.length).toBe(1);
    await round(task);
    expect(objects(directory).length).toBe(1);
  });

  test("may be at S3, which signs what the name has in it", async () => {
    const s3 = new S3TestServer();
    try {
      const openBucket = () => openRemoteStorage({ kind: "s3", bucket: s3.bucket, region: s3.region, endpoint: s3.endpoint, prefix: "usage/", credentials: s3.credentials }, { platform, fetch: (url, init) => fetch(url, init as RequestInit) });
      await round(start({ openBucket }));
      const name = "usage/year=2023/month=11/day=14/hour=22/22:23:20Z_7.ndjson.gz";
      expect([...s3.objects.keys()]).toEqual([name]);
    } finally {
      s3.stop();
    }
  });

  test("gets no object of nothing", async () => {
    timelines = [];
    state.tenant = "stopping";
    const directory = join(workDirectory, "bucket");
    await round(start({ openBucket: () => LocalDirectoryStorage.open(directory, platform) }));
    expect(readdirSync(workDirectory)).toEqual([CACHE_FILE]);
  });
});
