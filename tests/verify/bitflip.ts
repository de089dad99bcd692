/**
 * Damage at rest: `bun run verify bitflip [--role pageserver|safekeeper|all] [--stride N] [--seed S]`.
 *
 * Flips one bit of every (Nth) byte of a small store: of each local layer file (must be repaired from object storage),
 * of each layer object with no local file (typed error), of index_part.json (the timeline is broken, typed, and nothing
 * is deleted). Of a safekeeper: of its control file (right or refused) and of its WAL (found by the checksum of the record). A wrong
 * page or record, an untyped error or a loss ends it with exit code 1.
 */
import { parseArgs } from "node:util";
import { runSafekeeperBitflip } from "./bitflip/safekeeper.ts";
import { runBitflip } from "./bitflip/store.ts";

const { values } = parseArgs({ options: { role: { type: "string", default: "all" }, stride: { type: "string", default: "1" }, seed: { type: "string", default: "1" } } });
const options = { stride: Number(values.stride), seed: Number(values.seed) };
const startMs = performance.now();
let flipped = 0;
const tell = (count: number, what: string): void => console.log(`${String(count).padStart(9)} ${what}`);

if (values.role !== "safekeeper") {
  const { flips, right, refused } = runBitflip(options);
  for (const [code, count] of refused) tell(count, `pageserver: ${code}`);
  tell(right, "pageserver: right or repaired");
  flipped += flips;
}
if (values.role !== "pageserver") {
  const { flips, outcomes } = runSafekeeperBitflip(options);
  for (const [outcome, count] of outcomes) tell(count, `safekeeper: ${outcome}`);
  flipped += flips;
}
console.log(`bitflip: ${flipped} bits flipped, 0 wrong pages (${((performance.now() - startMs) / 1000).toFixed(1)} s)`);
