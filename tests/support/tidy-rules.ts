/**
 * The house rules as functions of one source file: what a reader would have to check by eye otherwise. A rule that makes a place worse is
 * lifted there by a comment right above it, with the reason: `<Rule> on purpose: why`, such as "Positional parameters on purpose: …".
 */
import { parseSync } from "oxc-parser";

export interface Violation {
  readonly file: string;
  readonly line: number;
  readonly rule: string;
  readonly what: string;
}

export interface SourceFile {
  /** From the repository's root: `src/http/app.ts`. */
  readonly path: string;
  readonly text: string;
}

interface AstNode {
  readonly type: string;
  readonly start: number;
  readonly end: number;
  readonly [key: string]: unknown;
}

const MAX_FILE_LINES = 600;
const MAX_FUNCTION_LINES = 70;
const MAX_POSITIONAL_PARAMETERS = 3;
/** Where a call happens per record, an options object would be an allocation per record. */
const HOT_FOLDERS = /^src\/postgres\/(page|redo|wal)\//;
const MAX_HOT_PARAMETERS = 6;
/** How far above a node a comment may end to be about it (modifiers, `export`, the method's name lie between). */
const COMMENT_REACH_LINES = 2;

const ROLES = ["pageserver", "safekeeper", "controller", "broker", "compute", "proxy"];

/** Folders of src/ by floor, lowest first; a role's api is floor 4, the rest of it floor 5. */
const FLOORS: Readonly<Record<string, number>> = {
  kit: 1,
  postgres: 2, platform: 2, observability: 2,
  "remote-storage": 3, wire: 3, http: 3, keyspace: 3, interpret: 3.5,
  cli: 6, workers: 6,
};
const API_FLOOR = 4;
const ROLE_FLOOR = 5;
const TOP_FLOOR = 6;
const ENTRY_FLOOR = 7;

const SYSTEM_MODULES = /^(node:)?(fs|net|tls|dgram|http|https|http2|child_process|worker_threads|cluster|dns|os|timers|readline)(\/.*)?$|^bun(:.*)?$/;
const BANNED_GLOBALS = new Set(["setTimeout", "setInterval", "setImmediate"]);
const BANNED_MEMBERS = new Set([
  "Date.now", "Math.random", "performance.now", "crypto.randomUUID", "crypto.getRandomValues", "process.exit", "process.kill", "process.hrtime", "process.nextTick",
]);
/** Of Bun's functions those that only compute. */
const PURE_BUN = new Set(["deepEquals", "hash", "zstdCompressSync", "zstdDecompressSync", "gzipSync", "gunzipSync", "stringWidth", "escapeHTML"]);
const BANNED_RANDOM_IMPORTS = new Set(["randomBytes", "randomUUID", "randomInt", "randomFillSync", "webcrypto"]);

/** @returns all breaches of the rules in one file, in no particular order */
export function checkFile(file: SourceFile): Violation[] {
  return new FileCheck(file).run();
}

interface Area {
  readonly floor: number;
  /** First folder below src/. */
  readonly folder: string;
  readonly role: string | null;
}

/** Where in the building a file under src/ is; null for others. */
export function areaOf(path: string): Area | null {
  const parts = path.split("/");
  if (parts[0] !== "src") return null;
  if (parts.length === 2) return { floor: ENTRY_FLOOR, folder: "", role: null };
  const folder = parts[1];
  if (ROLES.includes(folder)) return { floor: parts[2] === "api" ? API_FLOOR : ROLE_FLOOR, folder, role: folder };
  return { floor: FLOORS[folder] ?? Number.NaN, folder, role: null };
}

class FileCheck {
  readonly #file: SourceFile;
  readonly #violations: Violation[] = [];
  readonly #lineStarts: number[] = [0];
  readonly #excuses: { readonly line: number; readonly text: string }[] = [];
  readonly #isSource: boolean;
  /** Platform implementations and tests use the system itself. */
  readonly #mayTouchSystem: boolean;
  /** The command line reads files and starts processes for people, and hands the platform to the roles; time it takes from there too. */
  readonly #isTop: boolean;

