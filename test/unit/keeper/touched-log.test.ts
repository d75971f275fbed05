/** Which parts were read: merged, bounded, handed over once. */
import assert from "node:assert/strict";
import {
  TOUCH_UNIT_BYTES,
  TOUCHED_UNITS_MAX,
  TouchedLog,
} from "../../../src/keeper/touched-log.ts";

const LAYER = "a".repeat(64);

describe("TouchedLog", () => {
  it("merges neighbouring units and reports each layer once", () => {
    const log = new TouchedLog();
    log.note(LAYER, 10 * TOUCH_UNIT_BYTES, 10 * TOUCH_UNIT_BYTES + 1);
    log.note(LAYER, 5, 4096);
    log.note(LAYER, TOUCH_UNIT_BYTES - 1, TOUCH_UNIT_BYTES + 1);
    log.note("b", 0, 1);
    assert.deepEqual(log.take(), [
      {
        layer: LAYER,
        ranges: [
          { start: 0, end: 2 * TOUCH_UNIT_BYTES },
          { start: 10 * TOUCH_UNIT_BYTES, end: 11 * TOUCH_UNIT_BYTES },
        ],
      },
      { layer: "b", ranges: [{ start: 0, end: TOUCH_UNIT_BYTES }] },
    ]);
    assert.deepEqual(log.take(), []);
  });

  it("stops taking notes at its limit", () => {
    const log = new TouchedLog();
    log.note(LAYER, 0, (TOUCHED_UNITS_MAX + 10) * TOUCH_UNIT_BYTES);
    const end = TOUCHED_UNITS_MAX * TOUCH_UNIT_BYTES;
    assert.deepEqual(log.take(), [{ layer: LAYER, ranges: [{ start: 0, end }] }]);
    log.note(LAYER, 0, 1);
    assert.equal(log.take().length, 1);
  });
});
