import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { generateTokenKeys, signToken } from "../../../src/http/auth.ts";
import { TENANT_ID, TestPageserver } from "../../support/test-pageserver.ts";

const TIMELINE = "aa".repeat(16);

describe("tokens", () => {
  const keys = generateTokenKeys();
  const server = new TestPageserver();
  const admin = signToken({ scope: "pageserverapi" }, keys.privateKeyPem);
  const tenant = signToken({ scope: "tenant", tenantId: TENANT_ID }, keys.privateKeyPem);
  const stranger = signToken({ scope: "tenant", tenantId: "f".repeat(32) }, keys.privateKeyPem);
  const expired = signToken({ scope: "tenant", tenantId: TENANT_ID }, keys.privateKeyPem, { expiresAtSeconds: 1_600_000_000 });
  beforeAll(async () => {
    const path = join(server.root, "auth.pem");
    writeFileSync(path, keys.publicKeyPem);
    server.configure({ pgAuth: true, httpAuth: true, authPublicKeyPath: path });
    await server.start();
  });
  afterAll(() => server.remove());

  const status = async (method: string, path: string, token: string | null): Promise<number> => {
    const reply = await fetch(`http://127.0.0.1:${server.running.httpPort}${path}`, { method, headers: token === null ? {} : { authorization: `Bearer ${token}` } });
    return reply.status;
  };

  test("HTTP: nobody without a token, tenants only their own, operators everything", async () => {
    expect(await status("GET", "/v1/status", null)).toBe(200);
    expect(await status("GET", "/v1/tenant", null)).toBe(401);
    expect(await status("GET", "/v1/tenant", admin)).toBe(200);
    expect(await status("GET", "/v1/tenant", tenant)).toBe(403);
    expect(await status("GET", `/v1/tenant/${TENANT_ID}`, tenant)).toBe(404);
    expect(await status("GET", `/v1/tenant/${TENANT_ID}`, stranger)).toBe(403);
    expect(await status("GET", `/v1/tenant/${TENANT_ID}`, expired)).toBe(403);
    expect(await status("PUT", `/v1/tenant/${TENANT_ID}/location_config`, tenant)).toBe(403);
  });

  test("libpq: the same, for each command", async () => {
    await expect(server.client("nonsense")).rejects.toThrow("token refused");
    await expect(server.client(expired)).rejects.toThrow("token refused");
    const other = await server.client(stranger);
    await expect(other.query(`basebackup ${TENANT_ID} ${TIMELINE}`)).rejects.toThrow("permission denied");
    await other.close();
    for (const token of [tenant, admin]) {
      const client = await server.client(token);
      await expect(client.query(`basebackup ${TENANT_ID} ${TIMELINE}`)).rejects.toThrow("was not found");
      await client.close();
    }
  });
});