  constructor(file: SourceFile) {
    this.#file = file;
    this.#isSource = file.path.startsWith("src/");
    this.#mayTouchSystem = !this.#isSource || file.path.startsWith("src/platform/");
    this.#isTop = (areaOf(file.path)?.floor ?? 0) >= TOP_FLOOR;
    for (let at = file.text.indexOf("\n"); at >= 0; at = file.text.indexOf("\n", at + 1)) this.#lineStarts.push(at + 1);
  }

  run(): Violation[] {
    this.#checkName();
    const lines = this.#lineStarts.length - 1;
    if (lines > MAX_FILE_LINES) this.#report("file-length", 0, `${lines} lines, at most ${MAX_FILE_LINES}`);
    const parsed = parseSync(this.#file.path, this.#file.text);
    for (const error of parsed.errors) this.#report("syntax", error.labels[0]?.start ?? 0, error.message);
    for (const comment of parsed.comments) this.#excuses.push({ line: this.#line(comment.end), text: comment.value });
    const program = parsed.program as unknown as AstNode;
    this.#visit(program, null);
    return this.#violations;
  }

  #report(rule: string, offset: number, what: string): void {
    if (!this.#excused(rule, offset)) this.#violations.push({ file: this.#file.path, line: this.#line(offset), rule, what });
  }

  #excused(rule: string, offset: number): boolean {
    const line = this.#line(offset);
    const words = rule.replaceAll("-", "[ -]");
    const pattern = new RegExp(`${words} on purpose`, "i");
    return this.#excuses.some((excuse) => excuse.line <= line && excuse.line >= line - COMMENT_REACH_LINES && pattern.test(excuse.text));
  }

