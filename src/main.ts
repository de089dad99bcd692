/** Entry of the executable. */
import { versionLine } from "./kit/version.ts";

if (process.argv.includes("--version")) {
  console.log(versionLine());
} else {
  console.error("usage: strata --version");
  process.exitCode = 2;
}
