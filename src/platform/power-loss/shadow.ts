/**
 * What is durable of one live directory, kept beside it:
 *
 *     files/<key>   content of a file as of its last sync
 *     journal       one JSON a line: {"seed": directory, "entries": [[name, key], …]}
 *                                    {"change": [[directory, name, key or null], …]}
 *                                    {"sync": directory, "upTo": count of the changes it covers}
 *
 * A key is kind, inode and time of birth. The journal is not compacted: a shadow is made for a test and thrown away after each loss
 * of power. It outlives a kill of the process, as the page cache does; what the kill cut off from the journal shows as
 * a difference to the live directory, and is then pending like any other change.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { type Key, DurableTree, differences, type NameChange, type Names } from "./durable-tree.ts";

/** One line of the journal. */
type JournalLine =
  | { readonly seed: Key; readonly entries: readonly (readonly [string, Key])[] }
  | { readonly change: readonly (readonly [Key, string, Key | null])[] }
  | { readonly sync: Key; readonly upTo: number };

/** Null when there is nothing at the path. */
export function keyOf(path: string): Key | null {
  const stat = fs.lstatSync(path, { bigint: true, throwIfNoEntry: false });
  return stat === undefined ? null : `${stat.isDirectory() ? "d" : "f"}${stat.ino}-${stat.birthtimeNs}`;
}

export function isDirectoryKey(key: Key): boolean {
  return key.startsWith("d");
}

/** Names below a live directory, and where each file is. */
export function walk(root: string): { readonly names: Names; readonly paths: Map<Key, string> } {
  const names: Names = new Map();
  const paths = new Map<Key, string>();
  const visit = (directory: string, key: Key): void => {
    const entries = new Map<string, Key>();
    names.set(key, entries);
    for (const name of fs.readdirSync(directory)) {
      const path = join(directory, name);
      const child = keyOf(path);
      if (child === null) continue;
      entries.set(name, child);
      paths.set(child, path);
      if (isDirectoryKey(child)) visit(path, child);
    }
  };
  const rootKey = keyOf(root);
  if (rootKey !== null) visit(root, rootKey);
  return { names, paths };
}

export class Shadow {
  readonly #directory: string;
  readonly #tree = new DurableTree();
  readonly #journal: number;

  /** Opens the shadow of `root`, which exists; without a shadow of this very directory, all that is there is durable. */
  constructor(root: string, directory: string) {
    this.#directory = directory;
    const rootKey = keyOf(root) ?? "";
    if (!this.#replay(rootKey)) {
      fs.rmSync(directory, { recursive: true, force: true });
      fs.mkdirSync(join(directory, "files"), { recursive: true });
    }
    const fresh = !fs.existsSync(this.#journalPath);
    this.#journal = fs.openSync(this.#journalPath, "a");
    if (fresh) this.#seed(root);
    else for (const change of differences(this.#tree.visible(), walk(root).names)) this.change(change);
  }

  get tree(): DurableTree {
    return this.#tree;
  }

  get #journalPath(): string {
    return join(this.#directory, "journal");
  }

  /** Where the durable content of a file is, if any of it is. */
  contentPath(key: Key): string {
    return join(this.#directory, "files", key);
  }

  /** Whether a new file may take this key: an inode born within one tick of the clock as one that had its number may not. */
  isFresh(key: Key): boolean {
    return !this.#tree.refers(key) && !fs.existsSync(this.contentPath(key));
  }

  change(edits: NameChange): void {
    if (edits.length === 0) return;
    this.#tree.change(edits);
    this.#note({ change: edits.map(({ directory, name, key }) => [directory, name, key]) });
  }

  /** @param upTo `tree.changes` when the sync began */
  syncDirectory(key: Key, upTo: number): void {
    const released = this.#tree.sync(key, upTo);
    this.#note({ sync: key, upTo });
    for (const gone of released) if (!isDirectoryKey(gone) && !this.#tree.refers(gone)) fs.rmSync(this.contentPath(gone), { force: true });
  }

  /** Makes `bytes` at `position` durable, and the size. */
  syncFile(key: Key, synced: { readonly bytes: Uint8Array; readonly position: number; readonly sizeBytes: number }): void {
    const fd = fs.openSync(this.contentPath(key), fs.constants.O_RDWR | fs.constants.O_CREAT);
    try {
      for (let at = 0; at < synced.bytes.length; ) at += fs.writeSync(fd, synced.bytes, at, synced.bytes.length - at, synced.position + at);
      fs.ftruncateSync(fd, synced.sizeBytes);
    } finally {
      fs.closeSync(fd);
    }
  }

  /** Whether the live content of a file is what its shadow holds. */
  isClean(key: Key, path: string): boolean {
    const durable = fs.statSync(this.contentPath(key), { throwIfNoEntry: false });
    if (durable === undefined || durable.size !== fs.statSync(path).size) return false;
    return fs.readFileSync(path).equals(fs.readFileSync(this.contentPath(key)));
  }

  durableContent(key: Key): Uint8Array {
    return fs.existsSync(this.contentPath(key)) ? fs.readFileSync(this.contentPath(key)) : new Uint8Array(0);
  }

  close(): void {
    fs.closeSync(this.#journal);
  }

  #seed(root: string): void {
    const { names, paths } = walk(root);
    for (const [key, path] of paths) if (!isDirectoryKey(key)) fs.copyFileSync(path, this.contentPath(key));
    for (const [key, entries] of names) {
      this.#tree.seed(key, entries);
      this.#note({ seed: key, entries: [...entries] });
    }
  }

  #note(line: JournalLine): void {
    fs.writeSync(this.#journal, `${JSON.stringify(line)}\n`);
  }

  /** False when the journal is of another directory, or there is none. */
  #replay(rootKey: Key): boolean {
    if (!fs.existsSync(this.#journalPath)) return false;
    const lines = fs.readFileSync(this.#journalPath, "utf8").split("\n").filter((line) => line !== "");
    const parsed = lines.map((line) => JSON.parse(line) as JournalLine);
    const [first] = parsed;
    if (first === undefined || !("seed" in first) || first.seed !== rootKey) return false;
    for (const line of parsed) {
      if ("seed" in line) this.#tree.seed(line.seed, new Map(line.entries));
      else if ("sync" in line) this.#tree.sync(line.sync, line.upTo);
      else this.#tree.change(line.change.map(([directory, name, key]) => ({ directory, name, key })));
    }
    return true;
  }
}
