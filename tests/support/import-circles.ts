/** Circles of imports, type-only ones too: files that can only be understood together. */
import { dirname, join } from "node:path";

const IMPORT = /(?:from|import\()\s*"(\.[^"]+)"/g;

/** Each circle once, its files sorted (Tarjan's strongly connected components). */
export function importCircles(files: readonly { readonly path: string; readonly text: string }[]): string[][] {
  const edges = new Map(files.map(({ path, text }) => [path, [...text.matchAll(IMPORT)].map((match) => join(dirname(path), match[1]))]));
  const index = new Map<string, number>();
  const low = new Map<string, number>();
  const open: string[] = [];
  const circles: string[][] = [];
  const visit = (path: string): number => {
    const own = index.size;
    let least = own;
    index.set(path, own);
    open.push(path);
    for (const next of edges.get(path) ?? []) {
      if (!edges.has(next)) continue;
      if (!index.has(next)) least = Math.min(least, visit(next));
      else if (open.includes(next)) least = Math.min(least, low.get(next) ?? index.get(next) ?? least);
    }
    low.set(path, least);
    if (least === own) {
      const circle = open.splice(open.indexOf(path));
      if (circle.length > 1) circles.push(circle.sort());
    }
    return least;
  };
  for (const { path } of files) if (!index.has(path)) visit(path);
  return circles;
}
