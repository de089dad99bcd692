/**
 * Sees every buffer the program makes: the constructors of typed arrays and array buffers are replaced for a while.
 */
const CONSTRUCTORS = ["ArrayBuffer", "Uint8Array", "Uint16Array", "Uint32Array", "Int32Array", "Float64Array", "Array"] as const;
const BYTES: Readonly<Record<string, number>> = { Uint16Array: 2, Uint32Array: 4, Int32Array: 4, Float64Array: 8, Array: 8 };

/** Calls `report` with the size of every buffer larger than `limitBytes`. @returns what ends it */
export function watchAllocations(limitBytes: number, report: (sizeBytes: number) => void): () => void {
  const scope = globalThis as unknown as Record<string, unknown>;
  const originals = CONSTRUCTORS.map((name) => [name, scope[name]] as const);
  for (const [name, original] of originals) {
    scope[name] = new Proxy(original as new (...args: unknown[]) => object, {
      construct(target, args, newTarget) {
        const size = typeof args[0] === "number" ? args[0] * (BYTES[name] ?? 1) : 0;
        if (size > limitBytes) report(size);
        return Reflect.construct(target, args, newTarget) as object;
      },
    });
  }
  const { alloc, allocUnsafe } = Buffer;
  Buffer.alloc = ((size: number, ...rest: [])=> {
    if (size > limitBytes) report(size);
    return alloc(size, ...rest);
  }) as typeof Buffer.alloc;
  Buffer.allocUnsafe = ((size: number) => {
    if (size > limitBytes) report(size);
    return allocUnsafe(size);
  }) as typeof Buffer.allocUnsafe;
  return () => {
    for (const [name, original] of originals) scope[name] = original;
    Buffer.alloc = alloc;
    Buffer.allocUnsafe = allocUnsafe;
  };
}
