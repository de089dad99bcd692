/** The route of a tenant's synthetic size: how much its history needs at least, for accounts. */
import { z } from "zod";
import type { HttpApp } from "../../http/app.ts";
import { booleanText, integerText } from "../../http/params.ts";
import { jsonReply } from "../../http/route.ts";
import { StrataError } from "../../kit/errors.ts";
import { syntheticSizeSchema } from "../api/size.ts";
import type { Tenants } from "../tenant/tenants.ts";
import { TENANT_PERMISSION } from "./permissions.ts";
import { shardParams } from "./tenant-routes.ts";

export function addSizeRoutes(app: HttpApp, { tenants }: { readonly tenants: Tenants }): void {
  app.route(
    {
      method: "get", path: "/v1/tenant/:tenant_shard_id/synthetic_size", permission: TENANT_PERMISSION, summary: "The least storage that the tenant's history needs", params: shardParams,
      query: z.object({ inputs_only: booleanText.optional(), retention_period: integerText.optional() }),
      responses: { 200: { description: "size, and what it was calculated from", schema: syntheticSizeSchema } },
    },
    async ({ params, query, signal }) => {
      const id = params.tenant_shard_id;
      if (id.number !== 0) throw new StrataError("fix-input", "not-shard-zero", "size calculations are only available on shard zero");
      const tenant = tenants.attached(id);
      await tenant.load();
      const options = { signal, ...(query.retention_period === undefined ? {} : { maxRetentionBytes: query.retention_period }) };
      if (query.inputs_only === true) return jsonReply(200, { id: id.tenantId, size: null, segment_sizes: null, inputs: await tenant.size.gather(options) });
      const { sizeBytes, segmentSizes, inputs } = await tenant.size.calculate(options);
      return jsonReply(200, { id: id.tenantId, size: sizeBytes, segment_sizes: segmentSizes, inputs });
    },
  );
}
