/** Commands and expected output of the ```console blocks of a Markdown text. */
export interface ConsoleStep {
  readonly command: string;
  /** Lines printed after it; `…` stands for anything. */
  readonly expected: readonly string[];
}

export function consoleSteps(markdown: string): ConsoleStep[] {
  const steps: { command: string; expected: string[] }[] = [];
  for (const [, block] of markdown.matchAll(/^```console\n([\s\S]*?)^```/gm)) {
    for (const line of (block ?? "").split("\n")) {
      if (line.startsWith("$ ")) steps.push({ command: line.slice(2), expected: [] });
      else if (line !== "") steps.at(-1)?.expected.push(line);
    }
  }
  return steps;
}

/** Whether the output's first lines are the expected ones. More lines may follow the last expected one. */
export function outputMatches(output: string, expected: readonly string[]): boolean {
  const lines = output.split("\n");
  return expected.every((pattern, index) => {
    const regex = new RegExp(`^${pattern.split("…").map((part) => RegExp.escape(part)).join(".*")}$`);
    return regex.test(lines[index] ?? "");
  });
}
