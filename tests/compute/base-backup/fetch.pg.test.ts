/** The same base backup, compressed over a network and plain over loopback. */
import { afterAll, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fetchBaseBackup } from "../../../src/compute/base-backup/fetch.ts";
import { RecordingLogger } from "../../../src/observability/recording-logger.ts";
import { findPostgresBinaries, initdb, resolvePostgresUser } from "../../../src/platform/postgres-binaries.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";
import { endOfLog, FakePageserver } from "../fake-storage.ts";

const base = mkdtempSync(join(tmpdir(), "strata-fetch-"));
chmodSync(base, 0o755);
afterAll(() => rmSync(base, { recursive: true, force: true }));

test("compressed for a pageserver elsewhere, plain for one on this machine, and the same files", async () => {
  const platform = realPlatform();
  const log = new RecordingLogger();
  const source = join(base, "source");
  await initdb({ binaries: await findPostgresBinaries({ major: 17 }), user: await resolvePostgresUser(), dataDirectory: source, superuser: "cloud_admin" });
  const pageserver = await new FakePageserver(platform, log, { directory: source, lsn: await endOfLog(source) }).start();
  const { tenantId, timelineId, port } = pageserver;
  // A name that is not this machine's, and leads here all the same.
  const network = { ...platform.network, connect: () => platform.network.connect({ host: "127.0.0.1", port }) } as typeof platform.network;
  const fetched = async (host: string) => {
    const directory = join(base, host);
    mkdirSync(directory);
    return await fetchBaseBackup({ platform: { ...platform, network }, pageserver: { host, port }, tenantId, timelineId, lsn: 0, directory });
  };
  const far = await fetched("pageserver.example");
  const near = await fetched("127.0.0.1");
  await pageserver.stop();
  expect(pageserver.queries.map((query) => query.endsWith(" --gzip"))).toEqual([true, false]);
  expect(near.fetchedBytes).toBeGreaterThan(2 * far.fetchedBytes);
  const files = (host: string): Map<string, Buffer> => {
    const entries = readdirSync(join(base, host), { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    return new Map(entries.map((entry) => join(entry.parentPath, entry.name)).sort().map((path) => [path.slice(join(base, host).length), readFileSync(path)]));
  };
  const [a, b] = [files("pageserver.example"), files("127.0.0.1")];
  expect([...a.keys()]).toEqual([...b.keys()]);
  expect(a.size).toBeGreaterThan(500);
  for (const [name, bytes] of a) expect([name, Buffer.compare(bytes, b.get(name) ?? Buffer.alloc(0))]).toEqual([name, 0]);
}, 60_000);
