/** One cluster, the promises of availability, then rounds of kills. */
import { SeededRandom } from "../../../src/platform/virtual/seeded-random.ts";
import { TestCluster, type TestClusterOptions } from "../../support/dev-cluster.ts";
import { checkAvailability } from "./availability.ts";
import { Rounds } from "./rounds.ts";
import { Writers } from "./writers.ts";

export interface DurabilityOptions {
  readonly rounds: number;
  readonly seed: number;
  readonly pgVersion: TestClusterOptions["pgVersion"];
  readonly program?: readonly string[];
  readonly print: (line: string) => void;
}

/** @throws Error with the ends of all logs when the cluster does not come back */
export async function runDurability(options: DurabilityOptions): Promise<Rounds> {
  const { seed, pgVersion, print, program } = options;
  const startMs = performance.now();
  const cluster = await TestCluster.start({ pgVersion, powerLoss: true, settings: { shared_buffers: "16MB" }, ...(program === undefined ? {} : { program }) });
  const writers = new Writers(cluster.pgPort);
  const seconds = (): string => `${((performance.now() - startMs) / 1000).toFixed(1)} s`;
  try {
    print(`cluster started (${seconds()})`);
    await writers.createTable();
    await checkAvailability(cluster, writers);
    print(`one safekeeper down, two down, a tail on one and the pageserver behind: as promised (${seconds()})`);
    const rounds = new Rounds({ cluster, writers, random: new SeededRandom(seed), print: (line) => print(`${line} (${seconds()})`) });
    for (let round = 1; round <= options.rounds; round++) await rounds.run(round);
    return rounds;
  } catch (error) {
    const logs = cluster.roles.map((role) => `--- ${role.name}\n${role.tail()}`).join("\n");
    throw new Error(`${String(error)}\n${logs}`, { cause: error });
  } finally {
    await writers.stop();
    await cluster.destroy();
  }
}
