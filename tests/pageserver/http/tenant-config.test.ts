/** A tenant's configuration over HTTP, field by field: what may be set, what is in effect then, what is refused, in the peer's words. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { TENANT_ID, TestPageserver } from "../../support/test-pageserver.ts";

const server = new TestPageserver();
beforeAll(async () => {
  await server.start();
  await server.attach(1);
});
afterAll(() => server.remove());

interface Config {
  readonly tenant_specific_overrides: Record<string, unknown>;
  readonly effective_config: Record<string, unknown>;
}

const config = async () => (await server.http("GET", `/v1/tenant/${TENANT_ID}/config`)).json as Config;
const set = (method: "PUT" | "PATCH", conf: Record<string, unknown>) => server.http(method, "/v1/tenant/config", { tenant_id: TENANT_ID, ...conf });

/** What each is unless set (the peer's defaults, and those of ours that differ by design), a value for it, and how that is told in effect. */
const FIELDS: [name: string, fallback: unknown, value: unknown, effective: unknown, bad: readonly unknown[]][] = [
  ["checkpoint_distance", 268_435_456, 1_048_576, 1_048_576, ["1 MB", -1, 1.5]],
  ["checkpoint_timeout", "10m", "90 s", "1m 30s", ["soon", 90]],
  ["compaction_target_size", 134_217_728, 1000, 1000, [true]],
  ["compaction_period", "20s", "0s", "0s", ["20"]],
  ["compaction_threshold", 10, 3, 3, ["3"]],
  ["l0_flush_stall_threshold", 30, 0, 0, [-1]],
  ["gc_horizon", 67_108_864, 0, 0, ["64MB"]],
  ["gc_period", "1h", "1 hr", "1h", [{}]],
  ["image_creation_threshold", 3, 1, 1, [[]]],
  ["image_layer_creation_check_threshold", 2, 255, 255, [256]],
  ["pitr_interval", "7days", "1 day 12 hours", "1day 12h", ["7"]],
  ["walreceiver_connect_timeout", "10s", "250ms", "250ms", ["x"]],
  ["lagging_wal_timeout", "10s", "1s", "1s", [false]],
  ["max_lsn_wal_lag", 1_073_741_824, 1, 1, [0]],
  ["wal_receiver_protocol_override", expect.anything(), { type: "vanilla" }, { type: "vanilla" }, ["vanilla", { type: "else" }]],
  ["eviction_policy", { kind: "NoEviction" }, { kind: "LayerAccessThreshold", period: "1m", threshold: "1h" }, { kind: "LayerAccessThreshold", period: "1m", threshold: "1h" }, [{ kind: "Sometimes" }, { kind: "LayerAccessThreshold" }]],
  ["min_resident_size_override", null, 4096, 4096, ["4096"]],
  ["heatmap_period", "0s", "5m", "5m", [5]],
  ["lazy_slru_download", false, true, true, ["yes"]],
  ["timeline_get_throttle", { task_kinds: [], initial: 1, refill_interval: "1s", refill_amount: 1, max: 1 }, { task_kinds: ["PageRequestHandler"], initial: 0, refill_interval: "1ms", refill_amount: 5, max: 10 }, { task_kinds: ["PageRequestHandler"], initial: 0, refill_interval: "1ms", refill_amount: 5, max: 10 }, [{}, { task_kinds: [], initial: 0, refill_interval: "0s", refill_amount: 1, max: 1 }]],
  ["lsn_lease_length", "10m", "1s", "1s", ["-1s"]],
  ["lsn_lease_length_for_ts", "1m", "2m", "2m", ["m"]],
  ["timeline_offloading", true, false, false, [0]],
];

test("every field is told under the peer's name", async () => {
  expect(Object.keys((await config()).effective_config).sort()).toEqual(FIELDS.map(([name]) => name).sort());
});

describe.each(FIELDS.map((field) => ({ name: field[0], field })))("$name", ({ field: [name, fallback, value, effective, bad] }) => {
  test("set, seen, kept by a PATCH of something else, unset; what is no value of it changes nothing", async () => {
    expect((await set("PUT", {})).status).toBe(200);
    expect((await config()).effective_config[name]).toEqual(fallback);
    for (const method of ["PUT", "PATCH"] as const) {
      expect([method, await set(method, { [name]: value })]).toEqual([method, { status: 200, json: null }]);
      expect(await config()).toMatchObject({ tenant_specific_overrides: { [name]: value }, effective_config: { [name]: effective } });
      for (const wrong of bad) expect([wrong, (await set(method, { [name]: wrong })).status]).toEqual([wrong, 400]);
      expect((await config()).tenant_specific_overrides).toEqual({ [name]: value });
      expect((await set("PATCH", { sampling_ratio: null })).status).toBe(200);
      expect((await config()).effective_config[name]).toEqual(effective);
      expect((await set(method, { [name]: null })).status).toBe(200);
      expect(await config()).toMatchObject({ tenant_specific_overrides: {}, effective_config: { [name]: fallback } });
      expect((await config()).tenant_specific_overrides).toEqual({});
    }
  });
});

test("a name that nobody knows is refused by name; one of the peer's without effect here is kept and told back", async () => {
  for (const method of ["PUT", "PATCH"] as const) {
    const reply = await set(method, { gc_horzion: 1 });
    expect([reply.status, (reply.json as { msg: string }).msg]).toEqual([400, expect.stringContaining("unknown field `gc_horzion`")]);
  }
  expect((await set("PUT", { gc_compaction_enabled: true })).status).toBe(200);
  const told = await config();
  expect(told.tenant_specific_overrides).toEqual({ gc_compaction_enabled: true });
  expect(told.effective_config).not.toHaveProperty("gc_compaction_enabled");
  // A controller that is newer than the pageserver must still be able to attach.
  expect((await server.attach(2, { of_next_year: 1, gc_horizon: 5 })).status).toBe(200);
  expect((await config()).tenant_specific_overrides).toEqual({ of_next_year: 1, gc_horizon: 5 });
});

test("of nobody, of what is no tenant, and without a tenant", async () => {
  const put = (body: unknown) => server.http("PUT", "/v1/tenant/config", body);
  expect((await put({ tenant_id: "f".repeat(32) })).status).toBe(404);
  for (const body of [{ tenant_id: "x" }, {}, { tenant_id: 5 }, [], null, "text"]) expect([body, (await put(body)).status]).toEqual([body, 400]);
});
