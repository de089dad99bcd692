import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { utf8 } from "../../src/kit/bytes.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { downloadBytes } from "../../src/remote-storage/remote-storage.ts";
import { S3Storage } from "../../src/remote-storage/s3.ts";
import { S3TestServer } from "../support/s3-server.ts";
import { remoteStorageConformance } from "./conformance.ts";

// A busy machine may need a while.
setDefaultTimeout(60_000);

const platform = realPlatform();
const servers: S3TestServer[] = [];
let directory = "";
beforeAll(async () => {
  directory = await mkdtemp(`${tmpdir()}/strata-s3-`);
});
afterAll(async () => {
  for (const server of servers) server.stop();
  await rm(directory, { recursive: true, force: true });
});

function makeServer(versioning: "never" | "enabled" = "never"): S3TestServer {
  const server = new S3TestServer();
  server.stored.versioning = versioning;
  servers.push(server);
  return server;
}

function storageOf(server: S3TestServer, options: { prefix?: string; secretAccessKey?: string; timeoutMs?: number } = {}): S3Storage {
  const { prefix, secretAccessKey = server.credentials.secretAccessKey, timeoutMs } = options;
  return new S3Storage({ endpoint: server.endpoint, region: server.region, bucket: server.bucket, prefix, credentials: async () => ({ accessKeyId: server.credentials.accessKeyId, secretAccessKey }), platform, fetch: (url, init) => fetch(url, init as RequestInit), timeoutMs });
}

const writeFile = async (bytes: Uint8Array) => {
  await Bun.write(`${directory}/upload`, bytes);
  return `${directory}/upload`;
};

remoteStorageConformance("S3", async () => ({ storage: storageOf(makeServer("enabled")), writeFile }), { travelsInTime: true });
remoteStorageConformance("S3 below a prefix", async () => ({ storage: storageOf(makeServer("enabled"), { prefix: "some/where/" }), writeFile }), { travelsInTime: true });

