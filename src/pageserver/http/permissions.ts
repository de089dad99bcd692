/** Who may do what over HTTP. */

/** Operators and the controller. */
export const ADMIN = { kind: "scope", scopes: ["pageserverapi"] } as const;
/** They, and the tenant itself. */
export const TENANT_PERMISSION = { kind: "scope", scopes: ["tenant", "pageserverapi"], tenantParam: "tenant_shard_id" } as const;
/** The same, and tokens bound to one timeline. */
export const TIMELINE_PERMISSION = { ...TENANT_PERMISSION, timelineParam: "timeline_id" } as const;
