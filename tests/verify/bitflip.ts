/**
 * Damage at rest: `bun run verify bitflip [--stride N] [--seed S]`.
 *
 * Flips one bit of every (Nth) byte of a small store: of each local layer file (must be repaired from object storage),
 * of each layer object with no local file (typed error), of index_part.json (the timeline is broken, typed, and nothing
 * is deleted). A wrong page, an untyped error or a loss ends it with exit code 1.
 */
import { parseArgs } from "node:util";
import { runBitflip } from "./bitflip/store.ts";

const { values } = parseArgs({ options: { stride: { type: "string", default: "1" }, seed: { type: "string", default: "1" } } });
const startMs = performance.now();
const { flips, right, refused } = runBitflip({ stride: Number(values.stride), seed: Number(values.seed) });
for (const [code, count] of refused) console.log(`${String(count).padStart(9)} ${code}`);
console.log(`${String(right).padStart(9)} right or repaired`);
console.log(`bitflip: ${flips} bits flipped, 0 wrong pages (${((performance.now() - startMs) / 1000).toFixed(1)} s)`);
