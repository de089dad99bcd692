import { expect, test } from "bun:test";
import { runSafekeeperBitflip } from "./bitflip/safekeeper.ts";
import { runBitflip } from "./bitflip/store.ts";

test("flipped bits in layers and index are repaired or refused, never served", () => {
  const { flips, right, refused } = runBitflip({ stride: 331, seed: 5 });
  expect(flips).toBeGreaterThan(400);
  expect(right).toBeGreaterThan(0);
  expect(refused.get("layer-checksum-mismatch") ?? 0).toBeGreaterThan(100);
  expect(refused.get("bad-index-part") ?? 0).toBeGreaterThan(0);
  for (const code of refused.keys()) expect(["layer-checksum-mismatch", "layer-truncated", "bad-layer-summary", "bad-index-part"]).toContain(code);
}, 60_000);

test("flipped bits in a safekeeper's control file and WAL are refused or found, never passed on as another record", () => {
  const { flips, outcomes } = runSafekeeperBitflip({ stride: 307, seed: 5 });
  expect(flips).toBeGreaterThan(100);
  expect(outcomes.get("found when read: wal-bad-crc") ?? 0).toBeGreaterThan(20);
  expect(outcomes.get("refused at the start") ?? 0).toBeGreaterThan(20);
}, 60_000);
