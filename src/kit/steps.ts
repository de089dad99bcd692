/** Work cut into short steps: a generator that yields between them. See platform/pacer.ts for who must not hold the event loop. */

/** Takes all steps at once. */
export function allSteps<T>(steps: Generator<unknown, T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}
