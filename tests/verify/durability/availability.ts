/** What a quorum promises while some of the safekeepers are down, and what a start makes of a log that ends unevenly. */
import { rmSync } from "node:fs";
import type { TestCluster } from "../../support/dev-cluster.ts";
import type { Writers } from "./writers.ts";

const ROWS = 30;
const TIMEOUT_MS = 60_000;
/** Time for commits under way to be answered, and then for some that must not be. */
const QUIET_MS = 300;
const SILENCE_MS = 1_000;
const TAIL_MS = 1_000;

/** @throws Error naming the promise that was not kept */
export async function checkAvailability(cluster: TestCluster, writers: Writers): Promise<void> {
  writers.start(4);
  try {
    await oneDown(cluster, writers);
    await twoDown(cluster, writers);
    await unevenTail(cluster, writers);
  } finally {
    await writers.stop();
  }
  const missing = await writers.missing();
  if (missing.length > 0) throw new Error(`${missing.length} acknowledged rows are missing: ${missing.slice(0, 10).join(", ")}`);
}

async function mustProgress(writers: Writers, when: string): Promise<void> {
  if (!(await writers.progress(ROWS, TIMEOUT_MS))) throw new Error(`no commits ${when}`);
}

async function oneDown(cluster: TestCluster, writers: Writers): Promise<void> {
  await mustProgress(writers, "with all safekeepers up");
  await cluster.kill(cluster.safekeepers[2]);
  await mustProgress(writers, "with one safekeeper down");
}

async function twoDown(cluster: TestCluster, writers: Writers): Promise<void> {
  await cluster.kill(cluster.safekeepers[1]);
  await Bun.sleep(QUIET_MS);
  if (await writers.progress(1, SILENCE_MS)) throw new Error("a commit was acknowledged with two of three safekeepers down");
  cluster.safekeepers[2].start();
  await mustProgress(writers, "after one of two safekeepers came back");
  cluster.safekeepers[1].start();
  await cluster.safekeepers[1].waitReady(TIMEOUT_MS);
  await mustProgress(writers, "after all safekeepers came back");
}

/** The first safekeeper gets WAL that no other has, the pageserver gets none; then the compute is gone with its directory. */
async function unevenTail(cluster: TestCluster, writers: Writers): Promise<void> {
  const { safekeepers, pageserver, compute } = cluster;
  await cluster.kill(pageserver);
  await mustProgress(writers, "with the pageserver down");
  await Promise.all([cluster.kill(safekeepers[1]), cluster.kill(safekeepers[2])]);
  // The writers all wait by now: one more session makes sure that there is WAL which only the first has. Its row may come or not.
  const tail = writers.query("insert into ledger select -i, repeat('t', 1000) from generate_series(1, 100) i").catch(() => undefined);
  await Bun.sleep(TAIL_MS);
  await cluster.kill(compute);
  await tail;
  rmSync(cluster.computeDirectory, { recursive: true, force: true });
  const ahead = await cluster.safekeeperPositions(0);
  // At once: what is alive for a while fetches the tail from its peer.
  const behind = await Promise.all([1, 2].map(async (index) => {
    safekeepers[index].start();
    await safekeepers[index].waitReady(TIMEOUT_MS);
    return cluster.safekeeperPositions(index);
  }));
  if (ahead === null || behind.some((position) => position === null || position.flushLsn >= ahead.flushLsn)) {
    throw new Error(`no safekeeper has a tail of its own: ${JSON.stringify([ahead, ...behind])}`);
  }
  await cluster.startStorage();
  await cluster.startCompute();
  await mustProgress(writers, "after a start with a log that ended unevenly");
}
