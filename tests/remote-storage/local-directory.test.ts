import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { utf8 } from "../../src/kit/bytes.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { VirtualWorld } from "../../src/platform/virtual/virtual-world.ts";
import { FaultInjectingStorage } from "../../src/remote-storage/fault-injecting.ts";
import { LocalDirectoryStorage } from "../../src/remote-storage/local-directory.ts";
import { downloadBytes } from "../../src/remote-storage/remote-storage.ts";
import { remoteStorageConformance } from "./conformance.ts";

// A busy machine may need a while.
setDefaultTimeout(60_000);

const platform = realPlatform();
const directories: string[] = [];
afterAll(async () => {
  for (const directory of directories) await rm(directory, { recursive: true, force: true });
});

async function make() {
  const root = await mkdtemp(`${tmpdir()}/strata-bucket-`);
  directories.push(root);
  const writeFile = async (bytes: Uint8Array) => {
    await Bun.write(`${root}.upload`, bytes);
    directories.push(`${root}.upload`);
    return `${root}.upload`;
  };
  return { storage: await LocalDirectoryStorage.open(root, platform), writeFile };
}

remoteStorageConformance("local directory", make);
remoteStorageConformance("wrapped, without faults", async () => {
  const { storage, writeFile } = await make();
  return { storage: new FaultInjectingStorage(storage, platform), writeFile };
});

describe("local directory", () => {
  test("an upload that returned survives a power cut; one under way leaves the old object or the new", () => {
    for (let seed = 1; seed <= 40; seed++) {
      const world = new VirtualWorld({ seed });
      const machine = world.machine("storage");
      machine.faults = { latencyMs: () => world.random.float() };
      world.clock.run(async () => {
        await machine.platform.files.makeDirectory("/bucket");
        await machine.platform.files.syncDirectory("/");
        const storage = await LocalDirectoryStorage.open("/bucket", machine.platform);
        await storage.upload("a/b/done", { bytes: utf8("old") });
        await storage.upload("a/b/kept", { bytes: utf8("kept") });
        const running = storage.upload("a/b/done", { bytes: utf8("newer") });
        running.catch(() => {});
        await world.clock.sleep(world.random.float() * 8);
        machine.crash();
        const again = await LocalDirectoryStorage.open("/bucket", machine.boot());
        const text = async (key: string) => new TextDecoder().decode(await downloadBytes(again, key, { maxBytes: 100 }));
        expect(["old", "newer"]).toContain(await text("a/b/done"));
        expect(await text("a/b/kept")).toBe("kept");
        expect((await again.list({ prefix: "" })).objects.length).toBe(2);
      });
    }
  });
});

describe("fault injection", () => {
  test("does each kind of harm", async () => {
    const { storage } = await make();
    const faulty = new FaultInjectingStorage(storage, platform);
    faulty.plan = { ...faulty.plan, failBefore: 1 };
    await expect(faulty.upload("x", { bytes: utf8("1") })).rejects.toMatchObject({ code: "storage-unavailable", kind: "unavailable" });
    expect((await storage.list({ prefix: "" })).objects.length).toBe(0);
    faulty.plan = { ...faulty.plan, failBefore: 0, failAfter: 1 };
    await expect(faulty.upload("x", { bytes: utf8("1") })).rejects.toMatchObject({ code: "storage-unavailable" });
    expect((await storage.list({ prefix: "" })).objects.length).toBe(1);
    faulty.plan = { ...faulty.plan, failAfter: 0, staleList: 1 };
    expect((await faulty.list({ prefix: "" })).objects.length).toBe(1);
    await storage.delete(["x"]);
    expect((await faulty.list({ prefix: "" })).objects.length).toBe(1);
    await storage.upload("y", { bytes: new Uint8Array(1000) });
    faulty.plan = { ...faulty.plan, staleList: 0, cutDownload: 1 };
    await expect(downloadBytes(faulty, "y", { maxBytes: 1e6 })).rejects.toMatchObject({ code: "storage-unavailable" });
    expect(faulty.faults).toBe(4);
  });
});
