/** A part of `verify crash` with every test run: all faults, at operations spread over a life. */
import { expect, test } from "bun:test";
import { applies, FAULTS, operationsOf, runPoint } from "./crash/safekeeper.ts";

const SEED = 77;
const STRIDE = 5;

test("a safekeeper loses nothing acknowledged, whichever disk operation fails", () => {
  const operations = operationsOf(SEED);
  expect(operations).toEqual(operationsOf(SEED));
  expect([...new Set(operations)].sort()).toEqual(["make-directory", "open", "remove", "rename", "sync", "sync-directory", "truncate", "write"]);
  let points = 0;
  let acknowledged = 0;
  for (const fault of FAULTS) {
    for (let operation = FAULTS.indexOf(fault); operation < operations.length; operation += STRIDE) {
      if (!applies(fault, operations[operation])) continue;
      points++;
      if (runPoint({ seed: SEED, operation, fault }) > 0) acknowledged++;
    }
  }
  expect(points).toBeGreaterThan(40);
  expect(acknowledged).toBeGreaterThan(points / 2);
}, 30_000);
