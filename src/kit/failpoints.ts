/**
 * Named places in the code where a test may make something happen: an error, a pause, the end of the process. Nothing happens anywhere
 * until it is configured, and a role that is not in testing mode has no `Failpoints` at all.
 *
 *   await failpoints?.hit("before-upload-index", signal);
 *
 * Actions, in the words of the `fail` crate that the peer uses: `[P%][N*]KIND[(ARGUMENT)]`, several joined by `->`. With P the action
 * is taken that often, with N so many times, after which the next one has its turn; the last one without N stays.
 *
 * | kind | what happens |
 * | --- | --- |
 * | off | nothing |
 * | return, return(text) | StrataError unavailable `failpoint` |
 * | sleep(ms), delay(ms) | waits, unless `signal` aborts |
 * | pause | waits until the place is configured anew, or `signal` aborts |
 * | print(text) | a line in the log |
 * | panic(text) | InvariantError |
 * | yield | other work goes first |
 * | exit | the process ends at once |
 *
 * The peer has names of their own, in `-pausable` or `-pause`, for places that may pause, and in `-sleep` for those that sleep as long as
 * `return(ms)` says; here every place may do either, and they are one with the others.
 */
import { Cancelled, InvariantError, StrataError } from "./errors.ts";

const KINDS = ["off", "return", "sleep", "delay", "pause", "print", "panic", "yield", "exit"] as const;
type Kind = (typeof KINDS)[number];

interface Action {
  readonly kind: Kind;
  readonly argument: string;
  /** Chance in [0, 1]. */
  readonly chance: number;
  /** Times left; infinite without a count. */
  left: number;
}

export interface FailpointTools {
  readonly clock: { sleep(durationMs: number, signal?: AbortSignal): Promise<void> };
  readonly random: { float(): number };
  /** Told what happens where. */
  readonly say: (message: string, fields: { readonly failpoint: string; readonly action: string }) => void;
  /** Ends the process without any cleaning up. */
  readonly exit: () => void;
}

interface Place {
  readonly actions: Action[];
  /** Resolved when the place is configured anew. */
  readonly changed: PromiseWithResolvers<void>;
}

const MAX_ACTIONS = 100;
const MAX_SLEEP_MS = 3_600_000;

export class Failpoints {
  readonly #tools: FailpointTools;
  readonly #places = new Map<string, Place>();

  constructor(tools: FailpointTools) {
    this.#tools = tools;
  }

  /** @throws StrataError fix-input `bad-failpoint` */
  configure(fullName: string, actions: string): void {
    const name = plainName(fullName);
    const returnSleeps = fullName.endsWith("-sleep");
    const parsed = actions.split("->").map((text) => parseAction(name, returnSleeps ? text.trim().replace(/return(?=\()/, "sleep") : text.trim()));
    if (parsed.length > MAX_ACTIONS) throw bad(name, `${parsed.length} actions`);
    this.#places.get(name)?.changed.resolve();
    if (parsed.every(({ kind }) => kind === "off")) this.#places.delete(name);
    else this.#places.set(name, { actions: parsed, changed: Promise.withResolvers<void>() });
  }

  /** @throws what was configured for the place; Cancelled when `signal` ends a wait */
  async hit(name: string, signal?: AbortSignal): Promise<void> {
    if (this.#places.size === 0) return;
    const place = this.#places.get(plainName(name));
    if (place === undefined) return;
    const action = this.#next(place);
    if (action === null || action.kind === "off") return;
    this.#tools.say("failpoint hit", { failpoint: name, action: action.kind });
    await this.#take(name, action, { place, signal });
  }

  #next({ actions }: Place): Action | null {
    const action = actions.find(({ left }) => left > 0);
    if (action === undefined || (action.chance < 1 && this.#tools.random.float() >= action.chance)) return null;
    action.left--;
    return action;
  }

  async #take(name: string, { kind, argument }: Action, context: { readonly place: Place; readonly signal: AbortSignal | undefined }): Promise<void> {
    const { clock, exit } = this.#tools;
    switch (kind) {
      case "return":
        throw new StrataError("unavailable", "failpoint", `failpoint ${name}${argument === "" ? "" : `: ${argument}`}`);
      case "panic":
        throw new InvariantError(`failpoint ${name} panic${argument === "" ? "" : `: ${argument}`}`);
      case "sleep":
      case "delay":
        return await clock.sleep(Number(argument), context.signal);
      case "yield":
        return await clock.sleep(0, context.signal);
      case "pause":
        return await untilChanged(context.place.changed.promise, context.signal);
      case "exit":
        return exit();
      case "print":
        this.#tools.say(argument, { failpoint: name, action: kind });
        return;
      case "off":
        return;
    }
  }
}

async function untilChanged(changed: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (signal === undefined) return await changed;
  if (signal.aborted) throw new Cancelled();
  const aborted = Promise.withResolvers<never>();
  const onAbort = () => aborted.reject(new Cancelled());
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    await Promise.race([changed, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function plainName(name: string): string {
  return name.replace(/-(?:pausable|pause|sleep)$/, "");
}

function parseAction(name: string, text: string): Action {
  const match = /^(?:(\d{1,3}(?:\.\d{1,6})?)%)?(?:(\d{1,9})\*)?([a-z]+)(?:\(([^()]*)\))?$/.exec(text);
  if (match === null) throw bad(name, `"${text}" is no action`);
  const [, percent, count, word, argument = ""] = match;
  const kind = KINDS.find((known) => known === word);
  if (kind === undefined) throw bad(name, `"${word}" is no kind of action`);
  const isWait = kind === "sleep" || kind === "delay";
  if (isWait && !(/^\d{1,9}$/.test(argument) && Number(argument) <= MAX_SLEEP_MS)) throw bad(name, `"${argument}" is no number of milliseconds`);
  return { kind, argument, chance: percent === undefined ? 1 : Number(percent) / 100, left: count === undefined ? Number.POSITIVE_INFINITY : Number(count) };
}

function bad(name: string, what: string): StrataError {
  return new StrataError("fix-input", "bad-failpoint", `failpoint ${name}: ${what}`);
}
