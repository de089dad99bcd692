import { CONSENSUS_MUTANTS } from "./consensus.ts";
import { LOST_DISK_MUTANTS } from "./lost-disk.ts";
import type { Mutant } from "./mutant.ts";
import { PROPOSER_MUTANTS } from "./proposer.ts";
import { STORAGE_MUTANTS } from "./storage.ts";

export const MUTANTS: readonly Mutant[] = [...CONSENSUS_MUTANTS, ...PROPOSER_MUTANTS, ...STORAGE_MUTANTS, ...LOST_DISK_MUTANTS];
