import { describe, expect, test } from "bun:test";
import { chmod, mkdtemp, mkdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type PostgresUser, canReach, findPostgresBinaries, initdb, resolvePostgresUser } from "../../src/platform/postgres-binaries.ts";
import { startPostgres } from "../../src/platform/postgres-process.ts";

async function withDirectory(body: (directory: string, user: PostgresUser | null) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "strata-pg-"));
  await chmod(directory, 0o777);
  try {
    await body(directory, await resolvePostgresUser());
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

describe("binaries", () => {
  test("all four majors are found and run", async () => {
    for (const major of [14, 15, 16, 17]) {
      const binaries = await findPostgresBinaries({ major });
      expect(Math.floor(binaries.versionNum / 10_000)).toBe(major);
    }
  });
  test("missing and wrong versions say what to do", async () => {
    await withDirectory(async (directory) => {
      await expect(findPostgresBinaries({ major: 17, binDirectory: directory })).rejects.toMatchObject({ kind: "not-found", code: "postgres-binaries-missing", message: expect.stringContaining("--pg-bin-dir") });
      await expect(findPostgresBinaries({ major: 17, searchFrom: [directory] })).rejects.toMatchObject({ code: "postgres-binaries-missing", message: expect.stringContaining("pg17") });
    });
    const { binDirectory } = await findPostgresBinaries({ major: 16 });
    await expect(findPostgresBinaries({ major: 17, binDirectory })).rejects.toMatchObject({ code: "postgres-version-mismatch", message: expect.stringContaining("PostgreSQL 16") });
  });
});

describe("reach", () => {
  test("a closed directory on the way is noticed", async () => {
    await withDirectory(async (directory) => {
      const stranger = { uid: 54_321, gid: 54_321 };
      expect(await canReach(stranger, join(directory, "x"))).toBe(true);
      await mkdir(join(directory, "closed"), { mode: 0o700 });
      expect(await canReach(stranger, join(directory, "closed", "x"))).toBe(false);
      expect(await canReach(null, join(directory, "closed", "x"))).toBe(true);
    });
  });
});

describe("server process", () => {
  test("initdb, start with forced settings, stop, bad start", async () => {
    await withDirectory(async (directory, user) => {
      const binaries = await findPostgresBinaries({ major: 17 });
      const dataDirectory = join(directory, "pgdata");
      const socketDirectory = join(directory, "sock");
      await mkdir(socketDirectory);
      await chmod(socketDirectory, 0o777);
      await initdb({ binaries, user, dataDirectory, superuser: "postgres" });
      const options = { binaries, user, dataDirectory, listenAddresses: "", port: 5432, socketDirectory };
      const server = await startPostgres({ ...options, settings: { fsync: "off", shared_buffers: "1MB" } });
      expect(server.logTail().join("\n")).toContain("starting PostgreSQL 17");
      expect(await server.stop("fast")).toEqual({ exitCode: 0, signal: null });
      await expect(startPostgres({ ...options, settings: { no_such_setting: "1" } })).rejects.toMatchObject({ code: "postgres-start-failed", message: expect.stringContaining("no_such_setting") });
      await expect(initdb({ binaries, user, dataDirectory, superuser: "postgres" })).rejects.toMatchObject({ code: "initdb-failed" });
    });
  }, 30_000);

  test("a server left behind is stopped before the next one starts", async () => {
    await withDirectory(async (directory, user) => {
      const binaries = await findPostgresBinaries({ major: 16 });
      const dataDirectory = join(directory, "pgdata");
      await initdb({ binaries, user, dataDirectory, superuser: "postgres" });
      const options = { binaries, user, dataDirectory, listenAddresses: "", port: 5432, socketDirectory: directory, settings: { fsync: "off" } };
      const left = await startPostgres(options);
      const next = await startPostgres(options);
      await left.exited;
      expect(next.pid).not.toBe(left.pid);
      await next.stop("immediate");
    });
  }, 30_000);

  test("lock files of a killed server whose number a living process has do not keep the next one from starting", async () => {
    await withDirectory(async (directory, user) => {
      const binaries = await findPostgresBinaries({ major: 17 });
      const dataDirectory = join(directory, "pgdata");
      await initdb({ binaries, user, dataDirectory, superuser: "postgres" });
      const lines = `${process.pid}\n${dataDirectory}\n1700000000\n5432\n${directory}\n`;
      await writeFile(join(dataDirectory, "postmaster.pid"), lines);
      await writeFile(join(directory, ".s.PGSQL.5432.lock"), lines);
      const server = await startPostgres({ binaries, user, dataDirectory, listenAddresses: "", port: 5432, socketDirectory: directory, settings: { fsync: "off" } });
      await server.stop("immediate");
    });
  }, 30_000);
});
