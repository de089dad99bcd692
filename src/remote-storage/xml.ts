/** The little XML that object stores answer with: flat elements without attributes of interest. */

/** Contents of all `<tag>…</tag>`, outermost only as long as a tag does not nest in itself. */
export function xmlBlocks(xml: string, tag: string): string[] {
  return xmlElements(xml, [tag]).map((element) => element.text);
}

/** The same for several tags, in the order of the document. */
export function xmlElements(xml: string, tags: readonly string[]): { readonly tag: string; readonly text: string }[] {
  const elements: { tag: string; text: string }[] = [];
  const open = new RegExp(`<(${tags.join("|")})(?:\\s[^>]*)?>`, "g");
  for (let match = open.exec(xml); match !== null; match = open.exec(xml)) {
    const end = xml.indexOf(`</${match[1]}>`, open.lastIndex);
    if (end < 0) return elements;
    elements.push({ tag: match[1], text: xml.slice(open.lastIndex, end) });
    open.lastIndex = end;
  }
  return elements;
}

/** Text of the first `<tag>`, entities resolved; null without one. */
export function xmlText(xml: string, tag: string): string | null {
  const [block] = xmlBlocks(xml, tag);
  return block === undefined ? null : unescapeXml(block);
}

const ENTITIES: Readonly<Record<string, string>> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };

function unescapeXml(text: string): string {
  return text.replace(/&(#x[0-9a-fA-F]{1,6}|#[0-9]{1,7}|[a-z]+);/g, (whole, entity: string) => {
    if (!entity.startsWith("#")) return ENTITIES[entity] ?? whole;
    const code = entity[1] === "x" ? Number.parseInt(entity.slice(2), 16) : Number(entity.slice(1));
    return code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });
}

export function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;").replaceAll("\r", "&#13;");
}
