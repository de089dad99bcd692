/** What a WAL store counts, for all timelines together and for its own. */
export interface WalStoreMetrics {
  timed<T>(operation: "initialize_segment" | "initialize_first_segment" | "truncate_wal" | "remove_segments_from_disk", action: () => Promise<T>): Promise<T>;
  write(bytes: number, action: () => Promise<void>): Promise<void>;
  flush(action: () => Promise<void>): Promise<void>;
  removedSegments(count: number): void;
  diskError(): void;
}

/** Counts nothing. */
export const NO_WAL_STORE_METRICS: WalStoreMetrics = {
  timed: (_operation, action) => action(),
  write: (_bytes, action) => action(),
  flush: (action) => action(),
  removedSegments: () => undefined,
  diskError: () => undefined,
};
