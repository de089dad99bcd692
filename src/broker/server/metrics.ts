/** The broker's metrics, under the peer's names; the lag of the slowest subscriber is ours. */
import type { CounterChild, GaugeChild, Metrics } from "../../observability/metrics.ts";

export interface BrokerMetrics {
  readonly publishers: GaugeChild;
  readonly timelineSubscribers: GaugeChild;
  readonly allKeysSubscribers: GaugeChild;
  readonly processed: CounterChild;
  readonly broadcasted: CounterChild;
  readonly dropped: CounterChild;
  readonly oneOff: CounterChild;
}

export function brokerMetrics(metrics: Metrics): BrokerMetrics {
  const counter = (name: string, help: string): CounterChild => metrics.counter({ name, help }).with();
  const gauge = (name: string, help: string): GaugeChild => metrics.gauge({ name, help }).with();
  return {
    publishers: gauge("storage_broker_active_publishers", "Publication streams open"),
    timelineSubscribers: gauge("storage_broker_per_timeline_active_subscribers", "Subscriptions to one timeline"),
    allKeysSubscribers: gauge("storage_broker_all_keys_active_subscribers", "Subscriptions to all timelines"),
    processed: counter("storage_broker_processed_messages_total", "Messages received, before they are routed"),
    broadcasted: counter("storage_broker_broadcasted_messages_total", "Messages sent to subscribers"),
    dropped: counter("storage_broker_broadcast_dropped_messages_total", "Messages dropped because a subscriber's queue was full"),
    oneOff: counter("storage_broker_published_oneoff_messages_total", "Messages received through PublishOne"),
  };
}
