/** What the folder's README.md says is not here is not here, and each name without effect has its reason in the pageserver's. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { RecordingLogger } from "../../../src/observability/recording-logger.ts";
import { tellUnusedNames } from "../../../src/pageserver/config-names.ts";
import { tenantConfNames } from "../../../src/pageserver/tenant/tenant-config.ts";
import { EXPECTED } from "../../conformance/auth/expected-routes.ts";

const read = (path: string) => readFileSync(join(import.meta.dir, "../../../src/pageserver", path), "utf8");
/** Names in backticks in the first column of the table below `title`. */
function namesBelow(text: string, title: string): string[] {
  const [section] = text.slice(text.indexOf(title) + title.length).split("\n## ");
  const rows = section.split("\n").filter((line) => line.startsWith("| "));
  return rows.slice(2).flatMap((row) => [...row.split(" | ")[0].matchAll(/`([^`]+)`/g)].map(([, name]) => name));
}

test("no route that is said to be missing is there", () => {
  const routes = Object.keys(EXPECTED.pageserver.routes);
  const missing = namesBelow(read("http/README.md"), "## Of the peer's routes, not here").filter((name) => /^[a-z_/]+$/.test(name));
  expect(missing.length).toBeGreaterThan(25);
  // Of `compact` two methods are.
  const methods = new Set(["compact"]);
  expect(missing.filter((name) => !methods.has(name) && routes.some((route) => route.endsWith(`/${name}`)))).toEqual([]);
  expect(routes.filter((route) => route.endsWith("/compact"))).toEqual(["put /v1/tenant/:tenant_shard_id/timeline/:timeline_id/compact"]);
});

test("names without effect are those that the README gives a reason for, and no others", () => {
  const said = namesBelow(read("README.md"), "## Names in pageserver.toml without effect").filter((name) => name !== "tenant_config");
  const isSaid = (name: string) => said.some((one) => (one.endsWith("…") ? name.startsWith(one.slice(0, -1)) : name === one));
  expect([...tenantConfNames.withoutEffect].filter((name) => !isSaid(name))).toEqual([]);
  const log = new RecordingLogger();
  const full = said.filter((name) => !name.endsWith("…") && !tenantConfNames.withoutEffect.has(name));
  tellUnusedNames(Object.fromEntries(full.map((name) => [name, "something else"])), [], log);
  expect(log.entries.map(({ message, fields }) => [message, fields.names])).toEqual([["configuration without effect here", full.join(", ")]]);
  const source = read("config-names.ts");
  const known = [...source.slice(source.indexOf("const WITHOUT_EFFECT"), source.indexOf("\n};")).matchAll(/(?:^|[ {])([a-z0-9_]{6,}): /gm)].map(([, name]) => name).filter((name) => !/^(import_job_|max_batch_size|execution|batching)/.test(name));
  expect([known.length > 30, known.filter((name) => !isSaid(name))]).toEqual([true, []]);
});
