/** The roles by name, each loaded only when it is wanted. */
import type { RoleProgram } from "./run-role.ts";

export const ROLE_PROGRAMS: Readonly<Record<string, () => Promise<RoleProgram>>> = {
  broker: async () => (await import("./run-broker.ts")).brokerProgram,
  controller: async () => (await import("./run-controller.ts")).controllerProgram,
  safekeeper: async () => (await import("./run-safekeeper.ts")).safekeeperProgram,
  pageserver: async () => (await import("./run-pageserver.ts")).pageserverProgram,
  compute: async () => (await import("./run-compute.ts")).computeProgram,
};
