/** Metrics of the page cache, under the peer's names: pages as reads made them, and the blocks of layer files they are made of. */
import type { Metrics } from "../observability/metrics.ts";
import type { BlockCache } from "./layers/block-cache.ts";
import type { PageCache } from "./layers/page-cache.ts";

/** The peer's words for what a key of the cache stands for. */
const PAGES = "materialized_page";
const BLOCKS = "immutable";
/** Who reads, and what: not told apart here. */
const ANY = "any";

export function watchCaches(metrics: Metrics, { pages, blocks }: { readonly pages: PageCache; readonly blocks: BlockCache }): void {
  metrics.countersFrom({ name: "pageserver_page_cache_read_accesses_total", help: "Number of read accesses to the page cache", labels: ["task_kind", "key_kind", "content_kind"] }, () => [
    { labels: [ANY, PAGES, ANY], value: pages.accesses },
    { labels: [ANY, BLOCKS, ANY], value: blocks.hits + blocks.misses },
  ]);
  metrics.countersFrom({ name: "pageserver_page_cache_read_hits_total", help: "Number of read accesses to the page cache that hit", labels: ["task_kind", "key_kind", "content_kind", "hit_kind"] }, () => [
    { labels: [ANY, PAGES, ANY, "exact"], value: pages.hits },
    { labels: [ANY, PAGES, ANY, "base"], value: pages.bases },
    { labels: [ANY, BLOCKS, ANY, "-"], value: blocks.hits },
  ]);
  metrics.gaugesFrom({ name: "pageserver_page_cache_size_current_bytes", help: "Current size of the page cache in bytes, by key kind", labels: ["key_kind"] }, () => [
    { labels: [PAGES], value: pages.sizeBytes },
    { labels: [BLOCKS], value: blocks.sizeBytes },
  ]);
  metrics.gaugeFrom({ name: "pageserver_page_cache_size_max_bytes", help: "Maximum size of the page cache in bytes" }, () => pages.maxBytes + blocks.maxBytes);
}
