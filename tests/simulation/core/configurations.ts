import type { Configuration } from "./explore.ts";

export const CONFIGURATIONS: readonly Configuration[] = [
  { name: "two elections over logs that have parted", parted: true, candidacies: 1, entries: 0, drops: 0, crashes: 0 },
  { name: "the same with a connection that breaks", parted: true, candidacies: 1, entries: 0, drops: 1, crashes: 0 },
  { name: "the same with a power failure", parted: true, candidacies: 1, entries: 0, drops: 0, crashes: 1 },
  { name: "a new timeline, settled and written to", parted: false, candidacies: 2, entries: 1, drops: 0, crashes: 0 },
];
