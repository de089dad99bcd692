/** What every remote storage must do. `make` gives an empty storage; it is called once a test. */
import { describe, expect, test } from "bun:test";
import { utf8, utf8ToString } from "../../src/kit/bytes.ts";
import { downloadBytes, listAll, type RemoteStorage } from "../../src/remote-storage/remote-storage.ts";

export interface ConformanceTarget {
  readonly storage: RemoteStorage;
  /** A local file of this content, for uploads from files. */
  writeFile(bytes: Uint8Array): Promise<string>;
}

export interface ConformanceOptions {
  /** S3 lists in byte order. One imitation lists directory by directory, and between pages loses names that sort differently then: those are left out. */
  readonly listsInOrder?: boolean;
  /** One imitation escapes `&` and its like twice in listings, signs `(` and its like as they are, and decodes too little of a copy's source. */
  readonly exactKeys?: boolean;
  /** It keeps versions and travels back to them; others say that they cannot. */
  readonly travelsInTime?: boolean;
}

type Make = () => Promise<ConformanceTarget>;

const read = async (storage: RemoteStorage, key: string) => utf8ToString(await downloadBytes(storage, key, { maxBytes: 1e9 }));
const put = (storage: RemoteStorage, key: string, text: string) => storage.upload(key, { bytes: utf8(text) });

export function remoteStorageConformance(name: string, make: Make, options: ConformanceOptions = {}): void {
  describe(`remote storage: ${name}`, () => {
    objectTests(make);
    interruptionTests(make);
    namespaceTests(make, options);
    timeTravelTest(make, options.travelsInTime ?? false);
  });
}

/** Single objects: up, down, ranges, errors. */
function objectTests(make: Make): void {
  test("objects come back whole, and are replaced whole", async () => {
    const { storage } = await make();
    await put(storage, "a/b/c", "one");
    expect(await read(storage, "a/b/c")).toBe("one");
    await put(storage, "a/b/c", "another");
    expect(await read(storage, "a/b/c")).toBe("another");
    await put(storage, "empty", "");
    expect(await read(storage, "empty")).toBe("");
  });

  test("large objects from files, in chunks", async () => {
    const { storage, writeFile } = await make();
    const bytes = Uint8Array.from({ length: 3_000_000 }, (_, i) => Math.imul(i, 0x9e3779b1) >>> 24);
    const filePath = await writeFile(bytes);
    await storage.upload("large", { filePath, sizeBytes: bytes.length });
    expect(Buffer.compare(await downloadBytes(storage, "large", { maxBytes: 1e9 }), bytes)).toBe(0);
    await storage.upload("prefix", { filePath, sizeBytes: 1_000_001 });
    expect(Buffer.compare(await downloadBytes(storage, "prefix", { maxBytes: 1e9 }), bytes.subarray(0, 1_000_001))).toBe(0);
  });

  test("byte ranges", async () => {
    const { storage } = await make();
    await put(storage, "k", "0123456789");
    const range = async (start: number, end?: number) => {
      const { sizeBytes, body } = await storage.download("k", { range: { start, end } });
      let text = "";
      for await (const chunk of body) text += utf8ToString(chunk);
      expect(text.length).toBe(sizeBytes);
      return text;
    };
    expect(await range(2, 5)).toBe("234");
    expect(await range(7)).toBe("789");
    expect(await range(8, 100)).toBe("89");
    await expect(range(11)).rejects.toMatchObject({ code: "bad-range" });
  });

  test("missing objects, bad keys, too large ones", async () => {
    const { storage } = await make();
    await put(storage, "a/b", "x");
    await expect(storage.download("a/c")).rejects.toMatchObject({ code: "object-not-found", kind: "not-found" });
    await expect(storage.download("a")).rejects.toMatchObject({ code: "object-not-found" });
    await expect(storage.copy("nothing", "b")).rejects.toMatchObject({ code: "object-not-found" });
    for (const key of ["", "/a", "a//b", "a/", "../a", "a/./b"]) await expect(put(storage, key, "x")).rejects.toMatchObject({ code: "bad-object-key" });
    await expect(downloadBytes(storage, "a/b", { maxBytes: 0 })).rejects.toMatchObject({ code: "object-too-large" });
  });
}

