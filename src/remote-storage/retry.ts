/** Retrying of storage operations, with pauses from a tenth of a second to ten seconds. */
import { retry, type RetryOptions } from "../kit/retry.ts";
import type { LogFields, Logger } from "../observability/log.ts";

/** Single failures of object storage are everyday. */
const WARN_FROM_ATTEMPT = 4;

/** Infinity for `maxAttempts` goes on until the signal aborts. */
export type StorageRetryOptions = Omit<RetryOptions, "baseMs" | "maxMs">;

/** @throws as `retry` */
export function withRetries<T>(operation: (attempt: number) => Promise<T>, options: StorageRetryOptions): Promise<T> {
  return retry(operation, { baseMs: 100, maxMs: 10_000, ...options });
}

/** An `onRetry` that is loud only when a failure lasts. */
export function logRetries(log: Logger, message: string, fields: LogFields = {}): NonNullable<RetryOptions["onRetry"]> {
  return ({ error, attempt }) => (attempt + 1 >= WARN_FROM_ATTEMPT ? log.warn : log.info).call(log, message, { ...fields, attempt: attempt + 1, error });
}
