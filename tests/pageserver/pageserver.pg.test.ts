import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { decodeResponse, encodeGetPage, encodeRelRequest } from "../../src/pageserver/api/pagestream.ts";
import { LSN_MAX, parseLsn } from "../../src/kit/lsn.ts";
import type { TimelineInfo } from "../../src/pageserver/api/timelines.ts";
import type { CopyStream } from "../../src/wire/pg-session.ts";
import { TENANT_ID, TestPageserver } from "../support/test-pageserver.ts";

const ROOT = "aa".repeat(16);
const BRANCH = "bb".repeat(16);
const PG_CLASS = { spcOid: 1663, dbOid: 5, relNumber: 1259, fork: 0 };
const latest = { requestId: 7n, requestLsn: LSN_MAX, notModifiedSince: 8 };

async function ask(stream: CopyStream, ...messages: Uint8Array[]): Promise<Uint8Array[]> {
  for (const message of messages) stream.write(message);
  const answers: Uint8Array[] = [];
  for (const _ of messages) answers.push((await stream.read()) as Uint8Array);
  return answers;
}

describe("pageserver", () => {
  const server = new TestPageserver();
  let root: TimelineInfo;
  beforeAll(async () => {
    await server.start();
    expect((await server.attach(1)).status).toBe(200);
    const created = await server.http("POST", `/v1/tenant/${TENANT_ID}/timeline`, { new_timeline_id: ROOT, pg_version: 17 });
    expect(created.status).toBe(201);
    root = created.json as TimelineInfo;
  }, 30_000);
  afterAll(() => server.remove());

  test("a root timeline from initdb is in object storage when it is created", () => {
    expect(parseLsn(root.remote_consistent_lsn)).toBe(parseLsn(root.last_record_lsn));
    expect(parseLsn(root.prev_record_lsn ?? "")).toBeLessThan(parseLsn(root.last_record_lsn));
    expect(root.current_logical_size).toBeGreaterThan(20_000_000);
    expect(root.state).toBe("Active");
    // initdb's: three databases, catalogs, a segment each of clog, multixact members and offsets.
    const [databases, prepared, relations, auxFiles, ...slrus] = root.directory_entries_counts;
    expect([databases >= 3, prepared, relations > 500, auxFiles, slrus]).toEqual([true, 0, true, 0, [1, 1, 1]]);
  });

  test("creating it again is answered alike, creating another under its id is refused", async () => {
    expect((await server.http("POST", `/v1/tenant/${TENANT_ID}/timeline`, { new_timeline_id: ROOT, pg_version: 17 })).status).toBe(201);
    expect((await server.http("POST", `/v1/tenant/${TENANT_ID}/timeline`, { new_timeline_id: ROOT, ancestor_timeline_id: BRANCH })).status).toBe(409);
    expect((await server.http("POST", `/v1/tenant/${TENANT_ID}/timeline`, { new_timeline_id: "77".repeat(16), pg_version: 17, existing_initdb_timeline_id: BRANCH })).status).toBe(404);
  });

  test("pagestream v3 answers in order and echoes the request; an error leaves the stream up", async () => {
    const client = await server.client();
    const stream = await client.copyBoth(`pagestream_v3 ${TENANT_ID} ${ROOT}`);
    const getPage = encodeGetPage(latest, { rel: PG_CLASS, block: 0 }, 3);
    const missing = encodeRelRequest("nblocks", latest, { rel: { ...PG_CLASS, relNumber: 999_999 }, version: 3 });
    const [page, error, exists, blocks] = await ask(
      stream, getPage, missing, encodeRelRequest("exists", latest, { rel: PG_CLASS, version: 3 }), encodeRelRequest("nblocks", latest, { rel: PG_CLASS, version: 3 }),
    );
    expect(page.length).toBe(1 + 24 + 13 + 4 + 8192);
    expect(Buffer.compare(page.subarray(1, 42), getPage.subarray(1))).toBe(0);
    expect(page[0]).toBe(102);
    expect(() => decodeResponse(error, 3)).toThrow("relation 1663/5/999999 does not exist");
    expect([exists[0], exists.at(-1)]).toEqual([100, 1]);
    expect(Number(Buffer.from(blocks.subarray(-4)).readUInt32BE())).toBeGreaterThan(5);
    await expect(ask(stream, encodeGetPage({ ...latest, requestLsn: 8, notModifiedSince: 8 }, { rel: PG_CLASS, block: 0 }, 3)).then(([answer]) => decodeResponse(answer, 3))).rejects.toThrow("garbage collected");
    client.destroy();
  });

  test("pagestream v2 has bare results", async () => {
    const client = await server.client();
    const stream = await client.copyBoth(`pagestream_v2 ${TENANT_ID} ${ROOT}`);
    const [page] = await ask(stream, encodeGetPage(latest, { rel: PG_CLASS, block: 0 }, 2));
    expect(page.length).toBe(1 + 8192);
    client.destroy();
  });

  test("unknown tenants, timelines and commands are errors; the session goes on", async () => {
    const client = await server.client();
    const stream = await client.copyBoth(`pagestream_v3 ${TENANT_ID} ${BRANCH.replace("b", "c")}`);
    const [answer] = await ask(stream, encodeGetPage(latest, { rel: PG_CLASS, block: 0 }, 3));
    expect(() => decodeResponse(answer, 3)).toThrow("was not found");
    client.destroy();
    const other = await server.client();
    await expect(other.query("no_such_command x")).rejects.toThrow("unsupported command");
    await expect(other.query(`basebackup ${"f".repeat(32)} ${ROOT}`)).rejects.toThrow("was not found");
    const { rows } = await other.query(`lease lsn ${TENANT_ID} ${ROOT} ${root.last_record_lsn}`);
    expect(Number(rows[0][0])).toBeGreaterThan(1_600_000_000_000);
    await other.close();
  });

  test("branches, restart, and a wiped disk", async () => {
    const path = `/v1/tenant/${TENANT_ID}/timeline`;
    const branch = (await server.http("POST", path, { new_timeline_id: BRANCH, ancestor_timeline_id: ROOT })).json as TimelineInfo;
    expect(branch.ancestor_lsn).toBe(root.last_record_lsn);
    const pageOf = async (timeline: string): Promise<string> => {
      const client = await server.client();
      const stream = await client.copyBoth(`pagestream_v3 ${TENANT_ID} ${timeline}`);
      const [page] = await ask(stream, encodeGetPage(latest, { rel: PG_CLASS, block: 1 }, 3));
      client.destroy();
      return Buffer.from(decodeResponse(page, 3).body).toString("hex");
    };
    const before = await pageOf(ROOT);
    expect(await pageOf(BRANCH)).toBe(before);
    await server.stop();
    await server.start();
    expect(await pageOf(BRANCH)).toBe(before);
    await server.stop(false);
    server.wipe();
    await server.start();
    expect((await server.http("GET", `/v1/tenant/${TENANT_ID}`)).status).toBe(404);
    await server.attach(2);
    expect(await pageOf(ROOT)).toBe(before);
    expect(await pageOf(BRANCH)).toBe(before);
    expect(((await server.http("GET", path)).json as unknown[]).length).toBe(2);
    expect((await server.attach(1)).status).toBe(409);
    expect((await server.http("DELETE", `${path}/${ROOT}`)).status).toBe(412);
    expect((await server.http("DELETE", `${path}/${BRANCH}`)).status).toBe(202);
    expect((await server.http("GET", `${path}/${BRANCH}`)).status).toBe(404);
  }, 30_000);

  test("checkpoint, compaction and GC by hand", async () => {
    const path = `/v1/tenant/${TENANT_ID}/timeline/${ROOT}`;
    expect((await server.http("PUT", `${path}/checkpoint?force_image_layer_creation=true&wait_until_uploaded=true`)).status).toBe(200);
    // Leases of the process before are not waited for.
    expect((await server.http("PATCH", "/v1/tenant/config", { tenant_id: TENANT_ID, lsn_lease_length: "0s" })).status).toBe(200);
    const gc = await server.http("PUT", `${path}/do_gc`, { gc_horizon: 0 });
    const layers = (await server.http("GET", `${path}/layer`)).json as { historic_layers: { layer_file_name: string }[] };
    expect(layers.historic_layers.length).toBeGreaterThan(0);
    const { elapsed, gc_cutoff: cutoff, layers_removed: removed, layers_total: total, ...kept } = gc.json as Record<string, number>;
    expect([gc.status, elapsed >= 0, cutoff > 0]).toEqual([200, true, true]);
    expect(Object.keys(kept)).toEqual(["needed_by_cutoff", "needed_by_pitr", "needed_by_branches", "needed_by_leases", "not_updated"].map((name) => `layers_${name}`));
    expect(total).toBe(Object.values(kept).reduce((sum, layers) => sum + layers, removed));
    expect(total - removed).toBe(layers.historic_layers.length);
    expect((await server.http("PUT", `${path}/do_gc`)).status).toBe(400);
    expect((await server.http("PUT", `${path}/do_gc`, { gc_horizon: -1 })).status).toBe(400);
    expect((await server.http("GET", `${path}/get_lsn_by_timestamp?timestamp=2020-01-01T00:00:00Z`)).json).toMatchObject({ kind: expect.stringMatching(/past|nodata/) });
  }, 30_000);
});
