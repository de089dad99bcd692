/** What a test may make happen: refused unless the node was started in testing mode. */
import { z } from "zod";
import type { HttpApp } from "../../http/app.ts";
import { jsonReply } from "../../http/route.ts";
import { StrataError } from "../../kit/errors.ts";
import type { SafekeeperHttpOptions } from "./options.ts";

export function testingRoutes(app: HttpApp, { failpoints }: SafekeeperHttpOptions): void {
  app.route(
    {
      method: "put", path: "/v1/failpoints", permission: { kind: "scope", scopes: ["safekeeperdata"] }, summary: "Make something happen at named places (testing mode only)",
      body: z.array(z.object({ name: z.string(), actions: z.string() })).max(1000), responses: { 200: { description: "done", schema: z.null() } },
    },
    ({ body }) => {
      if (failpoints == null) throw new StrataError("fix-input", "not-testing", "cannot manage failpoints: this safekeeper is not in testing mode");
      for (const { name, actions } of body) failpoints.configure(name, actions);
      return jsonReply(200, null);
    },
  );
}
