/** Runs child.ts and reads what it says. */
const CHILD = new URL("./child.ts", import.meta.url).pathname;

export interface MemoryRun {
  /** The process's largest resident set. */
  readonly peakBytes: number;
  readonly walBytes: number;
  readonly records: number;
  readonly pagesRead: number;
  readonly layers: number;
  /** L0 layers left after the last merge. */
  readonly l0: number;
  readonly images: number;
  readonly layerMemoryBytes: number;
  /** In-memory layers' share still counted when all is shut down. */
  readonly stillHeldBytes: number;
}

export interface MemoryOptions {
  readonly limitBytes: number;
  readonly walBytes: number;
  /** Of so many pages one has short rows; 1: all. */
  readonly shortEvery: number;
}

/** @throws Error with the child's words when it does not end well */
export async function runWithinMemory({ limitBytes, walBytes, shortEvery }: MemoryOptions): Promise<MemoryRun> {
  const child = Bun.spawn([process.execPath, CHILD, String(limitBytes), String(walBytes), String(shortEvery)], { stdout: "pipe", stderr: "pipe" });
  const [output, errors, code] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  if (code !== 0) throw new Error(`the child ended with ${code}: ${errors}${output}`);
  return JSON.parse(output) as MemoryRun;
}
