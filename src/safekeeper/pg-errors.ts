/** How an error ends a COPY stream: the connection goes with it, for the peer may still be sending. */
import { Cancelled, describeError, isStrataError, StrataError } from "../kit/errors.ts";
import { sqlStateOf } from "../wire/sqlstate.ts";

/** The same error in the form that makes the session say it and close. */
export function endOfStream(error: unknown): unknown {
  if (error instanceof Cancelled || isStrataError(error, "connection-lost") || isStrataError(error, "protocol-violation")) return error;
  // Bugs stay what they are: they are logged as such.
  if (!(error instanceof StrataError)) return error;
  return new StrataError(error.kind, "protocol-violation", describeError(error), { details: { ...error.details, sqlState: sqlStateOf(error), code: error.code } });
}