/** What goes wrong on the way. */
function interruptionTests(make: Make): void {
  test("files of no bytes; files that have become shorter, or are gone: told, and nothing is there under the name", async () => {
    const { storage, writeFile } = await make();
    const filePath = await writeFile(new Uint8Array(0));
    await storage.upload("nothing", { filePath, sizeBytes: 0 });
    expect(await read(storage, "nothing")).toBe("");
    expect((await storage.list({ prefix: "nothing" })).objects[0].sizeBytes).toBe(0);
    await writeFile(new Uint8Array(900));
    await expect(storage.upload("short", { filePath, sizeBytes: 1000 })).rejects.toMatchObject({ kind: "corrupt", code: "file-too-short" });
    await expect(storage.upload("gone", { filePath: `${filePath}.none`, sizeBytes: 1000 })).rejects.toThrow();
    expect((await storage.list({ prefix: "" })).objects.map(({ key }) => key)).toEqual(["nothing"]);
  });

  test("a download that is aborted midway, or given up, ends; the storage goes on", async () => {
    const { storage } = await make();
    await storage.upload("large", { bytes: new Uint8Array(6_000_000).fill(7) });
    const stop = new AbortController();
    const { body } = await storage.download("large", { signal: stop.signal });
    const aborted = (async () => {
      for await (const chunk of body) {
        expect(chunk.length).toBeGreaterThan(0);
        stop.abort(new Error("stop"));
      }
    })();
    await expect(aborted).rejects.toThrow("stop");
    // More than places there are: each must have been given back.
    for (let round = 0; round < 120; round++) {
      const given = await storage.download("large", { range: { start: 0, end: 100_000 } });
      for await (const chunk of given.body) if (chunk.length > 0) break;
    }
    expect((await downloadBytes(storage, "large", { maxBytes: 1e9 })).length).toBe(6_000_000);
  });
}

