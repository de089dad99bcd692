/** Upper bounds of the histograms, as the peer has them (pageserver/src/metrics.rs); seconds unless named otherwise. */

/** What users wait for: from a microsecond on, and far enough up to tell bad from really bad. */
export const CRITICAL_SECONDS: readonly number[] = [0.000_001, 0.000_01, 0.000_1, 0.001, 0.01, 0.1, 1, 10, 100];
/** Background work: compaction, collection, sizes. */
export const STORAGE_OPERATION_SECONDS: readonly number[] = [0.01, 0.1, 1, 10, 100, 1000];
export const IO_SECONDS: readonly number[] = [0.000_03, 0.001, 0.03, 1, 30];
export const REDO_SECONDS: readonly number[] = [
  0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
];
export const REDO_RECORDS: readonly number[] = [0, 1, 2, 5, 10, 25, 50, 100, 250, 500];
export const REDO_BYTES: readonly number[] = [24, 32, 48, 64, 96, 128, 184, 256, 368, 512, 728, 1024, 1456, 2048, 2904, 4096, 5800, 8192, 11_592, 16_384, 23_176, 32_768];
/** Of a compute's start. */
export const STARTUP_SECONDS: readonly number[] = [
  0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.8, 1, 1.5, 2, 2.5, 3, 5, 10, 20, 40, 60,
];
/** Of all timelines together there may be more of them. */
export const SMGR_SECONDS: readonly number[] = [
  1, 10, 20, 40, 60, 80, 100, 200, 300, 400, 500, 600, 700, 800, 900,
  1e3, 2e3, 4e3, 6e3, 8e3, 1e4, 2e4, 4e4, 6e4, 8e4, 1e5, 2e5, 4e5, 6e5, 8e5,
  1e6, 2e6, 4e6, 6e6, 8e6, 1e7, 2e7, 5e7, 1e8, 2e8, 1e9,
].map((micros) => micros / 1e6);
/** Counts of layers. */
export const LAYERS: readonly number[] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
export const LAYERS_A_KEY: readonly number[] = [1, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
/** The same of each timeline: fewer. */
export const LAYERS_OF_TIMELINE: readonly number[] = [4, 8, 16, 32, 64, 128, 256];
export const DELTAS: readonly number[] = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256];
export const BATCH_MAX = 32;
export const BATCH_SIZES: readonly number[] = Array.from({ length: BATCH_MAX }, (_, index) => index + 1);
export const BATCH_SIZES_OF_TIMELINE: readonly number[] = [1, 2, 4, 8, 16, 32];
/** From evicting a layer to fetching it again. */
export const REDOWNLOAD_SECONDS: readonly number[] = [10, 30, 60, 300, 900, 1800, 3600, 43_200];
/** Where the peer takes the default of its library. */
export const DEFAULT_SECONDS: readonly number[] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
export const DOWNLOAD_WAIT_SECONDS: readonly number[] = [0.01, 0.1, 1, 10].flatMap((unit) => [1, 2, 3, 4, 5, 6, 7, 8, 9].map((times) => Number((unit * times).toFixed(2)))).filter((seconds) => seconds <= 60);
