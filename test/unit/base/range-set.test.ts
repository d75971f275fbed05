/** RangeSet against a naive model: one boolean per byte. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { RangeSet } from "../../../src/base/range-set.ts";
import type { ByteRange } from "../../../src/base/range-set.ts";

const SPACE_BYTES = 40;

interface Operation extends ByteRange {
  readonly kind: "add" | "remove";
}

const range = fc
  .tuple(fc.nat(SPACE_BYTES), fc.nat(SPACE_BYTES))
  .map(([start, end]): ByteRange => ({ start, end }));

const operations: fc.Arbitrary<Operation[]> = fc.array(
  fc
    .tuple(fc.constantFrom("add" as const, "remove" as const), range)
    .map(([kind, { start, end }]) => ({ kind, start, end })),
  { maxLength: 25 },
);

function runsOf(bytes: readonly boolean[], wanted: boolean, within: ByteRange): ByteRange[] {
  const runs: ByteRange[] = [];
  let start: number | undefined;
  for (let offset = within.start; offset <= within.end; offset += 1) {
    const isRun = offset < within.end && (bytes[offset] ?? false) === wanted;
    if (isRun) {
      start ??= offset;
    } else if (start !== undefined) {
      runs.push({ start, end: offset });
      start = undefined;
    }
  }
  return runs;
}

function build(list: readonly Operation[]): { set: RangeSet; bytes: boolean[] } {
  const set = new RangeSet();
  const bytes = new Array<boolean>(SPACE_BYTES + 1).fill(false);
  for (const { kind, start, end } of list) {
    set[kind]({ start, end });
    for (let offset = start; offset < end; offset += 1) bytes[offset] = kind === "add";
  }
  return { set, bytes };
}

const WHOLE: ByteRange = { start: 0, end: SPACE_BYTES + 1 };

describe("RangeSet", () => {
  it("holds exactly the bytes added and not removed, as merged sorted ranges (property)", () => {
    fc.assert(
      fc.property(operations, (list) => {
        const { set, bytes } = build(list);

        const expected = runsOf(bytes, true, WHOLE);
        assert.deepEqual([...set], expected);
      }),
      { numRuns: 2000 },
    );
  });

  it("reports as missing exactly the bytes of the range that it does not hold (property)", () => {
    fc.assert(
      fc.property(operations, range, (list, asked) => {
        const { set, bytes } = build(list);

        assert.deepEqual(set.missing(asked), runsOf(bytes, false, asked));
        assert.equal(set.has(asked), runsOf(bytes, false, asked).length === 0);
      }),
      { numRuns: 4000 },
    );
  });

  it("does not change when asked", () => {
    const set = RangeSet.of([{ start: 2, end: 4 }]);

    set.missing({ start: 0, end: 10 });
    set.has({ start: 0, end: 10 });

    assert.deepEqual([...set], [{ start: 2, end: 4 }]);
  });

  it("merges adjacent ranges", () => {
    const set = RangeSet.of([
      { start: 0, end: 4 },
      { start: 8, end: 12 },
      { start: 4, end: 8 },
    ]);

    assert.deepEqual([...set], [{ start: 0, end: 12 }]);
  });

  it("keeps offsets above 4 GiB exact", () => {
    const base = 2 ** 45;
    const set = RangeSet.of([{ start: base, end: base + 10 }]);

    set.remove({ start: base + 3, end: base + 5 });

    assert.deepEqual(set.missing({ start: base - 1, end: base + 12 }), [
      { start: base - 1, end: base },
      { start: base + 3, end: base + 5 },
      { start: base + 10, end: base + 12 },
    ]);
  });

  it("treats an empty or inverted range as nothing", () => {
    const set = RangeSet.of([{ start: 0, end: 4 }]);

    set.add({ start: 9, end: 9 });
    set.remove({ start: 3, end: 1 });

    assert.deepEqual([...set], [{ start: 0, end: 4 }]);
    assert.equal(set.has({ start: 20, end: 20 }), true);
    assert.deepEqual(set.missing({ start: 9, end: 5 }), []);
  });
});
