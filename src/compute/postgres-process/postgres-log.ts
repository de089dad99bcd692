/** The server's log as a file, for people: emptied at every start, and begun anew when it gets too long. */
import { utf8 } from "../../kit/bytes.ts";
import type { FileHandle, FileSystem } from "../../platform/files.ts";

const MAX_BYTES = 64 * 1024 * 1024;
/** Lines that wait for the disk; what comes while so many wait is left out of the file. */
const MAX_WAITING_BYTES = 1024 * 1024;

export class PostgresLog {
  readonly #file: FileHandle;
  #waiting = "";
  #writing = false;
  #position = 0;

  private constructor(file: FileHandle) {
    this.#file = file;
  }

  static async create(files: FileSystem, path: string): Promise<PostgresLog> {
    return new PostgresLog(await files.open(path, "truncate"));
  }

  add(line: string): void {
    if (this.#waiting.length > MAX_WAITING_BYTES) return;
    this.#waiting += `${line}\n`;
    // A log that cannot be written must not stop the server.
    if (!this.#writing) void this.#write().catch(() => {});
  }

  async #write(): Promise<void> {
    this.#writing = true;
    try {
      while (this.#waiting !== "") {
        const bytes = utf8(this.#waiting);
        this.#waiting = "";
        if (this.#position + bytes.length > MAX_BYTES) {
          await this.#file.truncate(0);
          this.#position = 0;
        }
        await this.#file.write(bytes, this.#position);
        this.#position += bytes.length;
      }
    } finally {
      this.#writing = false;
    }
  }

  async close(): Promise<void> {
    for (let tries = 0; this.#writing && tries < 100; tries++) await Promise.resolve();
    await this.#file.close();
  }
}