/** Many objects: listings, deletion, copies. */
function namespaceTests(make: Make, { listsInOrder = true, exactKeys = true }: ConformanceOptions): void {
  test("keys with odd characters: each is itself, in every operation", async () => {
    const { storage } = await make();
    const keys = [...(exactKeys ? ["a b/c+d/é&<x>'(1)*!~", "q?r=s&t"] : ["a b/c+d/é~", "q?r=s"]), "p%41", "p%2F%25", "h#i", "semi;colon:at@", "ünï/日本", `${"n".repeat(200)}/${"m".repeat(200)}`];
    for (const key of keys) await put(storage, key, key);
    expect((await storage.list({ prefix: "" })).objects.map(({ key }) => key).sort()).toEqual([...keys].sort());
    for (const key of keys) {
      expect(await read(storage, key)).toBe(key);
      expect((await storage.list({ prefix: key })).objects.map((object) => object.key)).toEqual([key]);
      if (!exactKeys) continue;
      await storage.copy(key, "copy");
      expect(await read(storage, "copy")).toBe(key);
    }
    await storage.delete([...keys, "copy"]);
    expect((await storage.list({ prefix: "" })).objects).toEqual([]);
  });

  test("listings: prefix, delimiter, order, pages", async () => {
    const { storage } = await make();
    const odd = listsInOrder ? ["a-b"] : [];
    const keys = ["a/1", "a/2/x", "a/2/y", "a/3", ...odd, "ab/1", "b"];
    for (const key of keys) await put(storage, key, key);
    const all = await storage.list({ prefix: "" });
    expect(all.objects.map((object) => object.key)).toEqual([...keys].sort());
    expect(all.objects.map((object) => object.sizeBytes)).toEqual(all.objects.map((object) => object.key.length));
    expect(all.continuation).toBeNull();
    const under = await storage.list({ prefix: "a/", delimiter: "/" });
    expect(under.objects.map((object) => object.key)).toEqual(["a/1", "a/3"]);
    expect(under.prefixes).toEqual(["a/2/"]);
    const top = await storage.list({ prefix: "", delimiter: "/" });
    expect(top.objects.map((object) => object.key)).toEqual([...odd, "b"]);
    expect(top.prefixes).toEqual(["a/", "ab/"]);
    expect((await storage.list({ prefix: "a/2" })).objects.length).toBe(2);
    expect((await storage.list({ prefix: "nothing/here" })).objects).toEqual([]);
    for (const maxKeys of [1, 2, 3]) {
      const paged = await listAll(storage, { prefix: "", maxKeys, maxTotal: 100 });
      expect(paged.objects.map((object) => object.key)).toEqual([...keys].sort());
      const pagedTop = await listAll(storage, { prefix: "", delimiter: "/", maxKeys, maxTotal: 100 });
      expect([pagedTop.objects.map((object) => object.key), pagedTop.prefixes]).toEqual([[...odd, "b"], ["a/", "ab/"]]);
    }
    await expect(listAll(storage, { prefix: "", maxTotal: 3 })).rejects.toMatchObject({ code: "listing-too-long" });
  });

  test("deletion: many at once, missing ones are no error, empty prefixes vanish", async () => {
    const { storage } = await make();
    const keys = Array.from({ length: 30 }, (_, i) => `d/${i}`);
    for (const key of [...keys, "e/1"]) await put(storage, key, "x");
    await storage.delete([...keys, "d/none", "nowhere/none"]);
    expect((await storage.list({ prefix: "" })).objects.map((object) => object.key)).toEqual(["e/1"]);
    expect((await storage.list({ prefix: "", delimiter: "/" })).prefixes).toEqual(["e/"]);
    await storage.delete(keys);
  });

  test("copies", async () => {
    const { storage } = await make();
    await put(storage, "from/x", "content");
    await storage.copy("from/x", "to/y");
    expect(await read(storage, "to/y")).toBe("content");
    expect(await read(storage, "from/x")).toBe("content");
  });

  test("an aborted signal refuses the work", async () => {
    const { storage } = await make();
    const aborted = AbortSignal.abort(new Error("stop"));
    await expect(storage.upload("k", { bytes: utf8("x") }, { signal: aborted })).rejects.toThrow("stop");
    await expect(storage.list({ prefix: "", signal: aborted })).rejects.toThrow("stop");
    expect((await storage.list({ prefix: "" })).objects).toEqual([]);
  });
}

function timeTravelTest(make: Make, travels: boolean): void {
  test(travels ? "time travel: objects are what they were" : "time travel is refused, and changes nothing", async () => {
    const { storage } = await make();
    const moment = async () => {
      // Versions of one and the same moment could not be told apart.
      await Bun.sleep(10);
      const nowMs = Date.now();
      await Bun.sleep(10);
      return nowMs;
    };
    for (const key of ["t/kept", "t/changed", "t/deleted", "outside"]) await put(storage, key, "then");
    const timestampMs = await moment();
    await put(storage, "t/changed", "now");
    await put(storage, "t/new", "now");
    await put(storage, "outside", "now");
    await storage.delete(["t/deleted"]);
    const doneIfAfterMs = await moment();
    const travel = storage.timeTravelRecover({ prefix: "t/", timestampMs, doneIfAfterMs, maxVersions: 100 });
    const there = { "t/kept": "then", ...(travels ? { "t/changed": "then", "t/deleted": "then" } : { "t/changed": "now", "t/new": "now" }), outside: "now" };
    if (travels) await travel;
    else await expect(travel).rejects.toMatchObject({ kind: "fix-input", code: "time-travel-unsupported" });
    const { objects } = await storage.list({ prefix: "" });
    const contents = await Promise.all(objects.map(async ({ key }) => [key, await read(storage, key)] as const));
    expect(Object.fromEntries(contents)).toEqual(there);
  });
}
