/** `strata --role broker`, or the symlink storage_broker. */
import { startBroker } from "../../broker/broker.ts";
import { BROKER_OPTIONS, brokerConfig } from "./broker-options.ts";
import { roleProgram } from "./run-role.ts";

export const brokerProgram = roleProgram({ name: "broker", description: "Gossip between storage nodes over gRPC.", options: BROKER_OPTIONS, start: (values, context) => startBroker(brokerConfig(values), context)});
