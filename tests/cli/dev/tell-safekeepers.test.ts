/** A new branch is told to the safekeepers: one that is away for a moment hears of it, one that stays away is named in the log. */
import { expect, test } from "bun:test";
import { tellSafekeepers } from "../../../src/cli/dev/tell-safekeepers.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";
import { testLogger } from "../../support/test-logger.ts";

const { clock } = realPlatform();

test("who does not answer is asked again, for a while; in the end it is said who could not be told of what", async () => {
  const log = testLogger();
  log.expectWarn("a safekeeper could not be told of a new timeline");
  const calls: Record<string, number> = {};
  const transport = async (url: string): Promise<Response> => {
    const { port } = new URL(url);
    calls[port] = (calls[port] ?? 0) + 1;
    if (port === "7003" || (port === "7002" && calls[port] < 3)) throw new Error("nobody listens");
    return Response.json(null);
  };
  const safekeepers = [7001, 7002, 7003].map((http) => ({ pg: 1, http }));
  const ports = { control: 1, broker: 1, controller: 1, pageserver: { pg: 1, http: 1 }, safekeepers };
  await tellSafekeepers({ cluster: { tenantId: "11".repeat(16), pgVersion: 17, ports }, timelineId: "22".repeat(16), clock, log, transport });
  expect([calls["7001"], calls["7002"]]).toEqual([1, 3]);
  expect(calls["7003"]).toBeGreaterThan(5);
  const warnings = log.entries.filter(({ level }) => level === "warn");
  expect(warnings.map(({ fields }) => [fields.timelineId, fields.safekeeper])).toEqual([["22".repeat(16), 3]]);
}, 20_000);
