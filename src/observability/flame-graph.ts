/** Weighted stacks as a flame graph, one SVG document: callers below, callees above, as wide as their weight. */
import type { ProfileFrame } from "./pprof.ts";

interface FlameNode {
  readonly name: string;
  weight: number;
  readonly children: Map<string, FlameNode>;
}

const WIDTH = 1200;
const ROW_HEIGHT = 17;
const MIN_BOX_WIDTH = 0.4;
const CHARACTER_WIDTH = 6.6;
const MAX_DEPTH = 200;

export interface FlameStack {
  /** The innermost frame first. */
  readonly frames: readonly ProfileFrame[];
  readonly weight: number;
}

/** @param format how a weight reads in a tooltip */
export function renderFlameGraph(title: string, stacks: readonly FlameStack[], format: (weight: number) => string = String): string {
  const root: FlameNode = { name: title, weight: 0, children: new Map() };
  for (const stack of stacks) addStack(root, stack);
  const boxes: string[] = [];
  const height = (depthOf(root) + 1) * ROW_HEIGHT;
  drawNode(root, { x: 0, depth: 0, height, total: Math.max(1, root.weight), boxes, format });
  const head = `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" font-family="monospace" font-size="11">`;
  return `${head}\n${boxes.join("\n")}\n</svg>\n`;
}

function addStack(root: FlameNode, { frames, weight }: FlameStack): void {
  root.weight += weight;
  let node = root;
  for (const frame of frames.slice(-MAX_DEPTH).toReversed()) {
    const name = frame.file === "" ? frame.name : `${frame.name} ${frame.file.split("/").slice(-3).join("/")}:${frame.line}`;
    let child = node.children.get(name);
    if (child === undefined) {
      child = { name, weight: 0, children: new Map() };
      node.children.set(name, child);
    }
    child.weight += weight;
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
  readonly format: (weight: number) => string;
}

function drawNode(node: FlameNode, at: Drawing): void {
  const width = (node.weight / at.total) * WIDTH;
  if (width < MIN_BOX_WIDTH) return;
  const y = at.height - (at.depth + 1) * ROW_HEIGHT;
  const share = ((100 * node.weight) / at.total).toFixed(1);
  const label = node.name.slice(0, Math.floor(width / CHARACTER_WIDTH));
  const hue = 20 + (hash(node.name) % 40);
  at.boxes.push(
    `<g><title>${escapeXml(node.name)}: ${at.format(node.weight)} (${share} %)</title><rect x="${at.x.toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="${ROW_HEIGHT - 1}" fill="hsl(${hue},80%,65%)"/>` +
      `<text x="${(at.x + 2).toFixed(1)}" y="${y + 12}">${label.length > 2 ? escapeXml(label) : ""}</text></g>`,
  );
  let x = at.x;
  for (const child of [...node.children.values()].sort((a, b) => (a.name < b.name ? -1 : 1))) {
    drawNode(child, { ...at, x, depth: at.depth + 1 });
    x += (child.weight / at.total) * WIDTH;
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
