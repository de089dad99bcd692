/** A part of `verify crash` with every test run: all faults, at operations spread over a life. */
import { expect, test } from "bun:test";
import * as pageserver from "./crash/pageserver.ts";
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

test("a pageserver loses nothing remote-consistent, whichever operation of its disk or its bucket fails", () => {
  const seed = Number(process.env["STRATA_SEED"] ?? Math.floor(Math.random() * 1e6));
  const kinds = pageserver.operationsOf(seed);
  expect([...new Set(kinds)].sort()).toEqual(["delete", "download", "list", "make-directory", "open", "remove", "rename", "sync", "sync-directory", "upload", "write"]);
  const points = kinds.flatMap((kind, operation) => pageserver.FAULTS.filter((fault) => pageserver.applies(fault, kind)).map((fault) => ({ seed, operation, fault })));
  expect(points.length).toBeGreaterThan(1500);
  // Other ones with each run, of every fault.
  const stride = Math.floor(points.length / 36);
  const chosen = points.filter((_, i) => i % stride === seed % stride);
  for (const point of chosen) {
    try {
      pageserver.runPoint(point);
    } catch (error) {
      throw new Error(`at ${JSON.stringify(point)}`, { cause: error });
    }
  }
}, 180_000);
