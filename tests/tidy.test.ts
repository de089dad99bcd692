/** The house rules over the whole repository. Each breach is reported as file:line. */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { importCircles } from "./support/import-circles.ts";
import { checkFile, type SourceFile, type Violation } from "./support/tidy-rules.ts";

const ROOT = join(import.meta.dir, "..");

function source(path: string): SourceFile {
  return { path, text: readFileSync(join(ROOT, path), "utf8") };
}

function sources(folder: string): SourceFile[] {
  const names = readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" }).filter((name) => /\.tsx?$/.test(name));
  return names.sort().map((name) => source(`${folder}/${name}`));
}

function listed(violations: readonly Violation[]): string[] {
  return violations.map(({ file, line, rule, what }) => `${file}:${line} ${rule}: ${what}`);
}

test("every file keeps the house rules", () => {
  const files = [...sources("src"), ...sources("tests"), source("build.ts")];
  expect(files.length).toBeGreaterThan(50);
  expect(listed(files.flatMap(checkFile))).toEqual([]);
}, 60_000);

/** Folders that have none, and shall not get any. */
const WITHOUT_CIRCLES = ["src/compute/", "src/wire/", "src/cli/", "src/http/", "src/kit/", "src/platform/", "src/observability/", "src/broker/", "src/controller/", "src/safekeeper/"];

test("no files import each other in a circle", () => {
  const circles = importCircles(sources("src")).filter((circle) => circle.some((path) => WITHOUT_CIRCLES.some((folder) => path.startsWith(folder))));
  expect(circles).toEqual([]);
  const file = (path: string, ...imports: string[]) => ({ path, text: imports.map((name) => `import type { X } from "./${name}.ts";`).join("\n") });
  expect(importCircles([file("a.ts", "b"), file("b.ts", "c", "d"), file("c.ts", "a"), file("d.ts", "e"), file("e.ts"), file("f.ts", "g"), file("g.ts", "f", "a")])).toEqual([["a.ts", "b.ts", "c.ts"], ["f.ts", "g.ts"]]);
});

function rulesBroken(path: string, text: string): string[] {
  return checkFile({ path, text }).map((violation) => `${violation.line} ${violation.rule}`);
}

test("each rule finds what it is for", () => {
  const cases: readonly (readonly [path: string, text: string, broken: readonly string[]])[] = [
    ["src/kit/a.ts", "\n".repeat(601), ["1 file-length"]],
    ["src/kit/a.ts", `\nfunction f() {${"\n".repeat(70)}}\n`, ["2 function-length"]],
    ["src/kit/a.ts", `const f = () => {${"\n".repeat(69)}};\n`, []],
    ["tests/a.test.ts", `describe("x", () => {${"\n".repeat(90)}});\n`, []],
    ["src/kit/a.ts", "class A { m(a, b, c, d) {} }", ["1 positional-parameters"]],
    ["src/kit/a.ts", "/** Positional parameters on purpose: hot path. */\nexport function f(a, b, c, d) {}", []],
    ["src/kit/a.ts", "let x: any = y!;", ["1 no-any", "1 no-non-null"]],
    ["src/kit/a.ts", "class A { private x = 1; private constructor() {} }", ["1 hash-private"]],
    ["src/kit/a.ts", "export default 1;", ["1 no-default-export"]],
    ["src/kit/index.ts", "", ["1 no-barrels"]],
    ["src/kit/fooBar.ts", "", ["1 kebab-case"]],
    ["src/elsewhere/a.ts", "", ["1 floors"]],
    ["src/kit/a.ts", 'import { x } from "./b";', ["1 import-extension"]],
    ["src/kit/a.ts", 'import type { Clock } from "../platform/clock.ts";', ["1 floors"]],
    ["src/platform/a.ts", 'import { x } from "../observability/log.ts";', ["1 floors"]],
    ["src/keyspace/a.ts", 'import { x } from "../interpret/value.ts";', ["1 floors"]],
    ["src/interpret/a.ts", 'import { x } from "../keyspace/key.ts"; import { y } from "./value.ts";', []],
    ["src/pageserver/tenant/a.ts", 'import { x } from "../../safekeeper/api/b.ts"; import { y } from "../timeline/c.ts";', []],
    ["src/pageserver/tenant/a.ts", 'import { x } from "../../safekeeper/timeline/b.ts";', ["1 floors"]],
    ["src/pageserver/api/a.ts", 'import { x } from "../timeline/b.ts";', ["1 floors"]],
    ["src/pageserver/api/a.ts", 'import { x } from "../../safekeeper/api/b.ts";', ["1 floors"]],
    ["src/pageserver/a.ts", 'export { x } from "../cli/b.ts";', ["1 floors"]],
    ["src/postgres/redo/a.ts", "function f(a, b, c, d, e, g) {} function h(a, b, c, d, e, g, i) {}", ["1 positional-parameters"]],
    ["src/cli/a.ts", 'import fs from "node:fs"; Bun.file("x"); process.kill(1); Date.now();', ["1 system-access"]],
    ["src/cli/a.ts", 'import { x } from "../workers/b.ts";', ["1 floors"]],
    ["src/main.ts", 'import { y } from "./cli/y.ts"; import { x } from "./pageserver/pageserver.ts"; process.exit(1);', []],
    ["src/wire/a.ts", 'import fs from "node:fs"; import { randomBytes, createHash } from "node:crypto";', ["1 system-access", "1 system-access"]],
    ["src/wire/a.ts", "Date.now(); Math.random(); setTimeout(f, 1); new Date(); Bun.file(x); process.exit(0);", new Array(6).fill("1 system-access")],
    ["src/wire/a.ts", "new Date(0); clock.setTimeout(1); a.Date.now;", []],
    ["src/platform/real/a.ts", 'import fs from "node:fs"; Date.now(); Bun.file("x");', []],
    ["src/kit/a.ts", "const = ;", ["1 syntax"]],
  ];
  for (const [path, text, broken] of cases) expect([path, text, rulesBroken(path, text)]).toEqual([path, text, [...broken]]);
});
