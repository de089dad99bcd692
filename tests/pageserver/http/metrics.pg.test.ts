/** Metrics under the peer's names tell what was done. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { TENANT_ID, TestPageserver } from "../../support/test-pageserver.ts";

setDefaultTimeout(120_000);

const ROOT = "aa".repeat(16);
const TIMELINE = `/v1/tenant/${TENANT_ID}/timeline/${ROOT}`;
const LABELS = `tenant_id="${TENANT_ID}",shard_id="0000",timeline_id="${ROOT}"`;
const server = new TestPageserver();

beforeAll(async () => {
  await server.start();
  await server.attach(1, { gc_period: "0s", compaction_period: "0s", pitr_interval: "0s", gc_horizon: 0 });
  expect((await server.http("POST", `/v1/tenant/${TENANT_ID}/timeline`, { new_timeline_id: ROOT, pg_version: 17 })).status).toBe(201);
});
afterAll(() => server.remove());

async function read(): Promise<(name: string) => number | undefined> {
  const text = await (await fetch(`http://127.0.0.1:${server.running.httpPort}/metrics`)).text();
  const values = new Map(text.split("\n").filter((line) => line !== "" && !line.startsWith("#")).map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ") + 1))]));
  return (name) => values.get(name);
}

test("layers, uploads, storage operations, deletions", async () => {
  expect((await server.http("PUT", `${TIMELINE}/checkpoint?force_image_layer_creation=true&wait_until_uploaded=true`)).status).toBe(200);
  const of = await read();
  const layers = ((await server.http("GET", `${TIMELINE}/layer`)).json as { historic_layers: { kind: string; layer_file_size: number }[] }).historic_layers;
  for (const kind of ["delta", "image"]) {
    const those = layers.filter((layer) => layer.kind.toLowerCase() === kind);
    const ofLevels = (name: string) => ["l0", "l1"].reduce((sum, level) => sum + (of(`${name}{${LABELS},level="${level}",kind="${kind}"}`) ?? 0), 0);
    expect([kind, ofLevels("pageserver_layer_count")]).toEqual([kind, those.length]);
    expect([kind, ofLevels("pageserver_layer_bytes")]).toEqual([kind, those.reduce((sum, layer) => sum + layer.layer_file_size, 0)]);
  }
  const bytes = layers.reduce((sum, layer) => sum + layer.layer_file_size, 0);
  expect([of("pageserver_resident_physical_size_global"), of("pageserver_remote_physical_size_global")]).toEqual([bytes, bytes]);
  expect(of(`pageserver_remote_operation_seconds_count{file_kind="layer",op_kind="upload",status="success"}`)).toBe(layers.length);
  const upload = `{${LABELS},file_kind="layer",op_kind="upload"}`;
  expect([of(`pageserver_remote_timeline_client_calls_started${upload}`), of(`pageserver_remote_timeline_client_calls_finished${upload}`)]).toEqual([layers.length, layers.length]);
  expect(of(`pageserver_remote_timeline_client_bytes_finished${upload}`)).toBe(bytes);
  expect(of(`pageserver_remote_operation_seconds_count{file_kind="index",op_kind="upload",status="success"}`)).toBeGreaterThan(0);
  for (const operation of ["layer flush", "create images"]) expect(of(`pageserver_storage_operations_seconds_global_count{operation="${operation}"}`)).toBeGreaterThan(0);
  expect([of("pageserver_timeline_ephemeral_bytes"), of("pageserver_startup_is_loading"), of(`pageserver_valid_lsn_lease_count{${LABELS}}`)]).toEqual([0, 0, 0]);
  expect([of("pageserver_deletion_queue_submitted_total"), of("pageserver_deletion_queue_dropped_total")]).toEqual([0, 0]);
  expect((await server.http("PUT", `/v1/deletion_queue/flush?execute=true`)).status).toBe(200);
});

test("connections, commands, backups and leases", async () => {
  const client = await server.client();
  await client.query(`lease lsn ${TENANT_ID} ${ROOT} ${((await server.http("GET", TIMELINE)).json as { last_record_lsn: string }).last_record_lsn}`);
  const copy = await client.copyOut(`basebackup ${TENANT_ID} ${ROOT} --gzip`);
  while ((await copy.read()) !== null) continue;
  await copy.finish();
  await expect(client.query(`basebackup ${TENANT_ID} ${"d".repeat(32)}`)).rejects.toThrow("was not found");
  const during = await read();
  expect((during(`pageserver_live_connections_started{pageserver_connection_kind="page_service"}`) ?? 0) - (during(`pageserver_live_connections_finished{pageserver_connection_kind="page_service"}`) ?? 0)).toBe(1);
  await client.close();
  await Bun.sleep(50);
  const of = await read();
  expect([of(`pageserver_compute_commands{command="LeaseLsn"}`), of(`pageserver_compute_commands{command="Basebackup"}`)]).toEqual([1, 2]);
  expect([of(`pageserver_basebackup_query_seconds_count{result="ok"}`), of(`pageserver_basebackup_query_seconds_count{result="error"}`)]).toEqual([1, 1]);
  expect(of(`pageserver_live_connections_finished{pageserver_connection_kind="page_service"}`)).toBe(1);
  expect(of(`pageserver_valid_lsn_lease_count{${LABELS}}`)).toBe(1);
});
