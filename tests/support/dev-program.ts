/** `strata dev` run as a person would, against one directory. */
import { join } from "node:path";

const MAIN = join(import.meta.dir, "../../src/main.ts");

export class DevProgram {
  readonly directory: string;
  readonly #program: readonly string[];

  /** @param program the executable; the sources unless given */
  constructor(directory: string, program: readonly string[] = [process.execPath, MAIN]) {
    this.directory = directory;
    this.#program = program;
  }

  /** Standard output of `strata dev …`. @throws with everything it printed when it fails */
  async run(...words: string[]): Promise<string> {
    const child = Bun.spawn([...this.#program, "dev", ...words, "--dir", this.directory], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
    const [out, err, code] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
    if (code !== 0) throw new Error(`strata dev ${words.join(" ")} ended with ${code}: ${out}${err}`);
    return out.trimEnd();
  }

  sql(endpoint: string, statement: string): Promise<string> {
    return this.run("sql", endpoint, "-c", statement);
  }

  /** Ends whatever still runs; for cleaning up. */
  async kill(): Promise<void> {
    await this.run("kill").catch(() => undefined);
  }
}
