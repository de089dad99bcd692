/** One `sh` that keeps its variables from command to command, as a person's terminal does. */
export class Shell {
  readonly #child: Bun.Subprocess<"pipe", "pipe", "pipe">;
  readonly #reader: { read(): Promise<{ done: boolean; value?: Uint8Array | undefined }> };
  readonly #decoder = new TextDecoder();
  #buffer = "";
  #count = 0;

  /** @param options.path put before PATH */
  constructor(options: { cwd: string; path: string }) {
    this.#child = Bun.spawn(["sh"], {
      cwd: options.cwd,
      env: { ...process.env, PATH: `${options.path}:${process.env.PATH}` },
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
    });
    this.#reader = this.#child.stdout.getReader();
  }

  /** Standard output and error of one command line, in order of arrival, without the last line end. @throws Error with what came so far when it takes longer */
  async run(command: string, options: { timeoutMs: number } = { timeoutMs: 600_000 }): Promise<{ output: string; exitCode: number }> {
    const late = setTimeout(() => this.#child.kill("SIGKILL"), options.timeoutMs);
    try {
      return await this.#run(command);
    } finally {
      clearTimeout(late);
    }
  }

  async #run(command: string): Promise<{ output: string; exitCode: number }> {
    const marker = `__end_${this.#count++}_`;
    this.#child.stdin.write(`{ ${command}\n} </dev/null 2>&1; echo "${marker}$?"\n`);
    await this.#child.stdin.flush();
    const pattern = new RegExp(`^${marker}(\\d+)$`, "m");
    for (;;) {
      const end = pattern.exec(this.#buffer);
      if (end !== null) {
        const output = this.#buffer.slice(0, end.index).replace(/\n$/, "");
        this.#buffer = this.#buffer.slice(end.index + end[0].length).replace(/^\n/, "");
        return { output, exitCode: Number(end[1]) };
      }
      const { value, done } = await this.#reader.read();
      if (done) throw new Error(`the shell ended, or was ended for taking too long, during: ${command}\n${this.#buffer}`);
      this.#buffer += this.#decoder.decode(value, { stream: true });
    }
  }

  async close(): Promise<void> {
    this.#child.stdin.end();
    this.#child.kill();
    await this.#child.exited;
  }
}
