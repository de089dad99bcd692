/**
 * Pages changed step by step beside a list of items: what is on the page stays what is in the list, whatever the order of
 * the steps, and nothing leaves the space between line pointers and special area.
 */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { dataViewOf } from "../../../src/kit/bytes.ts";
import { StrataError } from "../../../src/kit/errors.ts";
import { repairFragmentation, truncateLinePointers } from "../../../src/postgres/page/compact.ts";
import { deleteItem, deleteItemKeepingNumbers, deleteItems, insertItemSpace, placeItemSpace, resizeItemSpace } from "../../../src/postgres/page/items.ts";
import {
  PAGE_SIZE, checkPageHeader, initPage, itemOffset, lineCount, lineLength, lineState, lineWord, maxAlign, pageLower, pageSpecial, pageUpper, setLine,
} from "../../../src/postgres/page/page-layout.ts";

/** null: an unused line pointer. */
type Item = Uint8Array | null;

const SPECIAL_SIZE = 16;
const seed = Math.floor(Math.random() * 2 ** 31);

class Checked {
  readonly page = new Uint8Array(PAGE_SIZE);
  readonly view = dataViewOf(this.page);
  items: Item[] = [];
  #next = 1;

  constructor() {
    initPage(this.page, this.view, SPECIAL_SIZE);
    this.page.fill(0xee, PAGE_SIZE - SPECIAL_SIZE);
  }

  fresh(size: number): Uint8Array {
    this.#next = (this.#next * 31 + 7) % 251;
    return new Uint8Array(size).fill(this.#next);
  }

  fits(size: number): boolean {
    return pageLower(this.view) + 4 + maxAlign(size) <= pageUpper(this.view);
  }

  /** Slots in use, from 1. */
  used(): number[] {
    return this.items.flatMap((item, index) => (item === null ? [] : [index + 1]));
  }

  check(): void {
    checkPageHeader(this.view);
    expect(lineCount(this.view)).toBe(this.items.length);
    let total = 0;
    this.items.forEach((item, index) => {
      const word = lineWord(this.view, index + 1);
      expect(lineState(word)).toBe(item === null ? 0 : 1);
      if (item === null) return;
      const at = itemOffset(this.view, index + 1, item.length);
      expect(lineLength(word)).toBe(item.length);
      expect(at).toBeGreaterThanOrEqual(pageUpper(this.view));
      expect(Buffer.compare(this.page.subarray(at, at + item.length), item)).toBe(0);
      total += maxAlign(item.length);
    });
    expect(pageUpper(this.view)).toBe(pageSpecial(this.view) - total);
    expect(this.page.subarray(PAGE_SIZE - SPECIAL_SIZE).every((byte) => byte === 0xee)).toBe(true);
  }
}

type Step = (on: Checked) => void;

const insert = fc.tuple(fc.nat(), fc.integer({ min: 8, max: 900 })).map(([place, size]): Step => (on) => {
  const number = (place % (on.items.length + 1)) + 1;
  const item = on.fresh(size);
  if (!on.fits(size)) {
    expect(() => insertItemSpace(on.page, on.view, number, size)).toThrow(StrataError);
    return;
  }
  on.page.set(item, insertItemSpace(on.page, on.view, number, size));
  on.items.splice(number - 1, 0, item);
});

const place = fc.integer({ min: 8, max: 900 }).map((size): Step => (on) => {
  const free = on.items.indexOf(null);
  const number = free < 0 ? on.items.length + 1 : free + 1;
  if (!on.fits(size)) return;
  const item = on.fresh(size);
  on.page.set(item, placeItemSpace(on.view, number, size));
  on.items[number - 1] = item;
});

const remove = fc.nat().map((which): Step => (on) => {
  const used = on.used();
  if (used.length === 0 || used.length !== on.items.length) return;
  deleteItem(on.page, on.view, used[which % used.length]);
  on.items.splice(used[which % used.length] - 1, 1);
});

const removeKeeping = fc.nat().map((which): Step => (on) => {
  const used = on.used();
  if (used.length === 0) return;
  const number = used[which % used.length];
  deleteItemKeepingNumbers(on.page, on.view, number);
  if (number === on.items.length) on.items.pop();
  else on.items[number - 1] = null;
});

const removeMany = fc.integer({ min: 1, max: 5 }).map((every): Step => (on) => {
  if (on.items.includes(null)) return;
  const numbers = on.used().filter((number) => number % every === 0);
  deleteItems(on.page, on.view, Uint16Array.from(numbers), numbers.length);
  on.items = on.items.filter((_, index) => (index + 1) % every !== 0);
});

const resize = fc.tuple(fc.nat(), fc.integer({ min: 8, max: 900 })).map(([which, size]): Step => (on) => {
  const used = on.used();
  if (used.length === 0 || !on.fits(size)) return;
  const number = used[which % used.length];
  const item = on.fresh(size);
  on.page.set(item, resizeItemSpace(on.page, on.view, number, size));
  on.items[number - 1] = item;
});

const prune = fc.tuple(fc.integer({ min: 1, max: 4 }), fc.boolean()).map(([every, truncates]): Step => (on) => {
  on.items.forEach((_, index) => {
    if ((index + 1) % every !== 0) return;
    setLine(on.view, index + 1, 0);
    on.items[index] = null;
  });
  repairFragmentation(on.page, on.view, truncates);
  while (truncates && on.items.at(-1) === null) on.items.pop();
});

const truncate = fc.constant<Step>((on) => {
  truncateLinePointers(on.view);
  while (on.items.length > 1 && on.items.at(-1) === null) on.items.pop();
});

test(`items on the page are the items put there (seed ${seed})`, () => {
  const steps = fc.array(fc.oneof(insert, insert, place, remove, removeKeeping, removeMany, resize, prune, truncate), { maxLength: 60 });
  fc.assert(
    fc.property(steps, (chosen) => {
      const on = new Checked();
      for (const step of chosen) {
        step(on);
        on.check();
      }
    }),
    { seed, numRuns: 150 },
  );
});

test(`a damaged page gives a typed error and never a write outside (seed ${seed})`, () => {
  const damage = fc.array(fc.tuple(fc.integer({ min: 10, max: 200 }), fc.nat(255)), { minLength: 1, maxLength: 6 });
  const arena = new Uint8Array(PAGE_SIZE + 64).fill(0xaa);
  const page = arena.subarray(32, 32 + PAGE_SIZE);
  const view = dataViewOf(page);
  const steps: (() => unknown)[] = [
    () => insertItemSpace(page, view, 3, 40), () => placeItemSpace(view, 5, 40), () => deleteItem(page, view, 2), () => deleteItemKeepingNumbers(page, view, 2),
    () => deleteItems(page, view, Uint16Array.of(1, 3, 6, 9), 4), () => resizeItemSpace(page, view, 4, 200), () => repairFragmentation(page, view, true),
    () => truncateLinePointers(view),
  ];
  fc.assert(
    fc.property(damage, fc.nat(steps.length - 1), (bytes, which) => {
      const on = new Checked();
      for (let i = 0; i < 40; i++) on.page.set(on.fresh(16 + i), insertItemSpace(on.page, on.view, 1 + (i % 3), 16 + i));
      page.set(on.page);
      for (const [at, value] of bytes) page[at] = value;
      try {
        steps[which]();
      } catch (error) {
        expect(error).toBeInstanceOf(StrataError);
      }
      expect(arena.subarray(0, 32).every((byte) => byte === 0xaa) && arena.subarray(32 + PAGE_SIZE).every((byte) => byte === 0xaa)).toBe(true);
    }),
    { seed, numRuns: 3000 },
  );
});
