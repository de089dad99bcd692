/**
 * Deleted timelines, remembered across restarts, so that a compute that still runs does not bring its timeline back: the
 * file `deleted-timelines` of the data directory, one line a change:
 *
 *     + <tenant>/<timeline>     deleted
 *     - <tenant>/<timeline>     made again by an operator
 *
 * A line is durable before the timeline's files go. A last line without its end was never acknowledged, and is cut off. The
 * file is written anew, through another name, when most of its lines say nothing any more.
 */
import { utf8, utf8ToString } from "../../kit/bytes.ts";
import { isStrataError } from "../../kit/errors.ts";
import type { FileSystem } from "../../platform/files.ts";

const FILE_NAME = "deleted-timelines";
/** Beyond it the oldest are forgotten. */
const MAX_TOMBSTONES = 100_000;
const MAX_IDLE_LINES = 10_000;
const LINE = /^([+-]) ([0-9a-f]{32}\/[0-9a-f]{32})$/;

export interface TombstonesOptions {
  readonly files: FileSystem;
  readonly directory: string;
  readonly sync: boolean;
}

interface Change {
  readonly key: string;
  readonly deleted: boolean;
}

export class Tombstones {
  readonly #options: TombstonesOptions;
  /** In order of deletion. */
  readonly #keys = new Set<string>();
  #lines = 0;
  #sizeBytes = 0;
  /** A name that an earlier process gave the file may be in the page cache only. */
  #nameIsDurable = false;
  /** Changes are written one after another. */
  #writing: Promise<void> = Promise.resolve();

  constructor(options: TombstonesOptions) {
    this.#options = options;
  }

  async load(): Promise<void> {
    const { files } = this.#options;
    const bytes = await files.readFile(this.#path).catch((error: unknown) => {
      if (isStrataError(error, "file-not-found")) return new Uint8Array(0);
      throw error;
    });
    const text = utf8ToString(bytes);
    const whole = text.lastIndexOf("\n") + 1;
    for (const line of text.slice(0, whole).split("\n")) this.#replay(line);
    this.#sizeBytes = whole;
  }

  get #path(): string {
    return `${this.#options.directory}/${FILE_NAME}`;
  }

  #replay(line: string): void {
    const match = LINE.exec(line);
    if (match === null) return;
    this.#lines++;
    if (match[1] === "+") this.#remember(match[2]);
    else this.#keys.delete(match[2]);
  }

  #remember(key: string): void {
    this.#keys.add(key);
    if (this.#keys.size <= MAX_TOMBSTONES) return;
    const [oldest] = this.#keys;
    this.#keys.delete(oldest);
  }

  has(key: string): boolean {
    return this.#keys.has(key);
  }

  /** Durable when it returns, else not known here either. */
  async add(key: string): Promise<void> {
    await this.#write({ key, deleted: true });
  }

  /** Durable when it returns, else still known here. */
  async remove(key: string): Promise<void> {
    await this.#write({ key, deleted: false });
  }

  #write(change: Change): Promise<void> {
    const written = this.#writing.catch(() => undefined).then(() => this.#apply(change));
    this.#writing = written;
    written.catch(() => undefined);
    return written;
  }

  /** On the disk first: memory says what a restart would know. */
  async #apply({ key, deleted }: Change): Promise<void> {
    if (this.#keys.has(key) === deleted) return;
    if (this.#lines - this.#keys.size >= MAX_IDLE_LINES) await this.#rewrite();
    await this.#append(`${deleted ? "+" : "-"} ${key}\n`);
    if (deleted) this.#remember(key);
    else this.#keys.delete(key);
  }

  async #append(line: string): Promise<void> {
    const { files, directory, sync } = this.#options;
    const file = await files.open(this.#path, "create");
    const bytes = utf8(line);
    try {
      await file.write(bytes, this.#sizeBytes);
      // What a crash, or a failure, left behind the last whole line.
      await file.truncate(this.#sizeBytes + bytes.length);
      if (sync) await file.sync();
    } finally {
      await file.close();
    }
    if (sync && !this.#nameIsDurable) await files.syncDirectory(directory);
    this.#nameIsDurable = true;
    this.#sizeBytes += bytes.length;
    this.#lines++;
  }

  async #rewrite(): Promise<void> {
    const { files, directory, sync } = this.#options;
    const bytes = utf8([...this.#keys].map((key) => `+ ${key}\n`).join(""));
    const file = await files.open(`${this.#path}.new`, "truncate");
    try {
      await file.write(bytes, 0);
      if (sync) await file.sync();
    } finally {
      await file.close();
    }
    this.#nameIsDurable = false;
    await files.rename(`${this.#path}.new`, this.#path);
    // Whichever of the two a crash leaves, it says the same; what comes next is written behind this one's end.
    this.#sizeBytes = bytes.length;
    this.#lines = this.#keys.size;
    if (sync) await files.syncDirectory(directory);
    this.#nameIsDurable = true;
  }
}
