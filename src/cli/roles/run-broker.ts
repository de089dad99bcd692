/** `strata --role broker`, or the symlink storage_broker. */
import { startBroker } from "../../broker/broker.ts";
import type { Run } from "../command-line.ts";
import { BROKER_OPTIONS, brokerConfig } from "./broker-options.ts";
import { runRole } from "./run-role.ts";

export const runBroker: Run = (line) =>
  runRole({ name: "broker", description: "Gossip between storage nodes over gRPC.", options: BROKER_OPTIONS, start: (values, context) => startBroker(brokerConfig(values), context) }, line);
