/**
 * Copying between byte arrays without allocating: `target.set(source.subarray(…))` makes a view for every call, which
 * costs three times the copy itself for the short pieces WAL records are made of.
 */
const nativeCopy = Buffer.prototype.copy;
/** Below this a plain loop is quicker than a native call. */
const LOOP_LIMIT_BYTES = 16;

/**
 * Copies `length` bytes. The ranges may overlap only when source and target are the same array and `target.copyWithin`
 * would do; use that instead. Positional parameters on purpose: an options object would be an allocation.
 * @throws RangeError when either range leaves its array (nothing is copied then)
 */
export function copyBytes(source: Uint8Array, sourceOffset: number, target: Uint8Array, targetOffset: number, length: number): void {
  if (
    length < 0 || sourceOffset < 0 || targetOffset < 0 ||
    sourceOffset + length > source.length || targetOffset + length > target.length
  ) {
    throw new RangeError(`copy of ${length} bytes from ${sourceOffset}/${source.length} to ${targetOffset}/${target.length}`);
  }
  if (length < LOOP_LIMIT_BYTES) {
    for (let i = 0; i < length; i++) target[targetOffset + i] = source[sourceOffset + i];
  } else {
    nativeCopy.call(source, target, targetOffset, sourceOffset, sourceOffset + length);
  }
}
