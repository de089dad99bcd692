import { describe, expect, test } from "bun:test";
import { DirectorySyncs } from "../../src/platform/directory-syncs.ts";

/** Syncs that end when they are told to. */
function controlled() {
  const running: { readonly path: string; readonly settle: PromiseWithResolvers<void> }[] = [];
  const syncs = new DirectorySyncs({
    syncDirectory: (path) => {
      const settle = Promise.withResolvers<void>();
      running.push({ path, settle });
      return settle.promise;
    },
  });
  return { running, syncs };
}

async function isPending(work: Promise<unknown>): Promise<boolean> {
  return await Promise.race([work.then(() => false, () => false), Bun.sleep(1).then(() => true)]);
}

describe("shared syncs of a directory", () => {
  test("whoever asks while one runs waits for one that began after", async () => {
    const { running, syncs } = controlled();
    const first = syncs.sync("/d");
    const others = [syncs.sync("/d"), syncs.sync("/d"), syncs.sync("/d")];
    expect(running.length).toBe(1);
    running[0].settle.resolve();
    await first;
    expect(await isPending(Promise.race(others))).toBe(true);
    expect(running.length).toBe(2);
    running[1].settle.resolve();
    await Promise.all(others);
    expect(running.length).toBe(2);
  });

  test("one asked for in the moment another ends is not answered by that one", async () => {
    const { running, syncs } = controlled();
    const first = syncs.sync("/d");
    let late: Promise<void> | null = null;
    void first.then(() => {
      late = syncs.sync("/d");
    });
    running[0].settle.resolve();
    await first;
    await Bun.sleep(1);
    expect(running.length).toBe(2);
    expect(await isPending(late as unknown as Promise<void>)).toBe(true);
    running[1].settle.resolve();
    await late;
  });

  test("a failure is told to those it was for, and the next one is tried", async () => {
    const { running, syncs } = controlled();
    const first = syncs.sync("/d");
    const second = syncs.sync("/d");
    running[0].settle.reject(new Error("disk"));
    await expect(first).rejects.toThrow("disk");
    await Bun.sleep(1);
    running[1].settle.resolve();
    await second;
    const third = syncs.sync("/d");
    expect(running.length).toBe(3);
    running[2].settle.resolve();
    await third;
  });

  test("directories do not wait for each other", async () => {
    const { running, syncs } = controlled();
    const a = syncs.sync("/a");
    const b = syncs.sync("/b");
    expect(running.map(({ path }) => path)).toEqual(["/a", "/b"]);
    running[1].settle.resolve();
    await b;
    running[0].settle.resolve();
    await a;
  });
});
