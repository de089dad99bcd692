/** Entry of the executable: hands the command line to `cli/`, and the exit code to the system. */
import { runCommandLine } from "./cli/command-line.ts";
import { widenThreadPool } from "./platform/real/thread-pool.ts";
import { WORKER_URLS } from "./worker-urls.ts";

widenThreadPool(process.env);
// A timer that is still armed must not keep a finished program alive.
process.exit(await runCommandLine({ argv: process.argv.slice(2), invokedAs: process.argv0, environment: process.env, workers: WORKER_URLS }));
