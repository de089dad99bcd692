/** The archive of an initdb: what is packed comes back, and whatever is wrong with one is a typed error. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { isStrataError } from "../../../src/kit/errors.ts";
import { zstdCompress } from "../../../src/kit/zstd.ts";
import { tarEnd, tarFile, tarHeader } from "../../../src/pageserver/basebackup/tar.ts";
import { packInitdb, unpackInitdb } from "../../../src/pageserver/import/initdb-archive.ts";
import { sweepImportDirectories } from "../../../src/pageserver/import/import-directory.ts";
import { unpackTar } from "../../../src/pageserver/import/unpack-tar.ts";
import { RealFiles } from "../../../src/platform/real/files.ts";

const files = new RealFiles();
let root: string;
beforeEach(() => (root = mkdtempSync(join(tmpdir(), "strata-initdb-archive-"))));
afterEach(() => rmSync(root, { recursive: true, force: true }));

function contents(directory: string, below = ""): Record<string, string> {
  const found: Record<string, string> = {};
  for (const entry of readdirSync(join(directory, below), { withFileTypes: true })) {
    const name = join(below, entry.name);
    if (entry.isDirectory()) Object.assign(found, { [`${name}/`]: "" }, contents(directory, name));
    else found[name] = readFileSync(join(directory, name)).toString("base64");
  }
  return found;
}

function datadir(name = "data"): string {
  const directory = join(root, name);
  mkdirSync(join(directory, "base/1"), { recursive: true });
  mkdirSync(join(directory, "pg_twophase"));
  writeFileSync(join(directory, "PG_VERSION"), "17\n");
  writeFileSync(join(directory, "empty"), "");
  writeFileSync(join(directory, "base/1/1259"), Buffer.alloc(8192 * 80, "page"));
  return directory;
}

async function failure(work: Promise<unknown>): Promise<unknown> {
  const error = await work.then(() => null, (reason: unknown) => reason);
  return isStrataError(error) ? [error.kind, error.code] : error;
}

const frame = (...tar: Uint8Array[]): Uint8Array => zstdCompress(Buffer.concat(tar), 3);
const at = { modifiedSeconds: 0 };

describe("initdb archive", () => {
  test("the same directory comes back, empty directories too; equal directories are equal archives", async () => {
    const directory = datadir();
    const archive = await packInitdb(files, directory);
    expect(archive.length).toBeLessThan(20_000);
    await unpackInitdb(files, archive, join(root, "back"));
    expect(contents(join(root, "back"))).toEqual(contents(directory));
    expect(Buffer.compare(await packInitdb(files, datadir("again")), archive)).toBe(0);
  });

  test("other tools read it", async () => {
    await Bun.write(join(root, "initdb.tar"), Bun.zstdDecompressSync((await packInitdb(files, datadir())) as Uint8Array<ArrayBuffer>));
    const listed = Bun.spawnSync(["tar", "-t", "-f", join(root, "initdb.tar")]);
    expect(listed.stdout.toString().trim().split("\n")).toEqual(["PG_VERSION", "base/", "base/1/", "base/1/1259", "empty", "pg_twophase/"]);
  });

  test("cut short anywhere it is corrupt; with a bit flipped it is, or the same comes back", async () => {
    const source = datadir();
    const archive = await packInitdb(files, source);
    await fc.assert(
      fc.asyncProperty(fc.nat(archive.length - 1), fc.nat(7), fc.boolean(), async (where, bit, cut) => {
        const bad = cut ? archive.slice(0, where) : archive.slice();
        if (!cut) bad[where] ^= 1 << bit;
        const directory = join(root, "bad");
        rmSync(directory, { recursive: true, force: true });
        const failed = await failure(unpackInitdb(files, bad, directory));
        // A frame has bits that do not matter, like those of its window's size; what it holds is under its checksum. Behind it the
        // encoder leaves an empty frame, without which nothing is missing.
        if (failed === null) expect(contents(directory)).toEqual(contents(source));
        else expect(failed).toEqual(["corrupt", "bad-initdb-archive"]);
      }),
      { numRuns: 60 },
    );
  });

  test.each(["../escaped", "base/../../escaped", "/escaped", "a//b"])("the name %s is refused", async (name) => {
    const archive = frame(tarFile({ name, ...at }, Buffer.from("x")), tarEnd());
    expect(await failure(unpackInitdb(files, archive, join(root, "target")))).toEqual(["corrupt", "bad-initdb-archive"]);
    expect(existsSync(join(root, "escaped")) || existsSync("/escaped")).toBe(false);
  });

  test("more than it may hold is refused before it is written, by what the header says and by what is there", async () => {
    const claimed = frame(tarHeader({ name: "huge", kind: "file", sizeBytes: 2 ** 31, ...at }), new Uint8Array(512));
    expect(await failure(unpackInitdb(files, claimed, join(root, "a")))).toEqual(["corrupt", "bad-initdb-archive"]);
    expect(existsSync(join(root, "a/huge"))).toBe(false);
    const limits = { maxFiles: 2, maxBytes: 1000 };
    const tar = (...parts: Uint8Array[]) => new Blob(parts as Uint8Array<ArrayBuffer>[]).stream();
    const two = [tarFile({ name: "one", ...at }, new Uint8Array(500)), tarFile({ name: "two", ...at }, new Uint8Array(500))];
    await unpackTar(files, tar(...two, tarEnd()), { directory: join(root, "b"), limits });
    expect(await failure(unpackTar(files, tar(...two, two[0], tarEnd()), { directory: join(root, "c"), limits }))).toEqual(["fix-input", "bad-archive"]);
    expect(await failure(unpackTar(files, tar(tarFile({ name: "one", ...at }, new Uint8Array(1001)), tarEnd()), { directory: join(root, "d"), limits }))).toEqual(["fix-input", "bad-archive"]);
    expect(existsSync(join(root, "d/one"))).toBe(false);
  });

  test("directories of imports that were killed are swept, nothing else", async () => {
    for (const name of [`import-${"ab".repeat(8)}/base`, "tenants", "import-mine"]) mkdirSync(join(root, name), { recursive: true });
    symlinkSync(join(root, "tenants"), join(root, `import-${"ab".repeat(8)}/link`));
    expect(await sweepImportDirectories(files, root)).toBe(1);
    expect(readdirSync(root).sort()).toEqual(["import-mine", "tenants"]);
  });
});
