/** JSON bodies, read under a bound. */
import { StrataError } from "../kit/errors.ts";

/**
 * @param options.absent what an empty body stands for; undefined refuses it
 * @throws StrataError fix-input `body-too-large`, `bad-request`
 */
export async function readJsonBody(request: Request, options: { readonly maxBytes: number; readonly absent?: unknown }): Promise<unknown> {
  const bytes = await readBounded(request, options.maxBytes);
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
async function readBounded(request: Request, maxBytes: number): Promise<Uint8Array> {
  const tooLarge = (): StrataError => new StrataError("fix-input", "body-too-large", `the request body is larger than ${maxBytes} bytes`);
  if (Number(request.headers.get("content-length") ?? 0) > maxBytes) throw tooLarge();
  if (request.body === null) return new Uint8Array(0);
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of request.body) {
    length += part.length;
    if (length > maxBytes) throw tooLarge();
    parts.push(part);
  }
  return Buffer.concat(parts, length);
}
