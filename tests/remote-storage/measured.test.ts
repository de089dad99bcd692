/** Requests to object stores, measured. */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Cancelled } from "../../src/kit/errors.ts";
import { Metrics } from "../../src/observability/metrics.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { LocalDirectoryStorage } from "../../src/remote-storage/local-directory.ts";
import { MeasuredStorage } from "../../src/remote-storage/measured.ts";

test("by kind of request and by how it ended; deleted objects are counted", async () => {
  const directory = mkdtempSync(join(tmpdir(), "strata-measured-"));
  try {
    const platform = realPlatform();
    const metrics = new Metrics();
    const storage = new MeasuredStorage(await LocalDirectoryStorage.open(directory, platform), { metrics, clock: platform.clock });
    await storage.upload("a/1", { bytes: new Uint8Array(10) });
    await storage.upload("a/2", { bytes: new Uint8Array(10) });
    for await (const _ of (await storage.download("a/1")).body) continue;
    await expect(storage.download("a/3")).rejects.toMatchObject({ code: "object-not-found" });
    const gone = new AbortController();
    gone.abort(new Cancelled("nobody wants it"));
    await expect(storage.list({ prefix: "", signal: gone.signal })).rejects.toBeInstanceOf(Cancelled);
    await storage.delete(["a/1", "a/2"]);
    const text = await metrics.render();
    const count = (labels: string): string | undefined => text.split("\n").find((line) => line.startsWith(`remote_storage_s3_request_seconds_count{${labels}}`))?.split(" ").at(-1);
    expect(count('request_type="put_object",result="ok"')).toBe("2");
    expect(count('request_type="get_object",result="ok"')).toBe("1");
    expect(count('request_type="get_object",result="err"')).toBe("1");
    expect(count('request_type="list_objects",result="cancelled"')).toBe("1");
    expect(text).toContain("remote_storage_s3_deleted_objects_total 2");
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
