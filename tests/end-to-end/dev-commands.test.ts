/** What `strata dev` does beyond the tour, against the executable, with every role inside one process to be quick. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmod, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DevProgram } from "../support/dev-program.ts";
import { programs } from "../support/executable.ts";

let root: string;
let dev: DevProgram;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "strata-dev-"));
  await chmod(root, 0o755);
  dev = new DevProgram(join(root, "cluster"), programs().find((program) => program.name === "executable")?.command);
  await dev.run("start", "--single-process", "--safekeepers", "1");
}, 120_000);

afterAll(async () => {
  await dev.run("stop");
  await dev.kill();
  await rm(root, { recursive: true, force: true });
}, 60_000);

async function refused(...words: string[]): Promise<string> {
  return dev.run(...words).then(
    () => {
      throw new Error(`"${words.join(" ")}" was accepted`);
    },
    (error: unknown) => String(error),
  );
}

test("a branch at a timestamp has what was committed before it, and nothing later", async () => {
  await dev.sql("main", "create table diary (entry text)");
  await dev.sql("main", "insert into diary values ('early')");
  await Bun.sleep(1100);
  const moment = await dev.sql("main", "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
  await Bun.sleep(1100);
  await dev.sql("main", "insert into diary values ('late')");
  // Something committed after the moment must have been ingested for the moment to be found.
  await dev.run("branch", "create", "yesterday", "--at", moment);
  await dev.run("endpoint", "start", "yesterday");
  expect(await dev.sql("yesterday", "select string_agg(entry, ',') from diary")).toBe("early");
  await dev.run("endpoint", "stop", "yesterday");
  expect(await dev.run("endpoint", "list")).toContain("yesterday  branch yesterday  stopped");
}, 60_000);

test("a branch of a branch, and the tree that shows it", async () => {
  await dev.run("branch", "create", "child", "--from", "yesterday");
  const tree = (await dev.run("branch", "list")).split("\n");
  expect(tree[0]).toStartWith("main ");
  expect(tree[1]).toStartWith("  yesterday at ");
  expect(tree[2]).toStartWith("    child at ");
}, 30_000);

test("a replica of a branch follows its primary, and cannot write", async () => {
  await dev.run("endpoint", "start", "reader", "--branch", "main", "--replica");
  expect(await dev.run("endpoint", "list")).toMatch(/^reader {2}branch main {2}replica {2}postgres:/m);
  expect(await dev.sql("reader", "select pg_is_in_recovery()")).toBe("t");
  await dev.sql("main", "create table followed as select 11 as n");
  const lsn = await dev.sql("main", "select pg_current_wal_flush_lsn()");
  for (let tries = 0; (await dev.sql("reader", `select pg_last_wal_replay_lsn() >= '${lsn}'`)) !== "t" && tries < 100; tries++) await Bun.sleep(100);
  expect(await dev.sql("reader", "select n from followed")).toBe("11");
  expect(await refused("sql", "reader", "-c", "create table no (n int)")).toContain("read-only");
  expect(await refused("endpoint", "start", "main", "--replica")).toContain("is a primary");
  await dev.run("endpoint", "stop", "reader");
}, 90_000);

test("what cannot be is refused with a reason", async () => {
  expect(await refused("branch", "create", "child")).toContain("exists already");
  expect(await refused("branch", "create", "Big Name")).toContain("is not a name");
  expect(await refused("branch", "create", "x1", "--from", "nobody")).toContain("there is no branch");
  expect(await refused("branch", "create", "x2", "--at", "FF/FFFFFFF0")).toContain("beyond the last commit");
  expect(await refused("branch", "create", "x3", "--at", "0/10")).toMatch(/LSN/);
  expect(await refused("branch", "create", "x4", "--at", "sometime")).toContain("neither");
  expect(await refused("branch", "create", "x5", "--at", "1999-01-01T00:00:00Z")).toContain("no history");
  expect(await refused("endpoint", "start", "second", "--branch", "main")).toContain("would fence it");
  expect(await refused("sql", "nobody", "-c", "select 1")).toContain("there is no endpoint");
  expect(await refused("sql", "main", "-c", "select nonsense")).toContain("nonsense");
  expect(await refused("start")).toContain("running already");
  expect(await refused("endpoint")).toContain("unknown command");
  expect(await refused("branch", "create")).toContain("needs NAME");
}, 60_000);

test("a web page cannot stop the cluster", async () => {
  const { ports } = JSON.parse(await readFile(join(dev.directory, "cluster.json"), "utf8")) as { ports: { control: number } };
  const reply = await fetch(`http://127.0.0.1:${ports.control}/v1/dev/stop`, { method: "POST", headers: { origin: "http://example.org" } });
  expect(reply.status).toBe(403);
  expect(await dev.run("status")).toContain("main");
}, 30_000);

test("SQL comes from standard input too, and several statements give the last result", async () => {
  expect(await dev.sql("main", "create temp table t as select 7 as n; select n from t")).toBe("7");
}, 30_000);

test("timeline status tells how far each node is", async () => {
  const text = await dev.run("timeline", "status");
  for (const word of ["safekeeper-1", "committed", "pageserver", "ingested", "in object storage"]) expect(text).toContain(word);
}, 30_000);

test("PostgreSQL does not run as root, nor with anything preloaded", async () => {
  const status = await readFile(`/proc/${await postmasterPid()}/status`, "utf8");
  expect(/^Uid:\s+(\d+)/m.exec(status)?.[1]).not.toBe("0");
  expect(await dev.sql("main", "show shared_preload_libraries")).toBe("");
  expect(await dev.sql("main", "select name from pg_settings where name in ('fsync', 'full_page_writes') and setting <> 'off'")).toBe("");
}, 30_000);

async function postmasterPid(): Promise<number> {
  const text = await readFile(join(dev.directory, "endpoints/main/pgdata/postmaster.pid"), "utf8");
  return Number(text.split("\n")[0]);
}
