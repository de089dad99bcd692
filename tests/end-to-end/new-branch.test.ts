/** A new branch starts while one of its safekeepers is away, and that one gets everything when it returns. */
import { expect, test } from "bun:test";
import { TestCluster } from "../support/dev-cluster.ts";
import { connect } from "../verify/durability/writers.ts";

const CATCHES_UP_MS = 60_000;

test("a compute on a new branch does not need all safekeepers; the one that was away catches up", async () => {
  const cluster = await TestCluster.start({ pgVersion: 17, settings: { shared_buffers: "16MB" }, oneSafekeeperDown: true });
  try {
    const client = await connect(cluster.pgPort);
    await client.query("CREATE TABLE notes AS SELECT generate_series(1, 1000) AS id");
    client.destroy();
    await cluster.startStorage();
    const deadlineMs = performance.now() + CATCHES_UP_MS;
    for (;;) {
      const positions = await Promise.all([0, 1, 2].map((index) => cluster.safekeeperPositions(index)));
      const [first, , last] = positions;
      if (first !== null && last !== null && last.flushLsn > 0 && last.flushLsn === first.flushLsn) break;
      if (performance.now() > deadlineMs) throw new Error(`it does not catch up: ${JSON.stringify(positions)}`);
      await Bun.sleep(100);
    }
    expect(cluster.safekeepers[2].log()).toContain("recovered");
  } finally {
    await cluster.destroy();
  }
}, 300_000);
