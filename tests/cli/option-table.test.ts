import { describe, expect, test } from "bun:test";
import { HelpShown, option, parseOptions, repeatable, required, toggle } from "../../src/cli/options/option-table.ts";
import { hostPort, integer } from "../../src/cli/options/parsers.ts";
import { isStrataError } from "../../src/kit/errors.ts";

const TABLE = {
  listen: option({ flag: "-l, --listen-pg <host:port>", help: "where", parse: hostPort, default: { host: "localhost", port: 1 } }),
  size: required({ flag: "--size <n>", help: "how much", parse: integer(1, 10) }),
  sync: toggle("--no-sync", "unsafe"),
  tags: repeatable({ flag: "--tag <text>", help: "label", parse: (text) => text.toUpperCase() }),
};

function parse(argv: string[], environment: Record<string, string> = {}, print: (text: string) => void = () => undefined) {
  return parseOptions(TABLE, { program: "demo", description: "A demo.", argv, environment, print });
}

function usageOf(argv: string[], environment?: Record<string, string>): string {
  try {
    parse(argv, environment);
  } catch (error) {
    if (isStrataError(error, "usage")) return error.message;
    throw error;
  }
  throw new Error("it was accepted");
}

describe("option table", () => {
  test("a flag goes before the environment, the environment before the default", () => {
    expect(parse(["--size", "2"])).toEqual({ listen: { host: "localhost", port: 1 }, size: 2, sync: false, tags: [] });
    const environment = { STRATA_DEMO_LISTEN_PG: "h:2", STRATA_DEMO_SIZE: "3", STRATA_DEMO_TAG: "a,b" };
    expect(parse([], environment)).toEqual({ listen: { host: "h", port: 2 }, size: 3, sync: false, tags: ["A", "B"] });
    expect(parse(["-l", "x:9", "--size=4", "--tag", "c", "--tag", "d"], environment)).toMatchObject({ listen: { host: "x", port: 9 }, size: 4, tags: ["C", "D"] });
  });

  test("a switch named no-… is true when it is given", () => {
    expect(parse(["--size", "1", "--no-sync"]).sync).toBe(true);
    expect(parse(["--size", "1"], { STRATA_DEMO_NO_SYNC: "true" }).sync).toBe(true);
  });

  test("whatever is wrong is a usage error that names the flag", () => {
    expect(usageOf([])).toContain("--size is required");
    expect(usageOf(["--size", "11"])).toContain("--size");
    expect(usageOf(["--size", "1", "--what"])).toContain("--what");
    expect(usageOf(["--size", "1", "stray"])).toContain("argument");
    expect(usageOf(["--size", "1"], { STRATA_DEMO_LISTEN_PG: "nonsense" })).toContain("--listen-pg");
  });

  test("help lists every flag with its environment name", () => {
    let text = "";
    expect(() => parse(["--help"], {}, (part) => (text += part))).toThrow(HelpShown);
    for (const piece of ["--listen-pg <host:port>", "STRATA_DEMO_LISTEN_PG", "--size <n>", "--no-sync", "A demo."]) expect(text).toContain(piece);
  });
});
