/**
 * The gRPC face of the registry: four methods, payloads passed through as bytes. A subscriber's stream is written
 * only while HTTP/2 flow control lets it; meanwhile its messages wait, and the oldest go, in its registry queue.
 */
import { type sendUnaryData, type ServerReadableStream, type ServerUnaryCall, type ServiceError, status, type UntypedServiceImplementation } from "@grpc/grpc-js";
import { describeError, isStrataError } from "../../kit/errors.ts";
import type { Logger } from "../../observability/log.ts";
import type { Clock } from "../../platform/clock.ts";
import { type BrokerFilter, MESSAGE_TYPE_TIMELINE_INFO, unwrapTyped } from "../api/messages.ts";
import { decodeFilterRequest, decodeSubscribeInfoRequest } from "../api/requests.ts";
import { type Registry, type Subscriber, timelineInfoFilter } from "../registry/registry.ts";
import { openDelivery, type SubscribeCall } from "./delivery.ts";
import type { BrokerMetrics } from "./metrics.ts";

export interface BrokerServiceDeps {
  readonly clock: Clock;
  readonly registry: Registry;
  readonly metrics: BrokerMetrics;
  readonly log: Logger;
  /** Checks the call's bearer token. @throws StrataError unauthenticated or forbidden */
  readonly authorize: (authorization: string | undefined) => void;
}

const EMPTY = Buffer.alloc(0);

function grpcCode(error: unknown): status {
  if (!isStrataError(error)) return status.INTERNAL;
  if (error.kind === "unauthenticated") return status.UNAUTHENTICATED;
  if (error.kind === "forbidden") return status.PERMISSION_DENIED;
  return error.kind === "fix-input" ? status.INVALID_ARGUMENT : status.INTERNAL;
}

function grpcError(error: unknown): Pick<ServiceError, "code" | "details"> & Error {
  const details = describeError(error);
  return Object.assign(new Error(details), { code: grpcCode(error), details });
}

type Authorized = { metadata: { get(key: string): (string | Buffer)[] }; getPeer(): string };

class BrokerService {
  readonly #deps: BrokerServiceDeps;
  /** Subscribers with messages that wait for the next turn of the loop. */
  #due: (() => void)[] = [];

  constructor(deps: BrokerServiceDeps) {
    this.#deps = deps;
  }

  #authorize(call: Authorized): void {
    this.#deps.authorize(call.metadata.get("authorization")[0]?.toString());
  }

  /** The one place where a refused call is logged. */
  #refusal(method: string, call: Authorized, error: unknown): ReturnType<typeof grpcError> {
    this.#deps.log.info("call refused", { method, remote: call.getPeer(), error });
    return grpcError(error);
  }

  publishOne(call: ServerUnaryCall<Buffer, Buffer>, answer: sendUnaryData<Buffer>): void {
    try {
      this.#authorize(call);
      const { type, inner } = unwrapTyped(call.request);
      this.#deps.metrics.oneOff.inc();
      this.#deps.metrics.processed.inc();
      this.#deps.registry.publish(type, inner);
      answer(null, EMPTY);
    } catch (error) {
      answer(this.#refusal("publishOne", call, error));
    }
  }

  publishInfos(call: ServerReadableStream<Buffer, Buffer>, answer: sendUnaryData<Buffer>): void {
    const { metrics, registry, log } = this.#deps;
    try {
      this.#authorize(call);
    } catch (error) {
      answer(this.#refusal("publishSafekeeperInfo", call, error));
      return;
    }
    metrics.publishers.inc();
    log.info("publication started", { remote: call.getPeer() });
    let open = true;
    const finish = (error: unknown): void => {
      if (!open) return;
      open = false;
      metrics.publishers.dec();
      log.info("publication ended", { remote: call.getPeer(), ...(error === null ? {} : { error }) });
      if (error === null) answer(null, EMPTY);
      else answer(grpcError(error));
    };
    call.on("data", (bytes: Buffer) => {
      if (!open) return;
      try {
        metrics.processed.inc();
        registry.publish(MESSAGE_TYPE_TIMELINE_INFO, bytes);
      } catch (error) {
        finish(error);
      }
    });
    call.on("error", finish);
    call.on("end", () => finish(null));
    call.on("cancelled", () => finish(null));
  }

  subscribe(call: SubscribeCall, method: "subscribeSafekeeperInfo" | "subscribeByFilter"): void {
    const typed = method === "subscribeByFilter";
    let filter: BrokerFilter;
    try {
      this.#authorize(call);
      filter = typed ? decodeFilterRequest(call.request) : timelineInfoFilter(decodeSubscribeInfoRequest(call.request));
    } catch (error) {
      // Not destroy: a destroyed stream sends no status, and the caller would wait for ever.
      call.emit("error", this.#refusal(method, call, error));
      return;
    }
    this.#stream(call, filter, typed);
  }

  #stream(call: SubscribeCall, filter: BrokerFilter, typed: boolean): void {
    const { registry, log } = this.#deps;
    let scheduled = false;
    let writable = true;
    let open = true;
    const next = (): Uint8Array | null => subscriber.takeFrame();
    const pump = (): void => {
      if (!open || !writable) return;
      const { count, room } = delivery.send(next);
      writable = room;
      this.#deps.metrics.broadcasted.inc(count);
    };
    const wake = (urgent: boolean): void => {
      if (!writable) return;
      if (urgent) pump();
      else if (!scheduled) {
        scheduled = true;
        this.#inNextTurn(() => {
          scheduled = false;
          pump();
        });
      }
    };
    const delivery = openDelivery(call, () => {
      writable = true;
      pump();
    });
    const subscriber: Subscriber = registry.subscribe(filter, typed, wake);
    this.#updateGauges();
    log.info("subscription started", { subscription: subscriber.id, timeline: filter.timeline?.timelineId ?? "all", remote: call.getPeer() });
    const end = (): void => {
      if (!open) return;
      open = false;
      registry.unsubscribe(subscriber);
      this.#updateGauges();
      log.info("subscription ended", { subscription: subscriber.id, dropped: subscriber.droppedCount, remote: call.getPeer() });
    };
    call.on("cancelled", end);
    call.on("close", end);
    call.on("error", end);
  }

  /** Not at once: each message is an event of its own, and what arrives together is to be sent together. One timer for all. */
  #inNextTurn(pump: () => void): void {
    this.#due.push(pump);
    if (this.#due.length > 1) return;
    this.#deps.clock.after(0, () => {
      const due = this.#due;
      this.#due = [];
      for (const send of due) send();
    });
  }

  #updateGauges(): void {
    this.#deps.metrics.allKeysSubscribers.set(this.#deps.registry.allKeysSubscribers);
    this.#deps.metrics.timelineSubscribers.set(this.#deps.registry.timelineSubscribers);
  }
}

/** Handlers for `BROKER_METHODS`. */
export function brokerServiceHandlers(deps: BrokerServiceDeps): UntypedServiceImplementation {
  const service = new BrokerService(deps);
  return {
    publishOne: service.publishOne.bind(service),
    publishSafekeeperInfo: service.publishInfos.bind(service),
    subscribeSafekeeperInfo: (call: SubscribeCall) => service.subscribe(call, "subscribeSafekeeperInfo"),
    subscribeByFilter: (call: SubscribeCall) => service.subscribe(call, "subscribeByFilter"),
  };
}
