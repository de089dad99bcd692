import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { utf8 } from "../../../src/kit/bytes.ts";
import { StrataError } from "../../../src/kit/errors.ts";
import { RecordingLogger } from "../../../src/observability/recording-logger.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";
import { DeletionQueue, type GenerationToValidate, type ValidateGenerations } from "../../../src/pageserver/remote-timeline/deletion-queue.ts";
import { LocalDirectoryStorage } from "../../../src/remote-storage/local-directory.ts";

const TENANT = { tenantId: "0123456789abcdef0123456789abcdef", number: 0, count: 0 };
const OTHER = { tenantId: "fedcba9876543210fedcba9876543210", number: 1, count: 2 };
const TIMELINE = "11111111111111111111111111111111";
const platform = realPlatform();
const log = new RecordingLogger();

let root = "";
let storage: LocalDirectoryStorage;
beforeEach(async () => {
  root = await mkdtemp(`${tmpdir()}/strata-deletions-`);
  await platform.files.makeDirectory(`${root}/bucket`);
  storage = await LocalDirectoryStorage.open(`${root}/bucket`, platform);
  for (const shard of [TENANT.tenantId, `${OTHER.tenantId}-0102`]) for (const name of ["a", "b"]) await storage.upload(`tenants/${shard}/timelines/${TIMELINE}/${name}`, { bytes: utf8(name) });
});
afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

const open = (validate: ValidateGenerations, attached: ReadonlyMap<string, number> = new Map()) => DeletionQueue.open({ platform, log, storage, directory: `${root}/deletion`, validate }, attached);
const allValid: ValidateGenerations = async (requests) => requests.map(() => true);
const names = async () => (await storage.list({ prefix: "" })).objects.map(({ key }) => key.replace(/^tenants\/(.).*\/(.)$/, "$1$2"));
const owner = (tenantShardId: typeof TENANT, generation: number) => ({ tenantShardId, generation, timelineId: TIMELINE });

test("objects go after validation; those of a stale generation never", async () => {
  const asked: GenerationToValidate[] = [];
  const queue = await open(async (requests) => {
    asked.push(...requests);
    return requests.map(({ tenantShardId }) => tenantShardId.tenantId === TENANT.tenantId);
  });
  queue.push(owner(TENANT, 3), ["a"]);
  queue.push(owner(OTHER, 5), ["a", "b"]);
  expect((await names()).length).toBe(4);
  await queue.flush();
  expect(await names()).toEqual(["0b", "fa", "fb"]);
  expect(asked).toEqual([{ tenantShardId: TENANT, generation: 3 }, { tenantShardId: OTHER, generation: 5 }]);
  expect((await readdir(`${root}/deletion`)).filter((name) => name.endsWith(".list"))).toEqual([]);
});

test("while nobody can validate nothing goes, and nothing is forgotten over a restart", async () => {
  const down: ValidateGenerations = async () => {
    throw new StrataError("unavailable", "controller-down", "no answer");
  };
  const first = await open(down);
  first.push(owner(TENANT, 3), ["a"]);
  await expect(first.flush()).rejects.toMatchObject({ code: "controller-down" });
  first.push(owner(TENANT, 3), ["b"]);
  await first.shutdown();
  expect((await names()).length).toBe(4);
  // Attached again with the next generation by the same node: the list's own generation follows.
  const asked: number[] = [];
  const second = await open(async (requests) => requests.map(({ generation }) => asked.push(generation) > 0), new Map([[TENANT.tenantId, 4]]));
  await second.flush();
  expect(asked).toEqual([4]);
  expect(await names()).toEqual(["fa", "fb"]);
});

test("a generation skipped in between makes an old list stale", async () => {
  const first = await open(allValid);
  first.push(owner(TENANT, 3), ["a"]);
  await first.shutdown();
  const second = await open(async (requests) => requests.map(({ generation }) => generation === 5), new Map([[TENANT.tenantId, 5]]));
  await second.flush();
  expect((await names()).length).toBe(4);
});

test("LSNs become visible by validation, the newest only", async () => {
  let valid = false;
  const queue = await open(async (requests) => requests.map(() => valid));
  const seen: number[] = [];
  queue.pushLsnUpdate(owner(TENANT, 1), 10, (lsn) => seen.push(lsn));
  await queue.flush();
  valid = true;
  await queue.flush();
  expect(seen).toEqual([]);
  queue.pushLsnUpdate(owner(TENANT, 1), 20, (lsn) => seen.push(lsn));
  queue.pushLsnUpdate(owner(TENANT, 1), 30, (lsn) => seen.push(lsn));
  await queue.flush();
  expect(seen).toEqual([30]);
});

test("a damaged list is ignored with a warning, not obeyed", async () => {
  const first = await open(allValid);
  first.push(owner(TENANT, 3), ["a"]);
  await first.shutdown();
  const [list] = (await readdir(`${root}/deletion`)).filter((name) => name.endsWith(".list"));
  await Bun.write(`${root}/deletion/${list}`, '{"version":1,"sequence":');
  const before = log.entries.length;
  const second = await open(allValid);
  await second.flush();
  expect(log.entries.slice(before).map(({ level }) => level)).toEqual(["warn"]);
  expect((await names()).length).toBe(4);
});

test("a list that was removed when its directory could not be synced does not stop the queue", async () => {
  const files: typeof platform.files = Object.create(platform.files);
  let removed = false;
  files.remove = async (path) => {
    removed ||= path.endsWith(".list");
    await platform.files.remove(path);
  };
  files.syncDirectory = async (path) => {
    if (removed && path.endsWith("/deletion")) {
      files.syncDirectory = (other) => platform.files.syncDirectory(other);
      throw new StrataError("unavailable", "io-error", "the disk failed");
    }
    await platform.files.syncDirectory(path);
  };
  const queue = await DeletionQueue.open({ platform: { ...platform, files }, log, storage, directory: `${root}/deletion`, validate: allValid }, new Map());
  queue.push(owner(TENANT, 3), ["a"]);
  await expect(queue.flush()).rejects.toMatchObject({ code: "io-error" });
  queue.push(owner(TENANT, 3), ["b"]);
  await queue.flush();
  expect(await names()).toEqual(["fa", "fb"]);
  await queue.shutdown();
});

test("what a tenant has pending is forgotten, in memory and on disk; others keep theirs", async () => {
  let up = false;
  const validate: ValidateGenerations = async (requests) => {
    if (!up) throw new StrataError("unavailable", "down", "down");
    return requests.map(() => true);
  };
  const queue = await open(validate);
  queue.push(owner(TENANT, 3), ["a"]);
  queue.push(owner(OTHER, 5), ["a"]);
  await expect(queue.flush()).rejects.toThrow("down");
  queue.push(owner(TENANT, 4), ["b"]);
  await queue.discard(TENANT.tenantId);
  queue.push(owner(OTHER, 5), ["b"]);
  await queue.shutdown();
  up = true;
  const again = await open(validate);
  await again.flush();
  expect(await names()).toEqual(["0a", "0b"]);
  await again.shutdown();
});
