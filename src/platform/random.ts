/** Randomness, passed in; the virtual one is seeded. */
export interface Random {
  /** Uniform in [0, 1). */
  float(): number;
  /** Uniform integer in [0, limit). */
  below(limit: number): number;
  /** Fresh array of `length` random bytes. */
  bytes(length: number): Uint8Array;
}
