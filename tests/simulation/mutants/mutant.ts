/**
 * Deliberate mistakes in the shipping code, to see that the simulator notices. A mutant replaces one piece of one source file as
 * it is loaded; the files themselves are never touched.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

export interface Mutant {
  readonly name: string;
  /** What is broken. */
  readonly rule: string;
  /** Below src/. */
  readonly file: string;
  readonly find: string;
  readonly replace: string;
  /** Storage is nothing to the fast layer. */
  readonly layer?: "world";
}

const SOURCE = join(import.meta.dir, "../../../src");

/** @throws when the text is not there exactly once: then the code has changed, and the mutant must follow */
export function mutate({ name, file, find, replace }: Mutant): { readonly path: string; readonly contents: string } {
  const path = join(SOURCE, file);
  const text = readFileSync(path, "utf8");
  const count = text.split(find).length - 1;
  if (count !== 1) throw new Error(`mutant ${name}: the text to replace stands ${count} times in src/${file}, it must be there once:\n${find}`);
  return { path, contents: text.replace(find, () => replace) };
}

/** From now on the file is loaded mutated: call it before anything imports it. Returns whether it has been. */
export function plant(mutant: Mutant): () => boolean {
  const { path, contents } = mutate(mutant);
  let loaded = false;
  Bun.plugin({
    name: `mutant ${mutant.name}`,
    setup: (build) => {
      build.onLoad({ filter: new RegExp(`^${RegExp.escape(path)}$`) }, () => {
        loaded = true;
        return { contents, loader: "ts" };
      });
    },
  });
  return () => loaded;
}
