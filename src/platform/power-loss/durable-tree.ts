/**
 * Which names of a directory tree are durable, and which changes of names are not yet: the model behind the shadow. Files and
 * directories are known by keys, so that a file can be durable under one name while programs see it under another.
 *
 * As the virtual disk has it: a crash keeps, of each directory, some prefix of its unsynced changes; a rename between two
 * directories is kept or lost as one.
 */
import type { Random } from "../random.ts";

/** Of a file (`f…`) or a directory (`d…`), the same for as long as it exists. */
export type Key = string;

export interface NameEdit {
  readonly directory: Key;
  readonly name: string;
  /** null: the name goes. */
  readonly key: Key | null;
}

export type NameChange = readonly NameEdit[];
export type Names = Map<Key, Map<string, Key>>;

interface Pending {
  /** Changes before it. */
  readonly number: number;
  edits: NameChange;
}

export class DurableTree {
  readonly #durable: Names = new Map();
  #pending: Pending[] = [];
  #changes = 0;

  /** How many changes there have been: what a sync that begins now covers. */
  get changes(): number {
    return this.#changes;
  }

  /** Makes a change that waits for the sync of a directory it touches. */
  change(edits: NameChange): void {
    this.#pending.push({ number: this.#changes++, edits });
  }

  /** Takes the names of a directory as durable. */
  seed(directory: Key, entries: ReadonlyMap<string, Key>): void {
    this.#durable.set(directory, new Map(entries));
  }

  /** Makes the first `upTo` changes, as far as they are of this directory, durable in their order; a rename's other half with them. Returns keys that lost a name. */
  sync(directory: Key, upTo: number): Set<Key> {
    const released = new Set<Key>();
    const rest: Pending[] = [];
    for (const change of this.#pending) {
      if (change.number >= upTo || !change.edits.some((edit) => edit.directory === directory)) {
        rest.push(change);
        continue;
      }
      for (const edit of change.edits) {
        applyEdit(this.#durable, edit, released);
        dropSuperseded(rest, edit);
      }
    }
    this.#pending = rest;
    return released;
  }

  /** Whether a durable or pending name leads to it. */
  refers(key: Key): boolean {
    for (const entries of this.#durable.values()) for (const value of entries.values()) if (value === key) return true;
    return this.#pending.some(({ edits }) => edits.some((edit) => edit.key === key));
  }

  /** The names as programs see them. */
  visible(): Names {
    const names = copyOf(this.#durable);
    for (const { edits } of this.#pending) for (const edit of edits) applyEdit(names, edit);
    return names;
  }

  /** The names after a loss of power, and how many changes it took. */
  survivor(random: Random): { readonly names: Names; readonly lostChanges: number } {
    const names = copyOf(this.#durable);
    const stopped = new Set<Key>();
    let lostChanges = 0;
    // Between keeping nearly all and nearly nothing, so that both ends are seen often.
    const keepPercent = random.below(101);
    for (const { edits } of this.#pending) {
      const kept = edits.every((edit) => !stopped.has(edit.directory)) && random.below(100) < keepPercent;
      if (!kept) lostChanges++;
      for (const edit of edits) {
        if (kept) applyEdit(names, edit);
        else stopped.add(edit.directory);
      }
    }
    return { names, lostChanges };
  }
}

/** An edit made durable ahead of its turn must not be undone by an older one of the same name that is still pending. */
function dropSuperseded(changes: Pending[], by: NameEdit): void {
  for (let at = changes.length - 1; at >= 0; at--) {
    const left = changes[at].edits.filter((edit) => edit.directory !== by.directory || edit.name !== by.name);
    if (left.length === 0) changes.splice(at, 1);
    else changes[at].edits = left;
  }
}

function applyEdit(names: Names, edit: NameEdit, released?: Set<Key>): void {
  let entries = names.get(edit.directory);
  if (entries === undefined) names.set(edit.directory, (entries = new Map()));
  const before = entries.get(edit.name);
  if (before !== undefined && before !== edit.key) released?.add(before);
  if (edit.key === null) entries.delete(edit.name);
  else entries.set(edit.name, edit.key);
}

function copyOf(names: Names): Names {
  return new Map([...names].map(([key, entries]) => [key, new Map(entries)]));
}

/** What turns the names in `from` into those in `to`; a key that leaves one name and comes under another does so in one change. */
export function differences(from: Names, to: Names): NameChange[] {
  const changes: NameEdit[][] = [];
  const byKey = new Map<Key, NameEdit[]>();
  const add = (edit: NameEdit, moved: Key): void => {
    const joined = byKey.get(moved);
    if (joined !== undefined) return void joined.push(edit);
    const change = [edit];
    byKey.set(moved, change);
    changes.push(change);
  };
  for (const [directory, entries] of to) {
    const before = from.get(directory) ?? new Map<string, Key>();
    for (const [name, key] of entries) if (before.get(name) !== key) add({ directory, name, key }, key);
    for (const [name, key] of before) if (!entries.has(name)) add({ directory, name, key: null }, key);
  }
  return changes;
}
