import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { QUOTA_FILE, SizeQuota } from "../../../src/compute/postgres-process/size-quota.ts";
import { RecordingLogger } from "../../../src/observability/recording-logger.ts";
import type { FileHandle, FileSystem } from "../../../src/platform/files.ts";
import { RealFiles } from "../../../src/platform/real/files.ts";

const LIMIT = 1000;
const directories: string[] = [];
afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true });
});

/** A quota on a file whose next `failures` writes fail. */
function makeQuota() {
  const dataDirectory = mkdtempSync(join(tmpdir(), "strata-quota-"));
  directories.push(dataDirectory);
  writeFileSync(join(dataDirectory, QUOTA_FILE), "");
  const real = new RealFiles();
  const disk = { failures: 0, open: 0, reloads: 0 };
  const files = new Proxy(real, {
    get(target, name: keyof FileSystem) {
      if (name !== "open") return target[name].bind(target);
      return async (path: string, mode: "truncate"): Promise<Pick<FileHandle, "write" | "close">> => {
        const file = await target.open(path, mode);
        disk.open++;
        return {
          write: (bytes, at) => (disk.failures-- > 0 ? Promise.reject(new Error("disk full")) : file.write(bytes, at)),
          close: () => (disk.open--, file.close()),
        };
      };
    },
  });
  const log = new RecordingLogger();
  const quota = new SizeQuota({ files, dataDirectory, limitBytes: LIMIT, log, reload: () => void disk.reloads++ });
  const text = (): string => readFileSync(join(dataDirectory, QUOTA_FILE), "utf8");
  const sized = async (sizeBytes: number): Promise<void> => {
    quota.sized(sizeBytes);
    await quota.applied;
  };
  return { quota, disk, log, text, sized };
}

test("at the limit the server is told once, below it once more", async () => {
  const { quota, disk, log, text, sized } = makeQuota();
  log.expectWarn("size quota");
  for (const size of [LIMIT / 2, LIMIT, LIMIT, LIMIT + 1]) await sized(size);
  expect([quota.state, text(), disk.reloads]).toEqual(["exceeded", "default_transaction_read_only = on\n", 1]);
  for (const size of [LIMIT - 1, LIMIT - 1, 0]) await sized(size);
  expect([quota.state, text(), disk.reloads]).toEqual(["ok", "", 2]);
  log.assertQuiet();
});

test("what could not be applied is tried again with the next word, said once, and leaves no file open", async () => {
  const { disk, log, text, sized } = makeQuota();
  log.expectWarn("size quota");
  disk.failures = 3;
  for (let word = 0; word < 3; word++) await sized(LIMIT);
  expect([text(), disk.reloads, disk.open]).toEqual(["", 0, 0]);
  await sized(LIMIT);
  expect([text(), disk.reloads, disk.open]).toEqual(["default_transaction_read_only = on\n", 1, 0]);
  expect(log.entries.filter(({ message }) => message.includes("could not be applied")).length).toBe(1);
  expect(log.entries.at(-1)?.message).toBe("the size quota is applied now");
  await sized(LIMIT);
  expect(disk.reloads).toBe(1);
});

test("changes while it is being applied end in the last of them", async () => {
  const { quota, disk, log, text, sized } = makeQuota();
  log.expectWarn("size quota");
  for (const size of [LIMIT, 0, LIMIT, 0, LIMIT]) quota.sized(size);
  await sized(LIMIT);
  expect(text()).toBe("default_transaction_read_only = on\n");
  for (const size of [0, LIMIT, 0]) quota.sized(size);
  await sized(0);
  expect([text(), disk.open]).toEqual(["", 0]);
});
