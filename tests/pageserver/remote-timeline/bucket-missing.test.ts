/** A bucket that is not there, or not yet: its tenants wait for it and are not taken for empty; once it is there they are active. */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { S3TestServer } from "../../support/s3-server.ts";
import { TENANT_ID, TestPageserver } from "../../support/test-pageserver.ts";

setDefaultTimeout(60_000);

const s3 = new S3TestServer();
const server = new TestPageserver({ remoteStorage: { kind: "s3", bucket: "of-tomorrow", region: s3.region, endpoint: s3.endpoint, credentials: s3.credentials } });
afterAll(async () => {
  await server.remove();
  s3.stop();
});

const slug = async (): Promise<string> => ((await server.http("GET", `/v1/tenant/${TENANT_ID}`)).json as { state: { slug: string } }).state.slug;

test("a tenant waits for its bucket", async () => {
  server.log.expectWarn(/object storage cannot be read/);
  await server.start();
  const attaching = server.attach(1);
  await Bun.sleep(1500);
  expect(await slug()).toBe("Attaching");
  expect(server.log.entries.some(({ message, fields }) => message.includes("object storage cannot be read") && String(fields.error).includes("NoSuchBucket"))).toBe(true);
  Object.assign(s3, { bucket: "of-tomorrow" });
  for (let look = 0; look < 300 && (await slug()) === "Attaching"; look++) await Bun.sleep(100);
  expect(await slug()).toBe("Active");
  expect((await attaching).status).toBe(200);
});
