/** The system's randomness: the secure generator for bytes, the fast one for choices. */
import { randomBytes } from "node:crypto";
import type { Random } from "../random.ts";

export class RealRandom implements Random {
  float(): number {
    return Math.random();
  }

  below(limit: number): number {
    return Math.floor(Math.random() * limit);
  }

  bytes(length: number): Uint8Array {
    return new Uint8Array(randomBytes(length));
  }
}
