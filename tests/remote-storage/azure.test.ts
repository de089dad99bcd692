/**
 * Azure Blob against Azurite, the emulator of its maker, in a process of its own; the signature alone against a value made
 * independently.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { AzureStorage } from "../../src/remote-storage/azure.ts";
import { azureAuthorization } from "../../src/remote-storage/azure-signature.ts";
import { downloadBytes } from "../../src/remote-storage/remote-storage.ts";
import { remoteStorageConformance } from "./conformance.ts";

// A busy machine may need a while.
setDefaultTimeout(60_000);

const ACCOUNT = "devstoreaccount1";
/** The emulator's, published with it. */
const ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const AZURITE = join(import.meta.dir, "../../node_modules/azurite/dist/src/blob/main.js");
const platform = realPlatform();

describe("Azure shared key", () => {
  test("signs what the documentation says", () => {
    const headers = new Headers({ "x-ms-date": "Fri, 26 Jun 2015 23:39:12 GMT", "x-ms-version": "2015-02-21" });
    const url = new URL("https://myaccount.blob.core.windows.net/mycontainer?comp=metadata&restype=container&timeout=20");
    const text = "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n/myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20";
    const expected = new Bun.CryptoHasher("sha256", Buffer.from(ACCOUNT_KEY, "base64")).update(text).digest("base64");
    expect(azureAuthorization("myaccount", ACCOUNT_KEY, { method: "GET", url, headers, contentLength: 0 })).toBe(`SharedKey myaccount:${expected}`);
  });
});

describe("with Azurite", () => {
  let directory = "";
  let endpoint = "";
  let child: Bun.Subprocess | null = null;
  let containers = 0;

  beforeAll(async () => {
    directory = await mkdtemp(`${tmpdir()}/strata-azurite-`);
    // The free port may be taken by somebody else before Azurite has it.
    for (let start = 0; start < 3; start++) {
      const port = freePort();
      endpoint = `http://127.0.0.1:${port}/${ACCOUNT}`;
      child = Bun.spawn([process.execPath, AZURITE, "--blobHost", "127.0.0.1", "--blobPort", String(port), "--location", directory, "--silent", "--skipApiVersionCheck", "--disableTelemetry"], { stdio: ["ignore", "ignore", "inherit"] });
      if (await answers(child, endpoint)) return;
      child.kill();
      await child.exited;
    }
    throw new Error("Azurite does not answer");
  }, 300_000);
  afterAll(async () => {
    child?.kill();
    await child?.exited;
    await rm(directory, { recursive: true, force: true });
  });

  const make = async (prefix = "") => {
    const container = `test-${++containers}`;
    await createContainer(endpoint, container);
    const storage = new AzureStorage({ endpoint, account: ACCOUNT, container, prefix, authorization: async () => ({ kind: "key", accountKey: ACCOUNT_KEY }), platform, fetch: (url, init) => fetch(url, init as RequestInit) });
    const writeFile = async (bytes: Uint8Array) => {
      await Bun.write(`${directory}/upload`, bytes);
      return `${directory}/upload`;
    };
    return { storage, writeFile };
  };

  remoteStorageConformance("Azure", () => make());
  remoteStorageConformance("Azure below a prefix", () => make("some/where/"));

  remoteStorageConformance("Azure with a shared access signature of the container", async () => {
    const { storage: _byKey, writeFile } = await make();
    const container = `test-${containers}`;
    const query = containerSas(container);
    return { storage: new AzureStorage({ endpoint, account: ACCOUNT, container, authorization: async () => ({ kind: "sas", query }), platform, fetch: (url, init) => fetch(url, init as RequestInit) }), writeFile };
  });

  test("a signature that has ended is forbidden, not missing", async () => {
    const storage = new AzureStorage({ endpoint, account: ACCOUNT, container: "test-1", authorization: async () => ({ kind: "sas", query: containerSas("test-1", -60_000) }), platform, fetch: (url, init) => fetch(url, init as RequestInit) });
    await expect(storage.list({ prefix: "" })).rejects.toMatchObject({ kind: "forbidden", code: "storage-forbidden" });
  });

  test("a container that is not there is no missing object", async () => {
    const storage = new AzureStorage({ endpoint, account: ACCOUNT, container: "never-made", authorization: async () => ({ kind: "key", accountKey: ACCOUNT_KEY }), platform, fetch: (url, init) => fetch(url, init as RequestInit) });
    expect(storage.maxKeysPerDelete).toBe(256);
    const outcomes = await Promise.allSettled([storage.download("k"), storage.list({ prefix: "" }), storage.upload("k", { bytes: new Uint8Array(1) }), storage.delete(["k"]), storage.copy("k", "l")]);
    for (const outcome of outcomes) expect(outcome).toMatchObject({ status: "rejected", reason: { kind: "unavailable", code: "storage-bucket-missing" } });
  });

  test("files above 16 MiB go up in blocks", async () => {
    const { storage, writeFile } = await make();
    const bytes = new Uint8Array(18 * 1024 * 1024 + 5).map((_, i) => i);
    await storage.upload("big", { filePath: await writeFile(bytes), sizeBytes: bytes.length });
    expect(Buffer.compare(await downloadBytes(storage, "big", { maxBytes: 1e9 }), bytes)).toBe(0);
  });
});

/** A service's signature for all that is done here. Source: Azure Storage REST documentation, "Create a service SAS", version 2021-08-06. */
function containerSas(container: string, lifeMs = 3_600_000): string {
  const fields = { sp: "rcwdl", se: new Date(Date.now() + lifeMs).toISOString().replace(/\.\d+/, ""), sv: "2021-08-06", sr: "c" };
  const text = [fields.sp, "", fields.se, `/blob/${ACCOUNT}/${container}`, "", "", "", fields.sv, fields.sr, "", "", "", "", "", "", ""].join("\n");
  const sig = new Bun.CryptoHasher("sha256", Buffer.from(ACCOUNT_KEY, "base64")).update(text).digest("base64");
  return new URLSearchParams({ ...fields, sig }).toString();
}

/** Azurite cannot choose one by itself. */
function freePort(): number {
  const probe = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response() });
  const { port } = probe;
  probe.stop(true);
  return Number(port);
}

/** False once the process is gone, or after a time that is enough on a busy machine. */
async function answers(child: Bun.Subprocess, endpoint: string): Promise<boolean> {
  for (let attempt = 0; attempt < 900 && child.exitCode === null; attempt++) {
    if (await fetch(endpoint).then(() => true, () => false)) return child.exitCode === null;
    await Bun.sleep(100);
  }
  return false;
}

async function createContainer(endpoint: string, container: string): Promise<void> {
  const url = new URL(`${endpoint}/${container}?restype=container`);
  const headers = new Headers({ "x-ms-version": "2021-08-06", "x-ms-date": new Date().toUTCString() });
  headers.set("authorization", azureAuthorization(ACCOUNT, ACCOUNT_KEY, { method: "PUT", url, headers, contentLength: 0 }));
  const response = await fetch(url, { method: "PUT", headers });
  if (response.status !== 201) throw new Error(`container: ${response.status} ${await response.text()}`);
}
