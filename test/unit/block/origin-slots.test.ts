/** How many requests an origin gets. */
import assert from "node:assert/strict";
import { OriginSlots } from "../../../src/block/origin-slots.ts";
import type { OriginSlot } from "../../../src/block/origin-slots.ts";
import { backoffMs, classifyFailure } from "../../../src/block/retry.ts";
import { DaemonError } from "../../../src/base/errors.ts";

const OPTIONS = { activeMax: [4, 3, 2, 1], parkedMax: 3, activeBytesMax: 100 } as const;

describe("OriginSlots", () => {
  it("stops lower classes earlier and keeps the last slots for readers", () => {
    const slots = new OriginSlots(OPTIONS);
    slots.take("a", 3, 1);
    assert.equal(slots.canStart("a", 3), false);
    assert.equal(slots.canStart("a", 2), true);
    slots.take("a", 2, 1);
    slots.take("a", 1, 1);
    assert.equal(slots.canStart("a", 1), false);
    assert.equal(slots.canStart("a", 0), true);
    assert.equal(slots.canStart("b", 3), true);
  });

  it("starts no fill beside an active reader, but beside a parked one", () => {
    const slots = new OriginSlots(OPTIONS);
    const reader = slots.take("a", 0, 1);
    assert.equal(slots.canStart("a", 3), false);
    reader.park();
    assert.equal(slots.canStart("a", 3), true);
  });

  it("bounds parked requests, and counts nothing twice", () => {
    const slots = new OriginSlots(OPTIONS);
    const parked: OriginSlot[] = [];
    for (let at = 0; at < 3; at += 1) {
      const slot = slots.take("a", 0, 10);
      slot.park();
      slot.park();
      parked.push(slot);
    }
    assert.deepEqual(slots.counts, { active: 0, parked: 3 });
    assert.equal(slots.canStart("a", 0), false);
    parked[0]?.unpark();
    parked[0]?.setPriority(3);
    assert.deepEqual(slots.counts, { active: 1, parked: 2 });
    for (const slot of parked) {
      slot.release();
      slot.release();
    }
    assert.deepEqual(slots.counts, { active: 0, parked: 0 });
  });

  it("bounds bytes in flight but always lets one request go", () => {
    const slots = new OriginSlots(OPTIONS);
    assert.equal(slots.hasBytesFor(1000), true);
    const large = slots.take("a", 0, 1000);
    assert.equal(slots.hasBytesFor(1), false);
    large.park();
    assert.equal(slots.hasBytesFor(100), true);
  });
});

describe("classifyFailure", () => {
  it("tells transient failures, lies and refusals apart", () => {
    const kinds = {
      unavailable: "transient",
      "deadline-exceeded": "transient",
      "resource-exhausted": "transient",
      internal: "transient",
      "data-loss": "corrupt",
      "not-found": "refused",
      unauthenticated: "refused",
      "permission-denied": "refused",
    } as const;
    for (const code of Object.keys(kinds) as (keyof typeof kinds)[]) {
      assert.equal(classifyFailure(new DaemonError(code, "x")), kinds[code]);
    }
    assert.equal(classifyFailure(new TypeError("x")), "transient");
  });
});

describe("backoffMs", () => {
  it("doubles up to its maximum and never goes below half", () => {
    const options = { firstMs: 100, maxMs: 5000 };
    assert.equal(backoffMs(1, 0, options), 50);
    assert.equal(backoffMs(1, 1, options), 100);
    assert.equal(backoffMs(3, 1, options), 400);
    assert.equal(backoffMs(1000, 1, options), 5000);
  });
});
