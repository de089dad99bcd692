/**
 * Object storage of others, measured: how long requests take, and how many objects were deleted. The metrics' names and labels are the
 * peer's (libs/remote_storage/src/metrics.rs), who says s3 of whatever store is spoken to over HTTP.
 */
import { Cancelled } from "../kit/errors.ts";
import type { CounterChild, DurationChild, Family, Metrics } from "../observability/metrics.ts";
import type { Clock } from "../platform/clock.ts";
import type { ListOptions, ListPage, OperationOptions, RemoteStorage, TimeTravelOptions, UploadSource } from "./remote-storage.ts";

const SECONDS = [0.0001, 0.01, 0.1, 0.5, 1, 5, 10, 50, 100];

type RequestType = "get_object" | "put_object" | "delete_object" | "list_objects" | "copy_object" | "time_travel_recover";

export class MeasuredStorage implements RemoteStorage {
  readonly #storage: RemoteStorage;
  readonly #clock: Clock;
  readonly #seconds: Family<DurationChild>;
  readonly #deleted: CounterChild;

  constructor(storage: RemoteStorage, { metrics, clock }: { readonly metrics: Metrics; readonly clock: Clock }) {
    this.#storage = storage;
    this.#clock = clock;
    this.#seconds = metrics.duration({ name: "remote_storage_s3_request_seconds", help: "Time of a request to object storage, its own retries and waits for a connection included; of a download, until it begins to come", labels: ["request_type", "result"], buckets: SECONDS });
    this.#deleted = metrics.counter({ name: "remote_storage_s3_deleted_objects_total", help: "Objects deleted" }).with();
  }

  get maxKeysPerDelete(): number {
    return this.#storage.maxKeysPerDelete;
  }
  upload(key: string, source: UploadSource, options?: OperationOptions): Promise<void> {
    return this.#measured("put_object", () => this.#storage.upload(key, source, options));
  }
  download(...args: Parameters<RemoteStorage["download"]>): ReturnType<RemoteStorage["download"]> {
    return this.#measured("get_object", () => this.#storage.download(...args));
  }
  list(options: ListOptions): Promise<ListPage> {
    return this.#measured("list_objects", () => this.#storage.list(options));
  }
  async delete(keys: readonly string[], options?: OperationOptions): Promise<void> {
    await this.#measured("delete_object", () => this.#storage.delete(keys, options));
    this.#deleted.inc(keys.length);
  }
  copy(from: string, to: string, options?: OperationOptions): Promise<void> {
    return this.#measured("copy_object", () => this.#storage.copy(from, to, options));
  }
  timeTravelRecover(options: TimeTravelOptions): Promise<void> {
    return this.#measured("time_travel_recover", () => this.#storage.timeTravelRecover(options));
  }

  async #measured<T>(type: RequestType, request: () => Promise<T>): Promise<T> {
    const startMs = this.#clock.monotonicMs();
    let result = "err";
    try {
      const answer = await request();
      result = "ok";
      return answer;
    } catch (error) {
      if (error instanceof Cancelled) result = "cancelled";
      throw error;
    } finally {
      this.#seconds.with(type, result).recordMs(this.#clock.monotonicMs() - startMs);
    }
  }
}
