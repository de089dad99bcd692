/**
 * Everything a role may ask of the world outside: time, randomness, files, sockets. A role gets one `Platform` in
 * its constructor and touches no global. Two families implement it: `real/` (Bun) and `virtual/` (the simulator's
 * seeded clock, network and disk, where power can fail). Child processes are in `platform/processes.ts`.
 */
import type { Clock } from "./clock.ts";
import type { FileSystem } from "./files.ts";
import type { Network } from "./network.ts";
import type { Random } from "./random.ts";

export interface Platform {
  readonly clock: Clock;
  readonly random: Random;
  readonly files: FileSystem;
  readonly network: Network;
}
