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

export class Tombstones {
  readonly #options: TombstonesOptions;
  /** In order of deletion. */
  readonly #keys = new Set<string>();
  #lines = 0;
  #sizeBytes = 0;
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

  /** Durable when it returns. */
  async add(key: string): Promise<void> {
    if (this.#keys.has(key)) return this.#writing;
    this.#remember(key);
    await this.#write(`+ ${key}\n`);
  }

  /** Durable when it returns. */
  async remove(key: string): Promise<void> {
    if (this.#keys.delete(key)) await this.#write(`- ${key}\n`);
  }

  #write(line: string): Promise<void> {
    const written = this.#writing.catch(() => undefined).then(() => (this.#lines - this.#keys.size >= MAX_IDLE_LINES ? this.#rewrite() : this.#append(line)));
    this.#writing = written;
    written.catch(() => undefined);
    return written;
  }

  async #append(line: string): Promise<void> {
    const { files, directory, sync } = this.#options;
    const isNew = this.#sizeBytes === 0;
    const file = await files.open(this.#path, "create");
    try {
      const bytes = utf8(line);
      await file.write(bytes, this.#sizeBytes);
      // What a crash left behind the last whole line.
      await file.truncate(this.#sizeBytes + bytes.length);
      if (sync) await file.sync();
      this.#sizeBytes += bytes.length;
      this.#lines++;
    } finally {
      await file.close();
    }
    if (isNew && sync) await files.syncDirectory(directory);
  }

  /** With the change that is in memory already. */
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
    await files.rename(`${this.#path}.new`, this.#path);
    if (sync) await files.syncDirectory(directory);
    this.#sizeBytes = bytes.length;
    this.#lines = this.#keys.size;
  }
}
