/** The map computed from pages is the one PostgreSQL's own VACUUM leaves. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmod, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FreeSpaceCollector, buildFreeSpaceMap } from "../../../src/compute/base-backup/free-space-map.ts";
import { findPostgresBinaries, initdb, resolvePostgresUser } from "../../../src/platform/postgres-binaries.ts";
import { type PostgresProcess, startPostgres } from "../../../src/platform/postgres-process.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";
import { verifyPageChecksum } from "../../../src/postgres/page/checksum.ts";
import { PgClient } from "../../../src/wire/client.ts";

const PAGE = 8192;
let directory = "";
let server: PostgresProcess;
let client: PgClient;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "strata-fsm-"));
  await chmod(directory, 0o777);
  const binaries = await findPostgresBinaries({ major: 17 });
  const user = await resolvePostgresUser();
  await initdb({ binaries, user, dataDirectory: join(directory, "pgdata"), superuser: "postgres" });
  server = await startPostgres({ binaries, user, dataDirectory: join(directory, "pgdata"), listenAddresses: "", port: 5432, socketDirectory: directory, settings: { fsync: "off", autovacuum: "off" } });
  const platform = realPlatform();
  client = await PgClient.connect(platform.network, { address: { unixPath: `${directory}/.s.PGSQL.5432` }, parameters: { user: "postgres" }, ...platform });
}, 30_000);

afterAll(async () => {
  await client.close();
  await server.stop("immediate");
  await rm(directory, { recursive: true, force: true });
}, 30_000);

async function relationPath(name: string): Promise<string> {
  return join(directory, "pgdata", (await client.query(`select pg_relation_filepath('${name}')`)).rows[0][0] ?? "");
}

function collect(main: Uint8Array): FreeSpaceCollector {
  const collector = new FreeSpaceCollector();
  const blocks = Array.from({ length: main.length / PAGE }, (_, block) => block);
  // In any order, as archives may come.
  for (const block of [...blocks.filter((at) => at % 2 === 1), ...blocks.filter((at) => at % 2 === 0)]) {
    collector.add(block, new DataView(main.buffer, main.byteOffset + block * PAGE, PAGE));
  }
  return collector;
}

/** The trees of all pages; fp_next_slot before them is only where the next search starts. */
function trees(fork: Uint8Array): string[] {
  return Array.from({ length: fork.length / PAGE }, (_, page) => Buffer.from(fork.subarray(page * PAGE + 28, (page + 1) * PAGE)).toString("base64"));
}

describe("free-space map", () => {
  test("equals VACUUM's on a table of two leaf pages of the map", async () => {
    await client.query("create table t (id int, v text)");
    await client.query("insert into t select g, repeat('x', (g * 7919) % 1500) from generate_series(1, 45000) g");
    await client.query("delete from t where id % 3 = 0 or id between 10000 and 12000");
    await client.query("vacuum (freeze, disable_page_skipping, truncate off) t");
    await client.query("checkpoint");
    const path = await relationPath("t");
    const main = await readFile(path);
    expect(main.length / PAGE).toBeGreaterThan(4069);
    const own = await readFile(`${path}_fsm`);
    const built = collect(main).build({ checksums: false });
    if (built === null) throw new Error("no map");
    expect(trees(built)).toEqual(trees(own));
    expect([...built.subarray(12, 20)]).toEqual([...own.subarray(12, 20)]);
  }, 30_000);

  test("indexes and sequences get none, new pages count as empty", async () => {
    await client.query("create index i on t (id); create sequence s; checkpoint");
    for (const name of ["i", "s"]) expect(collect(await readFile(await relationPath(name))).build({ checksums: false })).toBeNull();
    const fresh = collect(new Uint8Array(3 * PAGE)).build({ checksums: true });
    if (fresh === null) throw new Error("no map");
    expect(fresh.length).toBe(3 * PAGE);
    expect([...fresh.subarray(2 * PAGE + 28 + 4095, 2 * PAGE + 28 + 4099)]).toEqual([255, 255, 255, 0]);
    for (const block of [0, 1, 2]) expect(verifyPageChecksum(fresh.subarray(block * PAGE, (block + 1) * PAGE), block)).toBe(true);
  });

  test("places pages in depth-first order", () => {
    const categories = new Uint8Array(4069 * 3 + 1).fill(10);
    categories[4069 * 3] = 77;
    const fork = buildFreeSpaceMap(categories, { checksums: false });
    expect(fork.length / PAGE).toBe(6);
    expect([0, 1, 5].map((block) => fork[block * PAGE + 28])).toEqual([77, 77, 77]);
    expect([2, 3, 4].map((block) => fork[block * PAGE + 28])).toEqual([10, 10, 10]);
  });
});
