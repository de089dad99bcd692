/**
 * The `options` start-up parameter as `name=value` pairs. Computes write `-c timeline_id=… tenant_id=…`: words
 * separated by spaces, with or without a `-c` before each; a backslash keeps the next character as it is.
 *
 * Source: PostgreSQL src/backend/utils/init/postinit.c (pg_split_opts).
 */
export function startupOptions(parameters: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  const pairs = new Map<string, string>();
  for (const word of splitWords(parameters.get("options") ?? "")) {
    const text = word.startsWith("-c") ? word.slice(2) : word.startsWith("--") ? word.slice(2) : word;
    const equals = text.indexOf("=");
    if (equals > 0) pairs.set(text.slice(0, equals), text.slice(equals + 1));
  }
  return pairs;
}

function splitWords(text: string): string[] {
  const words: string[] = [];
  let word = "";
  let started = false;
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (/\s/.test(character)) {
      if (started) words.push(word);
      word = "";
      started = false;
      continue;
    }
    started = true;
    if (character === "\\" && at + 1 < text.length) at++;
    word += text[at];
  }
  if (started) words.push(word);
  return words;
}