describe("S3", () => {
  test("files above 16 MiB go up in parts, and a failed upload leaves none behind", async () => {
    const server = makeServer();
    const storage = storageOf(server);
    const bytes = new Uint8Array(18 * 1024 * 1024 + 5).map((_, i) => i);
    const filePath = await writeFile(bytes);
    await storage.upload("big", { filePath, sizeBytes: bytes.length });
    expect(server.requests).toBe(5);
    expect(Buffer.compare(await downloadBytes(storage, "big", { maxBytes: 1e9 }), bytes)).toBe(0);
    server.failures.push(null, null, 503);
    await expect(storage.upload("big2", { filePath, sizeBytes: bytes.length })).rejects.toMatchObject({ kind: "unavailable" });
    expect(server.unfinishedUploads).toBe(0);
    expect(server.objects.has("big2")).toBe(false);
  });

  test("keys with odd characters", async () => {
    const server = makeServer();
    const storage = storageOf(server);
    const key = "a b/c+d/é&<x>'(1)*!~";
    await storage.upload(key, { bytes: utf8("odd") });
    expect([...server.objects.keys()]).toEqual([key]);
    expect((await storage.list({ prefix: "a b/c+" })).objects.map((object) => object.key)).toEqual([key]);
    await storage.copy(key, "copy");
    await storage.delete([key]);
    expect([...server.objects.keys()]).toEqual(["copy"]);
  });

  test("statuses become errors that say what to do", async () => {
    const server = makeServer();
    await storageOf(server).upload("k", { bytes: utf8("x") });
    const outcome = (status: number) => {
      server.failures.push(status);
      return storageOf(server).download("k");
    };
    for (const status of [429, 500, 503]) await expect(outcome(status)).rejects.toMatchObject({ kind: "unavailable", code: "storage-unavailable" });
    await expect(outcome(400)).rejects.toMatchObject({ code: "storage-refused" });
    await expect(storageOf(server, { secretAccessKey: "wrong" }).download("k")).rejects.toMatchObject({ kind: "forbidden", code: "storage-forbidden" });
    const dead = makeServer();
    dead.stop();
    await expect(storageOf(dead).download("k")).rejects.toMatchObject({ kind: "unavailable" });
  });

  test("a bucket that is not there, and what is no object store at all, are no missing objects", async () => {
    const server = makeServer();
    const missing = new S3Storage({ endpoint: server.endpoint, region: server.region, bucket: "another", credentials: async () => server.credentials, platform, fetch: (url, init) => fetch(url, init as RequestInit) });
    const gateway = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response("<html>no such page</html>", { status: 404 }) });
    const elsewhere = new S3Storage({ endpoint: `http://127.0.0.1:${gateway.port}`, region: "r", bucket: "b", credentials: async () => server.credentials, platform, fetch: (url, init) => fetch(url, init as RequestInit) });
    for (const storage of [missing, elsewhere]) {
      const outcomes = await Promise.allSettled([storage.download("k"), storage.list({ prefix: "" }), storage.upload("k", { bytes: utf8("x") }), storage.delete(["k"]), storage.copy("k", "l")]);
      for (const outcome of outcomes) expect(outcome).toMatchObject({ status: "rejected", reason: { kind: "unavailable", code: "storage-bucket-missing" } });
    }
    gateway.stop(true);
  });

  test("what passes by itself is told so, whatever its status; a redirection is not followed", async () => {
    const server = makeServer();
    const storage = storageOf(server);
    const cases: [number, string, string][] = [
      [400, "RequestTimeout", "unavailable"], [400, "BadDigest", "unavailable"], [409, "OperationAborted", "unavailable"], [503, "SlowDown", "unavailable"],
      [400, "ExpiredToken", "forbidden"], [400, "InvalidArgument", "fix-input"], [301, "PermanentRedirect", "fix-input"],
    ];
    for (const [status, code, kind] of cases) {
      server.failures.push({ status, code });
      expect([code, await storage.upload("k", { bytes: utf8("x") }).catch((error: unknown) => error)]).toEqual([code, expect.objectContaining({ kind })]);
    }
    const other = makeServer();
    const redirecting = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: ({ url }) => Response.redirect(`${other.endpoint}${new URL(url).pathname}`, 307) });
    const sent = new S3Storage({ endpoint: `http://127.0.0.1:${redirecting.port}`, region: "r", bucket: other.bucket, credentials: async () => other.credentials, platform, fetch: (url, init) => fetch(url, init as RequestInit) });
    await expect(sent.upload("k", { bytes: utf8("x") })).rejects.toMatchObject({ code: "storage-refused" });
    expect(other.requests).toBe(0);
    redirecting.stop(true);
  });

  test("an upload whose parts were dropped meanwhile begins anew", async () => {
    const server = makeServer();
    const storage = storageOf(server);
    const source = { bytes: new Uint8Array(17 * 1024 * 1024) };
    server.failures.push(null, null, { status: 404, code: "NoSuchUpload" });
    await expect(storage.upload("big", source)).rejects.toMatchObject({ kind: "unavailable" });
    await storage.upload("big", source);
    expect(server.objects.get("big")?.bytes.length).toBe(source.bytes.length);
  });

  test("deletions go a thousand at once", async () => {
    const server = makeServer();
    const storage = storageOf(server);
    const keys = Array.from({ length: 2500 }, (_, i) => `many/${i}`);
    for (const key of keys) server.stored.put(key, utf8("x"));
    expect(storage.maxKeysPerDelete).toBe(1000);
    await storage.delete(keys);
    expect([server.requests, server.objects.size]).toEqual([3, 0]);
  });

  test("a server that stops talking runs into the time limit", async () => {
    const silent = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Promise<Response>(() => {}) });
    const storage = new S3Storage({ endpoint: `http://127.0.0.1:${silent.port}`, region: "r", bucket: "b", credentials: async () => ({ accessKeyId: "a", secretAccessKey: "b" }), platform, fetch: (url, init) => fetch(url, init as RequestInit), timeoutMs: 50 });
    await expect(storage.download("k")).rejects.toMatchObject({ kind: "unavailable" });
    silent.stop(true);
  });

  test("a server that never ends its answer is left, whether it says yes or no", async () => {
    const chunk = new Uint8Array(64 * 1024).fill(0x78);
    for (const status of [200, 500]) {
      let sentBytes = 0;
      const endless = (): Response => new Response(new ReadableStream({ pull: (controller) => void ((sentBytes += chunk.length), controller.enqueue(chunk)) }), { status });
      const storage = new S3Storage({ endpoint: "http://127.0.0.1:1", region: "r", bucket: "b", credentials: async () => ({ accessKeyId: "a", secretAccessKey: "b" }), platform, fetch: async () => endless() });
      await expect(storage.list({ prefix: "" })).rejects.toMatchObject({ kind: "unavailable", code: "storage-unavailable" });
      expect(sentBytes).toBeLessThan(40 * 1024 * 1024);
      if (status === 200) continue;
      sentBytes = 0;
      await expect(storage.download("k")).rejects.toMatchObject({ kind: "unavailable" });
      expect(sentBytes).toBeLessThan(1024 * 1024);
    }
  });
});
