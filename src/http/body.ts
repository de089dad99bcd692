/** JSON bodies, read under bounds of size and time. */
import { StrataError } from "../kit/errors.ts";
import type { Clock } from "../platform/clock.ts";

export interface BodyLimits {
  readonly maxBytes: number;
  /** For all of it. */
  readonly timeoutMs: number;
  readonly clock: Clock;
}

/**
 * @param options.absent what an empty body stands for; undefined refuses it
 * @throws StrataError fix-input `body-too-large`, `bad-request`; retry `request-timeout`
 */
export async function readJsonBody(request: Request, options: BodyLimits & { readonly absent?: unknown }): Promise<unknown> {
  const bytes = await readBounded(request, options);
  if (bytes.length === 0) {
    if (options.absent !== undefined) return options.absent;
    throw new StrataError("fix-input", "bad-request", "missing request body");
  }
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new StrataError("fix-input", "bad-request", "Failed to parse json request", { cause });
  }
}

/** Stops reading at the bound, whatever the length header claimed. */
async function readBounded(request: Request, { maxBytes, timeoutMs, clock }: BodyLimits): Promise<Uint8Array> {
  const tooLarge = (): StrataError => new StrataError("fix-input", "body-too-large", `the request body is larger than ${maxBytes} bytes`);
  if (Number(request.headers.get("content-length") ?? 0) > maxBytes) throw tooLarge();
  if (request.body === null) return new Uint8Array(0);
  const reader = request.body.getReader();
  const late = Promise.withResolvers<never>();
  const timer = clock.after(timeoutMs, () => late.reject(new StrataError("retry", "request-timeout", `the request's body did not come within ${timeoutMs} ms`)));
  try {
    const parts: Uint8Array[] = [];
    for (let length = 0; ; ) {
      const { done, value } = await Promise.race([reader.read(), late.promise]);
      if (done) return Buffer.concat(parts, length);
      length += value.length;
      if (length > maxBytes) throw tooLarge();
      parts.push(value);
    }
  } catch (error) {
    void reader.cancel().catch(() => undefined);
    throw error;
  } finally {
    timer.cancel();
  }
}
