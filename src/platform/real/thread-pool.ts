/**
 * How many threads the runtime's pool has. Its own choice is one a core, and a thread that waits for an fsync is a thread less for
 * everybody: with two, sixteen writers are made durable two at a time, and a cold read waits behind them. Measured on two cores:
 * 2,600 fsyncs a second of sixteen files with two threads, 4,200 with four, 4,600 with eight, 4,800 with sixteen.
 */
import { dlopen } from "bun:ffi";

const POOL_THREADS = 8;
const VARIABLE = "UV_THREADPOOL_SIZE";

/**
 * To be called before anything has used the pool: the runtime looks once. Run from sources it has by then, having read them with it;
 * child processes get it in any case. Who set the variable keeps what he set.
 */
export function widenThreadPool(environment: Record<string, string | undefined>): void {
  if (environment[VARIABLE] !== undefined) return;
  const threads = String(Math.max(POOL_THREADS, navigator.hardwareConcurrency));
  environment[VARIABLE] = threads;
  // The runtime reads the C library's environment, which an assignment does not reach.
  const library = dlopen("libc.so.6", { setenv: { args: ["cstring", "cstring", "i32"], returns: "i32" } });
  library.symbols.setenv(Buffer.from(`${VARIABLE}\0`), Buffer.from(`${threads}\0`), 1);
}
