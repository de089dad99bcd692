/** What every entry point is given, and what it is. */
export interface CommandLine {
  readonly argv: readonly string[];
  /** argv[0]: a symlink's name chooses its role. */
  readonly invokedAs: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Entry points of worker threads; without them everything runs on one. */
  readonly workers?: WorkerUrls;
}

export interface WorkerUrls {
  readonly layerJobs: string;
}

export type Run = (line: CommandLine) => Promise<number>;
