import type { Configuration } from "./explore.ts";

const ALL = [0, 1, 2];

/** From small to large; the last ones take hours. */
export const CONFIGURATIONS: readonly Configuration[] = [
  { name: "parted logs, each proposer reaches a majority", parted: true, reach: [[0, 1], [1, 2]], candidacies: 1, entries: 0, drops: 0, crashes: 0 },
  { name: "the same, a connection may break unnoticed", parted: true, reach: [[0, 1], [1, 2]], candidacies: 1, entries: 0, drops: 1, crashes: 0 },
  { name: "the same, power may fail", parted: true, reach: [[0, 1], [1, 2]], candidacies: 1, entries: 0, drops: 0, crashes: 1 },
  { name: "parted logs, one proposer reaches everyone", parted: true, reach: [[0, 1], ALL], candidacies: 1, entries: 0, drops: 0, crashes: 0 },
  { name: "the same, a connection may break unnoticed", parted: true, reach: [[0, 1], ALL], candidacies: 1, entries: 0, drops: 1, crashes: 0 },
  { name: "a new timeline, each proposer reaches a majority, settles and writes", parted: false, reach: [[0, 1], [1, 2]], candidacies: 2, entries: 1, drops: 0, crashes: 0 },
  { name: "parted logs, everyone reaches everyone", parted: true, reach: [ALL, ALL], candidacies: 1, entries: 0, drops: 0, crashes: 0 },
  { name: "a new timeline, everyone reaches everyone, settles and writes", parted: false, reach: [ALL, ALL], candidacies: 2, entries: 1, drops: 0, crashes: 0 },
];
