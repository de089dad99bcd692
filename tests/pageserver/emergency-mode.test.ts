/** A start while the control plane is away: tenants are waited for, or taken up as they were last known, when an operator says so. */
import { afterAll, expect, test } from "bun:test";
import { freePort } from "../../src/platform/free-port.ts";
import { TENANT_ID, TestPageserver } from "../support/test-pageserver.ts";

const server = new TestPageserver();
afterAll(() => server.remove());

test("in emergency mode tenants are attached without the control plane, and that is said loudly", async () => {
  await server.start();
  expect((await server.attach(3)).status).toBe(200);
  await server.stop();
  server.configure({ controlPlaneApi: `http://127.0.0.1:${freePort()}/upcall/v1/`, emergencyMode: true });
  await server.start();
  const { status, json } = await server.http("GET", `/v1/location_config/${TENANT_ID}`);
  expect([status, json]).toEqual([200, expect.objectContaining({ mode: "AttachedSingle", generation: 3 })]);
  expect(server.log.entries.filter(({ level }) => level === "error").map(({ message }) => message)).toEqual([expect.stringContaining("emergency mode")]);
});

test("without it, nothing is attached before the control plane has answered", async () => {
  await server.stop();
  let isAsked = false;
  const controlPlane = Bun.serve({
    port: 0, hostname: "127.0.0.1",
    fetch: (request) => {
      isAsked ||= new URL(request.url).pathname.endsWith("/re-attach");
      return Response.json({ tenants: [{ id: TENANT_ID, gen: 4, mode: "AttachedSingle" }] });
    },
  });
  try {
    server.configure({ controlPlaneApi: `http://127.0.0.1:${controlPlane.port}/upcall/v1/`, emergencyMode: false });
    await server.start();
    expect([isAsked, (await server.http("GET", `/v1/location_config/${TENANT_ID}`)).json]).toEqual([true, expect.objectContaining({ generation: 4 })]);
  } finally {
    await controlPlane.stop(true);
  }
});
