/** The text exposition format of Prometheus, version 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/ */
import type { Histogram } from "./metric-values.ts";

export const EXPOSITION_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

export type MetricType = "counter" | "gauge" | "histogram";

export function headOf(name: string, help: string, type: MetricType): string {
  return `# HELP ${name} ${help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")}\n# TYPE ${name} ${type}\n`;
}

/** `a="1",b="2"`, or nothing. */
export function labelsText(names: readonly string[], values: readonly string[]): string {
  let text = "";
  for (let i = 0; i < names.length; i++) text += `${i === 0 ? "" : ","}${names[i]}="${escaped(values[i])}"`;
  return text;
}

function escaped(value: string): string {
  return /["\\\n]/.test(value) ? value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n") : value;
}

/** @param labels as of `labelsText` */
export function sampleLine(name: string, labels: string, value: number): string {
  return labels === "" ? `${name} ${numberText(value)}\n` : `${name}{${labels}} ${numberText(value)}\n`;
}

export function histogramLines(name: string, labels: string, { bounds, counts, sum }: Histogram): string {
  const rest = labels === "" ? "" : `,${labels}`;
  let text = "";
  let total = 0;
  for (let i = 0; i < counts.length; i++) {
    total += counts[i];
    text += `${name}_bucket{le="${i < bounds.length ? numberText(bounds[i]) : "+Inf"}"${rest}} ${total}\n`;
  }
  return text + sampleLine(`${name}_sum`, labels, sum) + sampleLine(`${name}_count`, labels, total);
}

function numberText(value: number): string {
  if (Number.isFinite(value)) return String(value);
  if (Number.isNaN(value)) return "NaN";
  return value > 0 ? "+Inf" : "-Inf";
}
