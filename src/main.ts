/** Entry of the executable: hands the command line to `cli/`, and the exit code to the system. */
import { runCommandLine } from "./cli/command-line.ts";

process.exitCode = await runCommandLine({ argv: process.argv.slice(2), invokedAs: process.argv0, environment: process.env });
