/** Schemas of the path and query parameters that many routes share: text in, checked values out. */
import { z } from "@hono/zod-openapi";
import { isStrataError } from "../kit/errors.ts";
import { parseTenantId, parseTenantShardId, parseTimelineId } from "../kit/ids.ts";
import { parseLsn } from "../kit/lsn.ts";

/** A string schema that parses with one of our parsers; its error text becomes the issue. */
export function parsedString<T>(parse: (text: string) => T, description: string) {
  return z
    .string()
    .transform((text, context): T => {
      try {
        return parse(text);
      } catch (error) {
        if (!isStrataError(error)) throw error;
        context.issues.push({ code: "custom", message: error.message, input: text });
        return z.NEVER;
      }
    })
    .openapi({ type: "string", description });
}

export const tenantIdText = parsedString(parseTenantId, "tenant id: 32 hex digits");
export const tenantShardIdText = parsedString(parseTenantShardId, "tenant id, with -NNCC (shard number and count in hex) when sharded");
export const timelineIdText = parsedString(parseTimelineId, "timeline id: 32 hex digits");
export const lsnText = parsedString(parseLsn, "log sequence number, such as 0/16B3748");
export const integerText = z
  .string()
  .regex(/^\d{1,15}$/)
  .transform(Number)
  .openapi({ type: "integer" });
export const booleanText = z
  .enum(["true", "false"])
  .transform((text) => text === "true")
  .openapi({ type: "boolean" });
