/** Runs of zeros in archives: most of a WAL segment that has only headers. One array stands for all, so nobody may write to it. */

export const ZEROS = new Uint8Array(1024 * 1024);

/** `sizeBytes` zeros, in pieces that are `ZEROS` itself as long as there is enough for it. */
export function* zeros(sizeBytes: number): Generator<Uint8Array> {
  let rest = sizeBytes;
  for (; rest >= ZEROS.length; rest -= ZEROS.length) yield ZEROS;
  if (rest > 0) yield ZEROS.subarray(0, rest);
}
