/**
 * What the peer's control file has no field for. It lives in the proposer's UUID, which that format keeps and nobody looks at,
 * so that the layout, and every release that reads it, stay as they are.
 *
 * | byte of the UUID | field |
 * | --- | --- |
 * | 0–7 | the letters STRATA, 0, 1; a UUID that begins otherwise is a UUID |
 * | 8 | bit 0: recovering |
 * | 9 | number of safekeepers of the timeline, 0 = not known |
 * | 10–15 | 0 |
 */
import type { TimelinePersistentState } from "./state.ts";

type OwnFields = Pick<TimelinePersistentState, "recovering" | "safekeeperCount">;

const MARK = "5354524154410001";
const UUID_DIGITS = 32;
const FLAG_RECOVERING = 1;
const MAX_COUNT = 255;

/** 32 hex digits; the proposer's own UUID when there is nothing of ours to keep. */
export function uuidWithOwnFields({ proposerUuid, recovering, safekeeperCount }: OwnFields & Pick<TimelinePersistentState, "proposerUuid">): string {
  if (!recovering && safekeeperCount === 0) return proposerUuid;
  const fields = Uint8Array.of(recovering ? FLAG_RECOVERING : 0, Math.min(safekeeperCount, MAX_COUNT)).toHex();
  return (MARK + fields).padEnd(UUID_DIGITS, "0");
}

/** Flags of later releases are let be: a safekeeper that does not know them has nothing to forget by them. */
export function ownFieldsOf(uuid: string): OwnFields & Pick<TimelinePersistentState, "proposerUuid"> {
  if (!uuid.startsWith(MARK) || uuid.length !== UUID_DIGITS) return { proposerUuid: uuid, recovering: false, safekeeperCount: 0 };
  const [flags, safekeeperCount] = Uint8Array.fromHex(uuid.slice(MARK.length, MARK.length + 4));
  return { proposerUuid: "0".repeat(UUID_DIGITS), recovering: (flags & FLAG_RECOVERING) !== 0, safekeeperCount };
}
