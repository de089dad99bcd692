/**
 * The gRPC service `storage_broker.BrokerService`, described for @grpc/grpc-js with identity serializers: messages
 * stay bytes on both sides, so the server passes payloads through untouched and only the client's edges decode.
 */
import type { ServiceDefinition } from "@grpc/grpc-js";

const bytes = (value: Uint8Array): Buffer => Buffer.from(value.buffer, value.byteOffset, value.byteLength);
const same = (value: Buffer): Buffer => value;

function method(name: string, requestStream: boolean, responseStream: boolean) {
  return {
    path: `/storage_broker.BrokerService/${name}`,
    requestStream,
    responseStream,
    requestSerialize: bytes,
    requestDeserialize: same,
    responseSerialize: bytes,
    responseDeserialize: same,
  };
}

export const BROKER_METHODS = {
  subscribeSafekeeperInfo: method("SubscribeSafekeeperInfo", false, true),
  publishSafekeeperInfo: method("PublishSafekeeperInfo", true, false),
  subscribeByFilter: method("SubscribeByFilter", false, true),
  publishOne: method("PublishOne", false, false),
} as const satisfies ServiceDefinition;
