/** The platform of a running role. */
import type { Platform } from "../platform.ts";
import { RealClock } from "./clock.ts";
import { RealFiles } from "./files.ts";
import { RealNetwork } from "./network.ts";
import { RealRandom } from "./random.ts";

export function realPlatform(): Platform {
  return { clock: new RealClock(), random: new RealRandom(), files: new RealFiles(), network: new RealNetwork() };
}