  #line(offset: number): number {
    let low = 0;
    let high = this.#lineStarts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#lineStarts[middle] <= offset) low = middle;
      else high = middle - 1;
    }
    return low + 1;
  }

  #checkName(): void {
    const parts = this.#file.path.split("/");
    const name = parts.pop() ?? "";
    if (/^index\.tsx?$/.test(name)) this.#report("no-barrels", 0, "index files hide where things are");
    if (!/^[a-z0-9]+(-[a-z0-9]+)*(\.pg)?(\.test|\.d)?\.tsx?$/.test(name)) this.#report("kebab-case", 0, `file name ${name}`);
    for (const folder of parts) if (!/^[a-z0-9]+(-[a-z0-9]+)*$/.test(folder)) this.#report("kebab-case", 0, `folder name ${folder}`);
    const area = areaOf(this.#file.path);
    if (area !== null && Number.isNaN(area.floor)) this.#report("floors", 0, `src/${area.folder} has no floor`);
  }

  #visit(node: AstNode, parent: AstNode | null): void {
    this.#checkNode(node, parent);
    for (const value of Object.values(node)) {
      if (Array.isArray(value)) {
        for (const item of value) if (isNode(item)) this.#visit(item, node);
      } else if (isNode(value)) {
        this.#visit(value, node);
      }
    }
  }

  #checkNode(node: AstNode, parent: AstNode | null): void {
    switch (node.type) {
      case "FunctionDeclaration":
      case "FunctionExpression":
      case "ArrowFunctionExpression":
        return this.#checkFunction(node, parent);
      case "ImportDeclaration":
      case "ExportNamedDeclaration":
      case "ExportAllDeclaration":
      case "ImportExpression":
        return this.#checkImport(node);
      case "ExportDefaultDeclaration":
        // A declaration file describes what it must (the text of an imported .sql file, say).
        return this.#file.path.endsWith(".d.ts") ? undefined : this.#report("no-default-export", node.start, "exports have names");
      case "TSAnyKeyword":
        return this.#report("no-any", node.start, "say what it is, or unknown");
      case "TSNonNullExpression":
        return this.#report("no-non-null", node.start, "`!` is a claim nobody checks");
      case "MemberExpression":
      case "CallExpression":
      case "NewExpression":
        return this.#checkSystemUse(node);
      default:
        return this.#checkModifiers(node);
    }
  }

  #checkModifiers(node: AstNode): void {
    if (node.accessibility === undefined || node.accessibility === null) return;
    const isConstructor = node.type === "MethodDefinition" && node.kind === "constructor";
    if (!isConstructor) this.#report("hash-private", node.start, `use #name instead of ${String(node.accessibility)}`);
  }

  #checkFunction(node: AstNode, parent: AstNode | null): void {
    const lines = this.#line(node.end) - this.#line(node.start) + 1;
    if (lines > MAX_FUNCTION_LINES && !isSuite(parent)) this.#report("function-length", node.start, `${lines} lines, at most ${MAX_FUNCTION_LINES}`);
    const params = node.params as readonly unknown[];
    const most = HOT_FOLDERS.test(this.#file.path) ? MAX_HOT_PARAMETERS : MAX_POSITIONAL_PARAMETERS;
    if (params.length > most) {
      this.#report("positional-parameters", node.start, `${params.length} of them, at most ${most}; take an options object`);
    }
  }

  #checkImport(node: AstNode): void {
    const source = node.source as AstNode | null;
    if (source === null || typeof source.value !== "string") return;
    const target = source.value;
    if (target.startsWith(".")) this.#checkRelativeImport(node, target);
    else if (!this.#mayTouchSystem) this.#checkPackageImport(node, target);
  }

  #checkPackageImport(node: AstNode, target: string): void {
    if (SYSTEM_MODULES.test(target) && !this.#isTop && node.importKind !== "type") this.#report("system-access", node.start, `import of ${target}: ask platform/ for it`);
    for (const specifier of (node.specifiers as readonly AstNode[] | undefined) ?? []) {
      const imported = specifier.imported as AstNode | undefined;
      if (/^(node:)?crypto$/.test(target) && BANNED_RANDOM_IMPORTS.has(String(imported?.name))) this.#report("system-access", node.start, `${String(imported?.name)}: randomness comes from platform/`);
    }
  }

  #checkRelativeImport(node: AstNode, target: string): void {
    if (!/\.(ts|tsx|json|sql|css|html)$/.test(target)) this.#report("import-extension", node.start, `"${target}" lacks its extension`);
    const own = areaOf(this.#file.path);
    const other = areaOf(resolvePath(this.#file.path, target));
    if (own === null || other === null || own.folder === other.folder) {
      if (own !== null && other !== null && own.folder !== "" && other.floor > own.floor) this.#report("floors", node.start, `an api imports "${target}" from inside its role`);
      return;
    }
    if (other.floor < own.floor) return;
    const intoRole = own.role !== null && other.role !== null;
    this.#report("floors", node.start, intoRole ? `"${target}": a role knows only another role's api/` : `"${target}" is not on a lower floor`);
  }

  #checkSystemUse(node: AstNode): void {
    if (this.#mayTouchSystem) return;
    if (node.type === "MemberExpression") {
      const object = node.object as AstNode;
      const name = `${String(object.name)}.${String((node.property as AstNode).name)}`;
      if (object.type === "Identifier" && object.name === "Bun" && !this.#isTop && !PURE_BUN.has(name.slice(4))) this.#report("system-access", node.start, `${name}: ask platform/ for it`);
      if (object.type === "Identifier" && BANNED_MEMBERS.has(name) && !(this.#isTop && name.startsWith("process."))) this.#report("system-access", node.start, `${name}: comes from platform/`);
      return;
    }
    const callee = node.callee as AstNode;
    if (callee.type !== "Identifier") return;
    if (node.type === "CallExpression" && BANNED_GLOBALS.has(String(callee.name))) this.#report("system-access", node.start, `${String(callee.name)}: use the clock`);
    const readsTime = node.type === "NewExpression" && callee.name === "Date" && (node.arguments as readonly unknown[]).length === 0;
    if (readsTime) this.#report("system-access", node.start, "new Date() reads the time: use the clock");
  }
}

function isNode(value: unknown): value is AstNode {
  return typeof value === "object" && value !== null && "type" in value && typeof value.type === "string" && "start" in value;
}

/** The callback of `describe`: a list of tests, not a function to follow. */
function isSuite(parent: AstNode | null): boolean {
  return parent?.type === "CallExpression" && (parent.callee as AstNode).name === "describe";
}

function resolvePath(from: string, target: string): string {
  const parts = from.split("/").slice(0, -1);
  for (const part of target.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== ".") parts.push(part);
  }
  return parts.join("/");
}
