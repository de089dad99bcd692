/** A benchmark that is broken off ends its processes and removes its directory first. */
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;

/** `cleanup` runs once, at the first signal; further ones are ignored while it does. */
export function onInterrupt(cleanup: () => Promise<unknown>): void {
  let begun = false;
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      if (begun) return;
      begun = true;
      void cleanup().catch((error: unknown) => console.error(error)).finally(() => process.exit(EXIT_CODES[signal]));
    });
  }
}
