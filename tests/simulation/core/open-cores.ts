/**
 * For the exhaustive exploration a state is copied and written down, private fields and all: the two stateful cores are loaded
 * with their private names turned into plain ones. Nothing else of them changes.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { mutate, type Mutant } from "../mutants/mutant.ts";

const SOURCE = join(import.meta.dir, "../../../src");
const FILES = ["compute/proposer/core.ts", "safekeeper/consensus/acceptor.ts"];

/** Must come before anything imports the cores. @param mutant planted as well */
export function openCores(mutant: Mutant | null): void {
  const mutated = mutant === null ? null : mutate(mutant);
  const paths = [...FILES.map((file) => join(SOURCE, file)), ...(mutated === null ? [] : [mutated.path])];
  Bun.plugin({
    name: "open cores",
    setup: (build) => {
      build.onLoad({ filter: new RegExp(`^(${paths.map((path) => RegExp.escape(path)).join("|")})$`) }, ({ path }) => {
        const text = mutated?.path === path ? mutated.contents : readFileSync(path, "utf8");
        const isCore = FILES.some((file) => path === join(SOURCE, file));
        return { contents: isCore ? text.replaceAll(/#(?=[a-z])/g, "_") : text, loader: "ts" };
      });
    },
  });
}
