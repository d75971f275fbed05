/** What a silence means on a machine that is busy itself. */
import assert from "node:assert/strict";
import { Pace, PATIENCE_MS_MAX } from "../../../../src/peer/exchange/pace.ts";
import { FakeClock } from "../../../support/block/fake-clock.ts";

describe("the pace of a machine", () => {
  it("is nothing to wait for while timers are on time, or as late as in any busy process", () => {
    const pace = new Pace(new FakeClock());
    assert.equal(pace.patienceMs(100), 100);
    pace.note(20);
    assert.equal(pace.patienceMs(100), 100);
  });

  it("makes for patience while timers are late, with a limit, and is forgotten", async () => {
    const clock = new FakeClock();
    const pace = new Pace(clock);
    pace.note(75);
    assert.equal(pace.patienceMs(100), 600);
    pace.note(1);
    assert.equal(pace.patienceMs(100), 600, "one timer in time is no proof");
    await clock.advance(1000);
    assert.ok(Math.abs(pace.patienceMs(100) - 225) < 1);
    await clock.advance(1000);
    assert.equal(pace.patienceMs(100), 100);
    pace.note(60_000);
    assert.equal(pace.patienceMs(100), 100 + PATIENCE_MS_MAX);
  });
});
