import { expect, test } from "bun:test";
import { Cancelled, StrataError } from "../../src/kit/errors.ts";
import { createLogger } from "../../src/observability/log.ts";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";

function capture(format: "json" | "pretty") {
  const lines: string[] = [];
  const log = createLogger({ role: "safekeeper", level: "info", format, write: (line) => lines.push(line), wallMs: () => 0 });
  return { lines, log };
}

test("a JSON line carries role, level, time, fields of parents and its own", () => {
  const { lines, log } = capture("json");
  log.child({ tenantId: "ab" }).child({ timelineId: "cd" }).info("hello", { count: 3 });
  log.debug("not at this level");
  expect(lines).toHaveLength(1);
  expect(JSON.parse(lines[0])).toEqual({ level: "info", time: "1970-01-01T00:00:00.000Z", role: "safekeeper", tenantId: "ab", timelineId: "cd", count: 3, msg: "hello" });
});

test("an error is printed with its whole cause chain", () => {
  const { lines, log } = capture("json");
  const disk = new Error("EIO: i/o error");
  const write = new StrataError("unavailable", "io-error", "cannot write /d/seg", { cause: disk, details: { path: "/d/seg" } });
  log.warn("flush failed", { error: new StrataError("retry", "flush-failed", "segment 3", { cause: write }) });
  const { error } = JSON.parse(lines[0]);
  expect(error).toEqual({
    message: "segment 3: cannot write /d/seg: EIO: i/o error",
    kind: "retry",
    code: "flush-failed",
    causes: ["StrataError: cannot write /d/seg", "Error: EIO: i/o error"],
  });
});

test("a stack is printed of bugs, not of operating errors or cancellation", () => {
  const { lines, log } = capture("json");
  log.error("a", { error: new TypeError("x is undefined") });
  log.error("b", { error: new Cancelled() });
  log.error("c", { error: "just text" });
  expect(JSON.parse(lines[0]).error.stack).toContain("log.test.ts");
  expect(JSON.parse(lines[1]).error).toEqual({ message: "cancelled" });
  expect(JSON.parse(lines[2]).error).toEqual({ message: "just text" });
});

test("a pretty line is one line", () => {
  const { lines, log } = capture("pretty");
  log.warn("slow", { table: "a b", durationMs: 5, error: new StrataError("retry", "busy", "try again") });
  expect(lines).toEqual(['1970-01-01T00:00:00.000Z WARN  safekeeper: slow table="a b" durationMs=5 code=busy error="try again"\n']);
});

test("a recording logger finds the loud lines nobody announced", () => {
  const log = new RecordingLogger();
  log.info("fine");
  log.expectWarn(/slow .* query/);
  log.child({ a: 1 }).warn("slow select query");
  log.assertQuiet();
  log.error("broken", { error: new Error("why") });
  expect(() => log.assertQuiet()).toThrow("ERROR broken: why");
  log.expectWarn("broken: why");
  log.assertQuiet();
  expect(log.entries[1].fields).toEqual({ a: 1 });
});
