/**
 * What a cluster consumes, as a receiver hears of it: it grows with the WAL, ends with the timeline, and is whole, each byte once, though the
 * receiver fails and loses answers and the pageserver is killed in between.
 */
import { afterAll, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { BranchMaker } from "../../src/cli/dev/branches.ts";
import { ControllerClient } from "../../src/controller/api/client.ts";
import { parseLsn } from "../../src/kit/lsn.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { TestCluster } from "../support/dev-cluster.ts";
import { testLogger } from "../support/test-logger.ts";
import { connect } from "../verify/durability/writers.ts";

const READY_MS = 120_000;
const platform = realPlatform();

interface Event {
  readonly type: string;
  readonly start_time: string;
  readonly stop_time: string;
  readonly metric: string;
  readonly idempotency_key: string;
  readonly value: number;
  readonly tenant_id: string;
  readonly timeline_id?: string;
}

/** Counts what it gets by its key; every third request fails, before or after that. */
class Receiver {
  readonly #byKey = new Map<string, Event>();
  #requests = 0;
  /** Metrics of the newest request, by timeline (or tenant). */
  #newest = new Map<string, Map<string, number>>();
  readonly #server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: (request) => this.#take(request) });

  get endpoint(): string {
    return `http://127.0.0.1:${this.#server.port}/usage_events`;
  }

  async #take(request: Request): Promise<Response> {
    const { events } = (await request.json()) as { events: Event[] };
    this.#requests++;
    if (this.#requests % 6 === 1) return new Response("", { status: 503 });
    const newest = new Map<string, Map<string, number>>();
    for (const event of events) {
      const before = this.#byKey.get(event.idempotency_key);
      if (before !== undefined && JSON.stringify(before) !== JSON.stringify(event)) throw new Error(`two events of one key: ${JSON.stringify([before, event])}`);
      this.#byKey.set(event.idempotency_key, event);
      const owner = event.timeline_id ?? event.tenant_id;
      newest.set(owner, (newest.get(owner) ?? new Map<string, number>()).set(event.metric, event.value));
    }
    this.#newest = newest;
    return new Response("", { status: this.#requests % 6 === 4 ? 502 : 200 });
  }

  now(owner: string, metric: string): number | null {
    return this.#newest.get(owner)?.get(metric) ?? null;
  }

  get keys(): ReadonlyMap<string, Event> {
    return this.#byKey;
  }

  of(timelineId: string, metric: string): Event[] {
    return [...this.#byKey.values()].filter((event) => event.timeline_id === timelineId && event.metric === metric);
  }

  async until(what: string, isSo: () => boolean): Promise<void> {
    const deadlineMs = performance.now() + 60_000;
    while (!isSo()) {
      if (performance.now() > deadlineMs) throw new Error(`${what}: not after a minute; last heard of: ${JSON.stringify([...this.#newest].map(([owner, metrics]) => [owner, ...metrics]))}`);
      await Bun.sleep(20);
    }
  }

  async stop(): Promise<void> {
    await this.#server.stop(true);
  }
}

const receiver = new Receiver();
let cluster: TestCluster | null = null;
afterAll(async () => {
  await cluster?.destroy();
  await receiver.stop();
}, 60_000);

/** Ranges join, and hold what the sizes say. */
function expectWhole(timelineId: string): void {
  const deltas = receiver.of(timelineId, "written_data_bytes_delta");
  for (const [index, { start_time: startTime }] of deltas.entries()) if (index > 0) expect([index, startTime]).toEqual([index, deltas[index - 1].stop_time]);
  const sizes = receiver.of(timelineId, "written_size").map(({ value }) => value);
  expect(sizes).toEqual([...sizes].sort((a, b) => a - b));
  const sum = deltas.slice(1).reduce((total, { value }) => total + value, 0);
  expect(sum).toBe(sizes[sizes.length - 1] - sizes[0]);
}

async function write(pgPort: number, rows: number): Promise<number> {
  const client = await connect(pgPort);
  await client.query("create table if not exists notes (id int, text text)");
  await client.query(`insert into notes select i, repeat('x', 100) from generate_series(1, ${rows}) i`);
  const lsn = (await client.query("select pg_current_wal_flush_lsn()")).rows[0][0] ?? "";
  client.destroy();
  return parseLsn(lsn);
}

test("written_size grows with WAL, a deleted timeline is told no more, and a restart goes on where it was", async () => {
  const config = (bucket: string) => `metric_collection_endpoint = "${receiver.endpoint}"\nmetric_collection_interval = "1s"\nsynthetic_size_calculation_interval = "500ms"\ntesting_mode = true\nmetric_collection_bucket = { local_path = "${bucket}" }`;
  const bucket = `/tmp/strata-consumption-${platform.random.bytes(8).toHex()}`;
  cluster = await TestCluster.start({ pgVersion: 17, pageserverConfig: config(bucket) });
  try {
    const { tenantId, branches: [main], ports } = cluster.cluster;
    const firstLsn = await write(cluster.pgPort, 10_000);
    await receiver.until("WAL is counted", () => (receiver.now(main.timelineId, "written_size") ?? 0) >= firstLsn);
    await receiver.until("sizes are told", () => ["remote_storage_size", "resident_size", "synthetic_storage_size"].every((metric) => (receiver.now(tenantId, metric) ?? 0) > 0));
    expect(receiver.now(main.timelineId, "timeline_logical_size")).toBeGreaterThan(1_000_000);

    const controller = new ControllerClient({ baseUrl: `http://127.0.0.1:${ports.controller}`, clock: platform.clock });
    const maker = new BranchMaker({ cluster: cluster.cluster, controller, platform, log: testLogger() });
    const branch = await maker.plan({ name: "branch", parent: main, at: "now" });
    await maker.make(branch, main);
    await receiver.until("the branch is told", () => receiver.now(branch.timelineId, "written_size_since_parent") === 0);
    await controller.deleteTimeline(tenantId, branch.timelineId);
    await receiver.until("the branch is told no more", () => receiver.now(main.timelineId, "written_size") !== null && receiver.now(branch.timelineId, "written_size") === null);

    // It ends between writing the file and putting it in its place, and leaves the one it wrote.
    const failpoint = [{ name: "before-persist-last-metrics-collected", actions: "exit" }];
    await fetch(`http://127.0.0.1:${ports.pageserver.http}/v1/failpoints`, { method: "PUT", body: JSON.stringify(failpoint), headers: { "content-type": "application/json" } });
    const { pageserver, pageserverDirectory } = cluster;
    await receiver.until("the pageserver ended", () => pageserver.endedByItself);
    const files = () => readdirSync(pageserverDirectory).filter((name) => name.startsWith("last_consumption_metrics.json"));
    expect(files().length).toBe(2);
    pageserver.start();
    await pageserver.waitReady(READY_MS);
    const secondLsn = await write(cluster.pgPort, 5_000);
    await receiver.until("WAL is counted again", () => (receiver.now(main.timelineId, "written_size") ?? 0) >= secondLsn);

    for (let count = 0; count < 2; count++) {
      await cluster.kill(pageserver);
      pageserver.start();
      await pageserver.waitReady(READY_MS);
      const lsn = await write(cluster.pgPort, 1_000);
      await receiver.until("WAL is counted after a kill", () => (receiver.now(main.timelineId, "written_size") ?? 0) >= lsn);
      expectWhole(main.timelineId);
    }
    await pageserver.stop();
    expect(files()).toEqual(["last_consumption_metrics.json"]);

    const objects = readdirSync(bucket, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".gz"));
    const lines = objects.flatMap((name) => new TextDecoder().decode(Bun.gunzipSync(readFileSync(join(bucket, name)))).trimEnd().split("\n"));
    const inBucket = new Map(lines.map((line) => JSON.parse(line) as Event).map((event) => [event.idempotency_key, event]));
    // A copy: it misses the round of a kill.
    const missing = [...receiver.keys.keys()].filter((key) => !inBucket.has(key));
    expect([objects.every((name) => /^year=\d{4}\/month=\d{2}\/day=\d{2}\/hour=\d{2}\/\d{2}:\d{2}:\d{2}Z_\d+\.ndjson\.gz$/.test(name)), missing.length < receiver.keys.size / 2]).toEqual([true, true]);
    for (const [key, event] of inBucket) expect(receiver.keys.get(key) ?? event).toEqual(event);
  } finally {
    await cluster.killAll();
    await Bun.$`rm -rf ${bucket}`;
  }
}, 300_000);
