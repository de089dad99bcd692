/** Waiting until a role answers, with its own words when it does not. */
import { StrataError } from "../../kit/errors.ts";
import type { Clock } from "../../platform/clock.ts";
import type { Child } from "./child.ts";

const POLL_MS = 25;
/** A role that ended this often while we waited will not start: its log says why. */
const EXITS_MAX = 3;

/** @throws StrataError unavailable `role-not-ready` with the end of the child's log */
export async function waitReady(child: Child, options: { url: string; clock: Clock; timeoutMs: number; accept?: (reply: Response) => Promise<boolean> | boolean }): Promise<void> {
  const { clock, url } = options;
  const accept = options.accept ?? ((reply: Response) => reply.ok);
  const deadlineMs = clock.monotonicMs() + options.timeoutMs;
  for (;;) {
    const reply = await fetch(url).catch(() => null);
    if (reply !== null && (await accept(reply))) return;
    if (clock.monotonicMs() > deadlineMs || child.unexpectedExits >= EXITS_MAX) {
      throw new StrataError("unavailable", "role-not-ready", `${child.spec.name} did not become ready; its log ends:\n${child.tail()}`);
    }
    await clock.sleep(POLL_MS);
  }
}
