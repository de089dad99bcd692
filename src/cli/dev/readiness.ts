/** Waiting until a role answers, with its own words when it does not. */
import { describeError, StrataError } from "../../kit/errors.ts";
import type { Clock } from "../../platform/clock.ts";
import type { Child } from "./child.ts";

const POLL_MS = 25;
/** A role that ended this often while we waited will not start: its log says why. */
const EXITS_MAX = 3;

/** A role that takes a request and does not answer is asked again: the answer may have gone to nobody. */
const REPLY_TIMEOUT_MS = 5_000;

export interface ReadyOptions {
  readonly url: string;
  readonly clock: Clock;
  readonly timeoutMs: number;
  readonly accept?: (reply: Response) => Promise<boolean> | boolean;
}

/** @throws StrataError unavailable `role-not-ready` saying what was waited for, with the end of the child's log */
export async function waitReady(child: Child, options: ReadyOptions): Promise<void> {
  const { clock, url, timeoutMs } = options;
  const accept = options.accept ?? ((reply: Response) => reply.ok);
  const deadlineMs = clock.monotonicMs() + timeoutMs;
  let last = "nothing";
  for (;;) {
    try {
      const reply = await fetch(url, { signal: AbortSignal.timeout(REPLY_TIMEOUT_MS) });
      last = `HTTP ${reply.status}`;
      if (await accept(reply)) return;
    } catch (error) {
      last = describeError(error);
    }
    const ended = child.unexpectedExits >= EXITS_MAX;
    if (ended || clock.monotonicMs() > deadlineMs) {
      const why = ended ? `ended ${EXITS_MAX} times` : `not ready within ${timeoutMs / 1000} s (last answer of ${url}: ${last})`;
      throw new StrataError("unavailable", "role-not-ready", `${child.spec.name}: ${why}; its log ends:\n${child.tail()}`);
    }
    await clock.sleep(POLL_MS);
  }
}
