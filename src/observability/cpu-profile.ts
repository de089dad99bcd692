/**
 * Stack samples as the pprof tool reads them (gzipped github.com/google/pprof proto/profile.proto, through the pprof
 * package's own message types), and as a flame graph.
 */
import { encodeSync } from "pprof/out/src/profile-encoder.js";
import { perftools } from "pprof/proto/profile.js";

export interface ProfileFrame {
  readonly name: string;
  readonly file: string;
  readonly line: number;
}

export interface ProfileSamples {
  /** Of each sample, the innermost frame first. */
  readonly stacks: readonly (readonly ProfileFrame[])[];
  readonly intervalMs: number;
  readonly durationMs: number;
  readonly startedMs: number;
}

/** Numbers distinct values from `first` on, in the order they come. */
class Numbering<T> {
  readonly values: T[] = [];
  readonly #numbers = new Map<string, number>();
  readonly #first: number;

  constructor(first: number) {
    this.#first = first;
  }

  of(key: string, value: T): number {
    const known = this.#numbers.get(key);
    if (known !== undefined) return known;
    const number = this.#first + this.values.length;
    this.#numbers.set(key, number);
    this.values.push(value);
    return number;
  }
}

/** Ids of functions and locations begin at 1; strings are numbers into the table, whose first entry is empty. */
export function encodePprof(samples: ProfileSamples): Uint8Array {
  const strings = new Numbering<string>(0);
  const text = (value: string): number => strings.of(value, value);
  text("");
  const functions = new Numbering<ProfileFrame>(1);
  const locations = new Numbering<{ readonly functionId: number; readonly line: number }>(1);
  const periodNanos = Math.round(samples.intervalMs * 1e6);
  const cpu = { type: text("cpu"), unit: text("nanoseconds") };
  const sample = samples.stacks.map((stack) => ({
    locationId: stack.map((frame) => {
      const functionId = functions.of(`${frame.name}\0${frame.file}`, frame);
      return locations.of(`${functionId}:${frame.line}`, { functionId, line: frame.line });
    }),
    value: [1, periodNanos],
  }));
  const profile = {
    sampleType: [{ type: text("samples"), unit: text("count") }, cpu],
    sample,
    location: locations.values.map(({ functionId, line }, index) => ({ id: index + 1, line: [{ functionId, line }] })),
    function: functions.values.map(({ name, file }, index) => ({ id: index + 1, name: text(name), systemName: text(name), filename: text(file) })),
    stringTable: strings.values,
    timeNanos: Math.round(samples.startedMs) * 1e6,
    durationNanos: Math.round(samples.durationMs * 1e6),
    periodType: cpu,
    period: periodNanos,
  };
  return encodeSync(perftools.profiles.Profile.create(profile));
}

interface FlameNode {
  readonly name: string;
  count: number;
  readonly children: Map<string, FlameNode>;
}

const WIDTH = 1200;
const ROW_HEIGHT = 17;
const MIN_BOX_WIDTH = 0.4;
const CHARACTER_WIDTH = 6.6;
const MAX_DEPTH = 200;

/** A flame graph as one SVG document: callers below, callees above, as wide as they were on the stack. */
export function renderFlameGraph(samples: ProfileSamples): string {
  const root: FlameNode = { name: `all, ${samples.stacks.length} samples`, count: 0, children: new Map() };
  for (const stack of samples.stacks) addStack(root, stack);
  const boxes: string[] = [];
  const height = (depthOf(root) + 1) * ROW_HEIGHT;
  drawNode(root, { x: 0, depth: 0, height, total: Math.max(1, root.count), boxes });
  const head = `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" font-family="monospace" font-size="11">`;
  return `${head}\n${boxes.join("\n")}\n</svg>\n`;
}

function addStack(root: FlameNode, stack: readonly ProfileFrame[]): void {
  root.count++;
  let node = root;
  for (const frame of stack.slice(-MAX_DEPTH).toReversed()) {
    const name = frame.file === "" ? frame.name : `${frame.name} ${frame.file.split("/").slice(-3).join("/")}:${frame.line}`;
    let child = node.children.get(name);
    if (child === undefined) {
      child = { name, count: 0, children: new Map() };
      node.children.set(name, child);
    }
    child.count++;
    node = child;
  }
}

function depthOf(node: FlameNode): number {
  let deepest = 0;
  for (const child of node.children.values()) deepest = Math.max(deepest, depthOf(child));
  return deepest + 1;
}

interface Drawing {
  readonly x: number;
  readonly depth: number;
  readonly height: number;
  readonly total: number;
  readonly boxes: string[];
}

function drawNode(node: FlameNode, at: Drawing): void {
  const width = (node.count / at.total) * WIDTH;
  if (width < MIN_BOX_WIDTH) return;
  const y = at.height - (at.depth + 1) * ROW_HEIGHT;
  const share = ((100 * node.count) / at.total).toFixed(1);
  const label = node.name.slice(0, Math.floor(width / CHARACTER_WIDTH));
  const hue = 20 + (hash(node.name) % 40);
  at.boxes.push(
    `<g><title>${escapeXml(node.name)}: ${node.count} (${share} %)</title><rect x="${at.x.toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="${ROW_HEIGHT - 1}" fill="hsl(${hue},80%,65%)"/>` +
      `<text x="${(at.x + 2).toFixed(1)}" y="${y + 12}">${label.length > 2 ? escapeXml(label) : ""}</text></g>`,
  );
  let x = at.x;
  for (const child of [...node.children.values()].sort((a, b) => (a.name < b.name ? -1 : 1))) {
    drawNode(child, { ...at, x, depth: at.depth + 1 });
    x += (child.count / at.total) * WIDTH;
  }
}

function hash(text: string): number {
  let value = 0;
  for (let at = 0; at < text.length; at++) value = (Math.imul(value, 31) + text.charCodeAt(at)) >>> 0;
  return value;
}

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
