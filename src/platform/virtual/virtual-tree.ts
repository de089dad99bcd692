/**
 * The names of the virtual disk. Each directory has the entries programs see and those the platter holds; a create, rename or unlink
 * is pending until a directory it touches is synced. A crash keeps, of each directory, some prefix of its pending changes; a
 * rename between two directories is kept or lost as one.
 */
import { StrataError } from "../../kit/errors.ts";
import type { SeededRandom } from "./seeded-random.ts";
import type { VirtualFile } from "./virtual-file.ts";

export type Node = VirtualFile | VirtualDirectory;

export class VirtualDirectory {
  readonly isDirectory = true;
  readonly entries = new Map<string, Node>();
  readonly durable = new Map<string, Node>();
  modifiedMs = 0;
  sizeBytes = 0;
}

interface Edit {
  readonly directory: VirtualDirectory;
  readonly name: string;
  /** null: the name goes. */
  readonly node: Node | null;
}

type Operation = readonly Edit[];

export class VirtualTree {
  readonly root = new VirtualDirectory();
  #pending: Operation[] = [];

  /** Makes all `edits` visible as one change. */
  change(...edits: Edit[]): void {
    for (const edit of edits) apply(edit, edit.directory.entries);
    this.#pending.push(edits);
  }

  find(path: string): Node | undefined {
    let node: Node | undefined = this.root;
    for (const name of segments(path)) {
      if (node === undefined || !(node instanceof VirtualDirectory)) return undefined;
      node = node.entries.get(name);
    }
    return node;
  }

  /** The directory that holds (or would hold) `path`, and the name in it. */
  parentOf(path: string): { directory: VirtualDirectory; name: string } | undefined {
    const names = segments(path);
    const name = names.pop();
    const directory = this.find(`/${names.join("/")}`);
    return name === undefined || !(directory instanceof VirtualDirectory) ? undefined : { directory, name };
  }

  /** Makes the changes of this directory's entries durable, in their order. */
  syncDirectory(directory: VirtualDirectory): void {
    const rest: Operation[] = [];
    for (const operation of this.#pending) {
      if (!operation.some((edit) => edit.directory === directory)) {
        rest.push(operation);
        continue;
      }
      for (const edit of operation) {
        apply(edit, edit.directory.durable);
        dropSuperseded(rest, edit);
      }
    }
    this.#pending = rest;
  }

  /** Nothing is left, durable or not. */
  erase(): void {
    this.root.entries.clear();
    this.root.durable.clear();
    this.#pending = [];
  }

  crash(random: SeededRandom): void {
    const stopped = new Set<VirtualDirectory>();
    // Between keeping nearly all and nearly nothing, so that both ends are seen often.
    const keep = random.float();
    for (const operation of this.#pending) {
      const kept = operation.every((edit) => !stopped.has(edit.directory)) && random.chance(keep);
      for (const edit of operation) {
        if (kept) apply(edit, edit.directory.durable);
        else stopped.add(edit.directory);
      }
    }
    this.#pending = [];
    restore(this.root, random);
  }
}

/** An edit made durable ahead of its turn must not be undone by an older one of the same name that is still pending. */
function dropSuperseded(operations: Operation[], by: Edit): void {
  for (let at = operations.length - 1; at >= 0; at--) {
    const left = operations[at].filter((edit) => edit.directory !== by.directory || edit.name !== by.name);
    if (left.length === 0) operations.splice(at, 1);
    else operations[at] = left;
  }
}

function apply(edit: Edit, entries: Map<string, Node>): void {
  if (edit.node === null) entries.delete(edit.name);
  else entries.set(edit.name, edit.node);
}

function restore(directory: VirtualDirectory, random: SeededRandom): void {
  directory.entries.clear();
  // Sorted: the order in which files draw their fate must not depend on how they came to be there.
  for (const [name, node] of [...directory.durable].sort(([a], [b]) => (a < b ? -1 : 1))) {
    directory.entries.set(name, node);
    if (node instanceof VirtualDirectory) restore(node, random);
    else node.crash(random);
  }
}

/** @throws StrataError fix-input `bad-path` on a path that is not absolute and plain */
export function segments(path: string): string[] {
  const names = path.split("/").filter((name) => name !== "" && name !== ".");
  if (!path.startsWith("/") || names.includes("..")) throw new StrataError("fix-input", "bad-path", `"${path}" is not an absolute path without ".."`);
  return names;
}
