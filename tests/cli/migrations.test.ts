import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { MIGRATIONS } from "../../src/cli/roles/run-controller.ts";

test("the executable carries every migration of the folder", () => {
  const directory = join(import.meta.dir, "../../migrations");
  const files = readdirSync(directory).sort().map((name) => ({ name, sql: readFileSync(join(directory, name), "utf8") }));
  expect([...MIGRATIONS]).toEqual(files);
});
