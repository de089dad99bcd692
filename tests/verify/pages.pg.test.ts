/** The pages proof on the newest and the oldest PostgreSQL; `bun run verify pages` runs it on the others, and with checksums. */
import { expect, test } from "bun:test";
import { verifyPages } from "./pages.ts";

for (const { major, checksums } of [{ major: 17, checksums: true }, { major: 14, checksums: false }] as const) {
  test(`everything that PostgreSQL ${major} had comes back from the bucket`, async () => {
    const result = await verifyPages({ major, checksums, keep: false, print: () => undefined });
    expect(result.differences).toEqual([]);
    expect(result.compared).toBeGreaterThan(4000);
    if (checksums) expect(result.checksums).toBeGreaterThan(3000);
  }, 240_000);
}
