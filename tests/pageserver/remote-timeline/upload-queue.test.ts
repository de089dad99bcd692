import { expect, test } from "bun:test";
import fc from "fast-check";
import { type UploadOperation, UploadQueue } from "../../../src/pageserver/remote-timeline/upload-queue.ts";

type Operation = UploadOperation<{ readonly names: ReadonlySet<string> }>;

/** Applies what the queue lets through to a bucket, checking it at every moment. */
class Bucket {
  readonly objects = new Set<string>();
  index: ReadonlySet<string> = new Set();

  apply(operation: Operation): void {
    if (operation.kind === "layer") this.objects.add(operation.key);
    else if (operation.kind === "index") this.index = operation.index.names;
    else if (operation.kind === "delete") for (const key of operation.keys) this.objects.delete(key);
    for (const name of this.index) if (!this.objects.has(name)) throw new Error(`the index names ${name}, which is not there`);
  }
}

test("whatever order things finish in, an uploaded index never names what is not there", () => {
  fc.assert(
    fc.property(fc.array(fc.record({ kind: fc.integer({ min: 0, max: 9 }), key: fc.nat(7) }), { maxLength: 60 }), fc.infiniteStream(fc.nat()), fc.integer({ min: 1, max: 5 }), (steps, draws, maxRunning) => {
      const queue = new UploadQueue<{ names: ReadonlySet<string> }>({ maxRunning });
      const bucket = new Bucket();
      const dirty = new Set<string>();
      const running: { id: number; operation: Operation }[] = [];
      const reached: number[] = [];
      const pushed: number[] = [];
      let finished = 0;
      const draw = () => draws.next().value as number;
      const pump = () => running.push(...queue.takeReady());
      const finishOne = () => {
        const [entry] = running.splice(draw() % running.length, 1);
        if (entry.operation.kind === "barrier") reached.push(entry.id);
        // Effects become visible at any time while running; the end is the latest.
        bucket.apply(entry.operation);
        queue.finish(entry.id);
        finished++;
      };
      for (const { kind, key } of steps) {
        const name = `layer${key}`;
        if (kind < 4 && !dirty.has(name)) {
          dirty.add(name);
          queue.push({ kind: "layer", key: name });
        } else if (kind < 6) queue.push({ kind: "index", index: { names: new Set(dirty) } });
        else if (kind < 8 && dirty.has(name)) {
          dirty.delete(name);
          queue.push({ kind: "index", index: { names: new Set(dirty) } });
          queue.push({ kind: "delete", keys: [name] });
        } else if (kind === 8) pushed.push(queue.push({ kind: "barrier" }));
        pump();
        expect(queue.runningCount).toBeLessThanOrEqual(maxRunning);
        if (running.length > 0 && draw() % 2 === 0) finishOne();
      }
      queue.push({ kind: "index", index: { names: new Set(dirty) } });
      for (pump(); running.length > 0; pump()) finishOne();
      expect(queue.length).toBe(0);
      expect(finished).toBeGreaterThan(0);
      expect(reached).toEqual(pushed);
      expect(bucket.objects).toEqual(dirty);
      expect(bucket.index).toEqual(dirty);
    }),
    { numRuns: 300 },
  );
});

test("of indexes in a row only the last is sent", () => {
  const queue = new UploadQueue<number>({ maxRunning: 4 });
  queue.push({ kind: "layer", key: "a" });
  for (const index of [1, 2, 3]) queue.push({ kind: "index", index });
  const [layer] = queue.takeReady();
  expect(queue.takeReady()).toEqual([]);
  queue.finish(layer.id);
  expect(queue.takeReady().map(({ operation }) => operation)).toEqual([{ kind: "index", index: 3 }]);
});
