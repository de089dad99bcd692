/** The names and values that a process was given. */
export type Environment = Readonly<Record<string, string | undefined>>;
