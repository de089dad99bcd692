/** `strata --role controller`, or the symlink storage_controller. */
import initial from "../../../migrations/0001_initial.sql" with { type: "text" };
import nodeHttpsPort from "../../../migrations/0002_node_https_port.sql" with { type: "text" };
import { startController } from "../../controller/controller.ts";
import { CONTROLLER_OPTIONS, controllerConfig } from "./controller-options.ts";
import { roleProgram } from "./run-role.ts";

/** Every file of /migrations (a test compares). */
export const MIGRATIONS = [{ name: "0001_initial.sql", sql: initial }, { name: "0002_node_https_port.sql", sql: nodeHttpsPort }];

export const controllerProgram = roleProgram({
  name: "controller",
  description: "Places tenants on pageservers and gives out generations.",
  options: CONTROLLER_OPTIONS,
  start: (values, context) => startController(controllerConfig(values), { ...context, migrations: MIGRATIONS }),
});
