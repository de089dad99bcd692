/** Reads the Prometheus text format, as a scraper does. */
export interface ScrapedFamily {
  readonly type: string;
  readonly samples: { readonly name: string; readonly labels: Readonly<Record<string, string>>; readonly value: number }[];
}

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;

export function parseExposition(text: string): Map<string, ScrapedFamily> {
  const families = new Map<string, ScrapedFamily>();
  let family: ScrapedFamily | null = null;
  for (const line of text.split("\n")) {
    const head = /^# TYPE (\S+) (\S+)$/.exec(line);
    if (head !== null) {
      family = { type: head[2], samples: [] };
      families.set(head[1], family);
    }
    if (line === "" || line.startsWith("#")) continue;
    const sample = LINE.exec(line);
    if (sample === null || family === null) throw new Error(`not a sample: ${line}`);
    const labels = Object.fromEntries([...(sample[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, name, value]) => [name, value]));
    family.samples.push({ name: sample[1], labels, value: Number(sample[3].replace("Inf", "Infinity")) });
  }
  return families;
}
