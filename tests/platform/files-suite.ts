/** What every file system must do. Run over the real one and the virtual disk. */
import { expect, test } from "bun:test";
import { isStrataError } from "../../src/kit/errors.ts";
import { utf8, utf8ToString } from "../../src/kit/bytes.ts";
import type { FileSystem } from "../../src/platform/files.ts";

export interface FilesUnderTest {
  readonly files: FileSystem;
  /** An empty directory. */
  readonly root: string;
  cleanUp(): Promise<void>;
}

async function codeOf(action: Promise<unknown>): Promise<string> {
  try {
    await action;
  } catch (error) {
    if (isStrataError(error)) return `${error.kind} ${error.code}`;
    throw error;
  }
  return "passed";
}

/** Function length on purpose: it is a list of tests. */
export function filesSuite(name: string, make: () => Promise<FilesUnderTest>): void {
  function check(what: string, body: (files: FileSystem, root: string) => Promise<void>): void {
    test(`${name}: ${what}`, async () => {
      const subject = await make();
      try {
        await body(subject.files, subject.root);
      } finally {
        await subject.cleanUp();
      }
    });
  }

  check("writes and reads at positions, extending with zeros", async (files, root) => {
    const file = await files.open(`${root}/a`, "create-new");
    await file.write(utf8("hello"), 10);
    file.writeSync(utf8("J"), 10);
    expect(await file.sizeBytes()).toBe(15);
    const into = new Uint8Array(20).fill(255);
    expect(await file.read(into, 0)).toBe(15);
    expect(utf8ToString(into.subarray(0, 15))).toBe(`${"\0".repeat(10)}Jello`);
    expect(into[15]).toBe(255);
    expect(file.readSync(into, 14)).toBe(1);
    expect(await file.read(into, 15)).toBe(0);
    expect(file.readSync(into, 1000)).toBe(0);
    await file.sync();
    await file.dataSync();
    await file.close();
    await file.close();
    expect(utf8ToString(await files.readFile(`${root}/a`))).toBe(`${"\0".repeat(10)}Jello`);
  });

  check("what was handed to write may be changed afterwards, large writes too", async (files, root) => {
    const file = await files.open(`${root}/a`, "create");
    const bytes = new Uint8Array(3 * 1024 * 1024).map((_, index) => index % 251);
    await file.write(bytes, 5);
    bytes.fill(0);
    const back = new Uint8Array(bytes.length);
    expect(await file.read(back, 5)).toBe(bytes.length);
    expect(back.every((value, index) => value === index % 251)).toBe(true);
    await file.close();
  });

  check("truncates both ways", async (files, root) => {
    const file = await files.open(`${root}/a`, "create");
    await file.write(utf8("abcdef"), 0);
    await file.truncate(3);
    await file.truncate(5);
    await file.close();
    expect(utf8ToString(await files.readFile(`${root}/a`))).toBe("abc\0\0");
  });

  check("open modes", async (files, root) => {
    const path = `${root}/a`;
    expect(await codeOf(files.open(path, "read"))).toBe("not-found file-not-found");
    expect(await codeOf(files.open(path, "read-write"))).toBe("not-found file-not-found");
    const file = await files.open(path, "create-new");
    await file.write(utf8("x"), 0);
    await file.close();
    expect(await codeOf(files.open(path, "create-new"))).toBe("conflict file-exists");
    await (await files.open(path, "create")).close();
    await (await files.open(path, "read-write")).close();
    expect((await files.stat(path)).sizeBytes).toBe(1);
    const reader = await files.open(path, "read");
    expect(() => reader.writeSync(utf8("y"), 0)).toThrow("cannot write");
    await reader.close();
    await (await files.open(path, "truncate")).close();
    expect((await files.stat(path)).sizeBytes).toBe(0);
    expect(await codeOf(files.open(`${root}/none/a`, "create"))).toBe("not-found file-not-found");
  });

  check("a file in use survives its removal and follows its rename", async (files, root) => {
    const file = await files.open(`${root}/a`, "create");
    await file.write(utf8("one"), 0);
    await files.rename(`${root}/a`, `${root}/b`);
    await file.write(utf8("two"), 3);
    expect(utf8ToString(await files.readFile(`${root}/b`))).toBe("onetwo");
    await files.remove(`${root}/b`);
    const into = new Uint8Array(6);
    expect(file.readSync(into, 0)).toBe(6);
    await file.close();
    expect(await files.exists(`${root}/b`)).toBe(false);
  });

  check("directories: list sorted, nested creation, trees removed", async (files, root) => {
    await files.makeDirectory(`${root}/d/e/f`);
    await files.makeDirectory(`${root}/d/e/f`);
    await (await files.open(`${root}/d/z`, "create")).close();
    await (await files.open(`${root}/d/B`, "create")).close();
    expect(await files.list(`${root}/d`)).toEqual(["B", "e", "z"]);
    expect((await files.stat(`${root}/d`)).isDirectory).toBe(true);
    expect((await files.stat(`${root}/d/z`)).isDirectory).toBe(false);
    expect(await codeOf(files.list(`${root}/none`))).toBe("not-found file-not-found");
    expect(await codeOf(files.stat(`${root}/none`))).toBe("not-found file-not-found");
    expect(await codeOf(files.stat(`${root}/d/z/x`))).toBe("not-found file-not-found");
    expect(await files.exists(`${root}/d/z/x`)).toBe(false);
    await files.syncDirectory(`${root}/d`);
    await files.removeTree(`${root}/d`);
    await files.removeTree(`${root}/d`);
    expect(await files.exists(`${root}/d/e/f`)).toBe(false);
    expect(await codeOf(files.syncDirectory(`${root}/d`))).toBe("not-found file-not-found");
  });

  check("rename replaces a file, refuses a directory that is not empty, moves directories", async (files, root) => {
    for (const name of ["a", "b"]) {
      const file = await files.open(`${root}/${name}`, "create");
      await file.write(utf8(name), 0);
      await file.close();
    }
    await files.rename(`${root}/a`, `${root}/b`);
    expect(utf8ToString(await files.readFile(`${root}/b`))).toBe("a");
    expect(await codeOf(files.rename(`${root}/a`, `${root}/c`))).toBe("not-found file-not-found");
    await files.makeDirectory(`${root}/from/deep`);
    await files.makeDirectory(`${root}/to/full`);
    expect(await codeOf(files.rename(`${root}/from`, `${root}/to`))).toBe("conflict file-exists");
    await files.rename(`${root}/from`, `${root}/moved`);
    expect(await files.list(`${root}/moved`)).toEqual(["deep"]);
  });

  check("removing", async (files, root) => {
    expect(await codeOf(files.remove(`${root}/none`))).toBe("not-found file-not-found");
    await files.makeDirectory(`${root}/d`);
    expect(await codeOf(files.remove(`${root}/d`))).toBe("unavailable io-error");
  });

  check("errors name the path", async (files, root) => {
    const error = await files.readFile(`${root}/none`).catch((thrown: unknown) => thrown);
    expect(isStrataError(error) && error.details.path).toBe(`${root}/none`);
  });

  check("a closed handle is a bug to use", async (files, root) => {
    const file = await files.open(`${root}/a`, "create");
    await file.close();
    expect(() => file.writeSync(utf8("x"), 0)).toThrow("after it was closed");
    await expect(file.sync()).rejects.toThrow("after it was closed");
  });

  check("locks exclude each other until released", async (files, root) => {
    const first = await files.lock(`${root}/lock`);
    expect(await codeOf(files.lock(`${root}/lock`))).toBe("conflict directory-locked");
    await first.release();
    await first.release();
    const second = await files.lock(`${root}/lock`);
    await second.release();
  });
}
