/** Sorting in short steps, for lists so long that sorting them at once would hold everything else up. */

/** Sorted at once: about a tenth of a millisecond. */
const RUN_LENGTH = 512;
/** Merged before the next step. */
const MERGED_PER_STEP = 1024;

/** A sorted copy, stable: runs are sorted, then merged two by two. Yields between steps. */
export function* stepwiseSort<T>(items: readonly T[], compare: (a: T, b: T) => number): Generator<void, T[]> {
  let from: T[] = [];
  for (let at = 0; at < items.length; at += RUN_LENGTH) {
    for (const item of items.slice(at, at + RUN_LENGTH).sort(compare)) from.push(item);
    yield;
  }
  for (let length = RUN_LENGTH; length < from.length; length *= 2) {
    const to: T[] = [];
    for (let start = 0; start < from.length; start += 2 * length) yield* merge({ from, to, compare }, start, length);
    from = to;
  }
  return from;
}

/** Two runs of `length` side by side, the last ones perhaps shorter or missing. */
function* merge<T>({ from, to, compare }: { readonly from: readonly T[]; readonly to: T[]; readonly compare: (a: T, b: T) => number }, start: number, length: number): Generator<void, void> {
  const middle = Math.min(start + length, from.length);
  const end = Math.min(start + 2 * length, from.length);
  let left = start;
  let right = middle;
  while (left < middle || right < end) {
    const takeLeft = right >= end || (left < middle && compare(from[left], from[right]) <= 0);
    to.push(from[takeLeft ? left++ : right++]);
    if (to.length % MERGED_PER_STEP === 0) yield;
  }
}
