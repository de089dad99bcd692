/**
 * Azure Blob against Azurite, where that is installed (`node_modules/.bin/azurite-blob`, or its path in STRATA_AZURITE);
 * the signature alone against a value made independently.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
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
const azurite = process.env.STRATA_AZURITE ?? join(import.meta.dir, "../../node_modules/.bin/azurite-blob");
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

if (!existsSync(azurite)) {
  test.skip("Azurite is not installed: the conformance suite does not run against Azure", () => {});
} else {
  describe("with Azurite", () => withAzurite());
}

function withAzurite(): void {
  let directory = "";
  let endpoint = "";
  let child: ReturnType<typeof Bun.spawn> | null = null;
  let containers = 0;

  beforeAll(async () => {
    directory = await mkdtemp(`${tmpdir()}/strata-azurite-`);
    // Azurite cannot take a free port by itself.
    const probe = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response() });
    const { port } = probe;
    probe.stop(true);
    child = Bun.spawn([process.execPath, azurite, "--blobHost", "127.0.0.1", "--blobPort", String(port), "--location", directory, "--silent", "--skipApiVersionCheck", "--disableTelemetry"], { stdio: ["ignore", "ignore", "ignore"] });
    endpoint = `http://127.0.0.1:${port}/${ACCOUNT}`;
    for (let attempt = 0; attempt < 200; attempt++) {
      if (await fetch(endpoint).then(() => true, () => false)) return;
      await Bun.sleep(100);
    }
    throw new Error("Azurite does not answer");
  }, 30_000);
  afterAll(async () => {
    child?.kill();
    await child?.exited;
    await rm(directory, { recursive: true, force: true });
  });

  const make = async (prefix = "") => {
    const container = `test-${++containers}`;
    await createContainer(endpoint, container);
    const storage = new AzureStorage({ endpoint, account: ACCOUNT, container, prefix, accountKey: async () => ACCOUNT_KEY, platform, fetch: (url, init) => fetch(url, init as RequestInit) });
    const writeFile = async (bytes: Uint8Array) => {
      await Bun.write(`${directory}/upload`, bytes);
      return `${directory}/upload`;
    };
    return { storage, writeFile };
  };

  remoteStorageConformance("Azure", () => make());
  remoteStorageConformance("Azure below a prefix", () => make("some/where/"));

  test("files above 16 MiB go up in blocks", async () => {
    const { storage, writeFile } = await make();
    const bytes = new Uint8Array(18 * 1024 * 1024 + 5).map((_, i) => i);
    await storage.upload("big", { filePath: await writeFile(bytes), sizeBytes: bytes.length });
    expect(Buffer.compare(await downloadBytes(storage, "big", { maxBytes: 1e9 }), bytes)).toBe(0);
  });
}

async function createContainer(endpoint: string, container: string): Promise<void> {
  const url = new URL(`${endpoint}/${container}?restype=container`);
  const headers = new Headers({ "x-ms-version": "2021-08-06", "x-ms-date": new Date().toUTCString() });
  headers.set("authorization", azureAuthorization(ACCOUNT, ACCOUNT_KEY, { method: "PUT", url, headers, contentLength: 0 }));
  const response = await fetch(url, { method: "PUT", headers });
  if (response.status !== 201) throw new Error(`container: ${response.status} ${await response.text()}`);
}
