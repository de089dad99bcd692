/** Where the system keeps temporary files. */
import { tmpdir } from "node:os";

export function platformTemporaryDirectory(): string {
  return tmpdir();
}
