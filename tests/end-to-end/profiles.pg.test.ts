/** Profiles of the program as it is given out: names and lines of the sources in them, while it works. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { perftools } from "pprof/proto/profile";
import { findPostgresBinaries } from "../../src/platform/postgres-binaries.ts";
import { programs } from "../support/executable.ts";
import { RoleProcess } from "../support/role-process.ts";

const TENANT = "/v1/tenant/0123456789abcdef0123456789abcdef";
const cleanups: (() => unknown)[] = [];
afterAll(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

/** `function file` of all that is in a profile. */
async function functionsIn(reply: Response): Promise<string[]> {
  expect(reply.status).toBe(200);
  const profile = perftools.profiles.Profile.decode(gunzipSync(await reply.bytes()));
  return profile.function.map(({ name, filename }) => `${profile.stringTable[Number(name)]} ${profile.stringTable[Number(filename)]}`);
}

async function freePort(): Promise<number> {
  const probe = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response() });
  const { port } = probe;
  await probe.stop(true);
  return port ?? 0;
}

describe.each(programs())("$name", ({ command }) => {
  test("a pageserver at work: processor and heap profiles at once, in TypeScript's names", async () => {
    const directory = mkdtempSync(join(tmpdir(), "strata-profiles-"));
    cleanups.push(() => rmSync(directory, { recursive: true, force: true }));
    const port = await freePort();
    const { binDirectory } = await findPostgresBinaries({ major: 17 });
    writeFileSync(join(directory, "pageserver.toml"), `listen_pg_addr = "127.0.0.1:0"\nlisten_http_addr = "127.0.0.1:${port}"\npg_distrib_dir = ${JSON.stringify(binDirectory)}\n`);
    writeFileSync(join(directory, "identity.toml"), "id = 1\n");
    const url = `http://127.0.0.1:${port}`;
    const role = new RoleProcess({ name: "pageserver", command: [...command, "--role", "pageserver", "-D", directory], environment: {}, logPath: join(directory, "log"), readyUrl: `${url}/status` });
    cleanups.push(() => role.kill());
    role.start();
    await role.waitReady(60_000);
    const send = (method: string, path: string, body: unknown) => fetch(`${url}${path}`, { method, body: JSON.stringify(body), headers: { "content-type": "application/json" } });
    expect((await send("PUT", `${TENANT}/location_config`, { mode: "AttachedSingle", generation: 1 })).status).toBe(200);
    const processor = fetch(`${url}/profile/cpu?seconds=8&frequency=500`);
    expect((await send("POST", `${TENANT}/timeline`, { new_timeline_id: "aa".repeat(16), pg_version: 17 })).status).toBe(201);
    const heap = await functionsIn(await fetch(`${url}/profile/heap`));
    expect(heap.some((line) => /^importDatadir .*pageserver\/import\/import-datadir\.ts$/.test(line))).toBe(true);
    const busy = await functionsIn(await processor);
    expect(busy.some((line) => /src\/pageserver\/.*\.ts$/.test(line))).toBe(true);
    expect(await role.stop()).toBe(0);
  }, 120_000);
});
