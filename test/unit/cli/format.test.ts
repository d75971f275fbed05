/** Numbers, tables, progress lines. */
import assert from "node:assert/strict";
import fc from "fast-check";
import {
  formatBytes,
  formatDuration,
  formatFields,
  formatPercent,
  formatTable,
} from "../../../src/cli/format.ts";
import type { Clock } from "../../../src/base/clock.ts";
import {
  ProgressDisplay,
  progressLine,
  progressText,
  RateMeter,
} from "../../../src/cli/progress.ts";
import { printable } from "../../../src/cli/terminal.ts";

describe("formatBytes", () => {
  for (const [bytes, expected] of [
    [0, "0 B"],
    [999, "999 B"],
    [1000, "1.00 kB"],
    [9_994, "9.99 kB"],
    [9_996, "10.0 kB"],
    [99_960, "100 kB"],
    [999_499, "999 kB"],
    [999_500, "1.00 MB"],
    [45_200_000, "45.2 MB"],
    [392_000_000, "392 MB"],
    [34_359_738_368, "34.4 GB"],
    [Number.MAX_SAFE_INTEGER, "9.01 PB"],
  ] as const) {
    it(`writes ${bytes} as ${expected}`, () => {
      assert.equal(formatBytes(bytes), expected);
    });
  }
});

describe("formatDuration", () => {
  for (const [seconds, expected] of [
    [0, "0:00"],
    [9.4, "0:09"],
    [75, "1:15"],
    [3723, "1:02:03"],
    [3 * 86_400 + 4 * 3600, "3d 4h"],
    [-1, "0:00"],
  ] as const) {
    it(`writes ${seconds} s as ${expected}`, () => {
      assert.equal(formatDuration(seconds), expected);
    });
  }
});

describe("formatPercent", () => {
  it("says 100 only when complete", () => {
    assert.equal(formatPercent(999_999, 1_000_000), "99%");
    assert.equal(formatPercent(1_000_000, 1_000_000), "100%");
    assert.equal(formatPercent(0, 0), "100%");
    assert.equal(formatPercent(2, 1), "100%");
  });
});

describe("formatTable", () => {
  it("aligns columns and leaves no blanks at the ends", () => {
    const lines = formatTable(
      [{ title: "NAME" }, { title: "SIZE", align: "right" }, { title: "NOTE" }],
      [
        ["a", "1", ""],
        ["longer", "12345", "x"],
      ],
    );

    assert.deepEqual(lines, ["NAME     SIZE  NOTE", "a           1", "longer  12345  x"]);
  });
});

describe("formatFields", () => {
  it("aligns the values", () => {
    assert.deepEqual(
      formatFields([
        ["a", "1"],
        ["long", "2"],
      ]),
      ["a     1", "long  2"],
    );
  });
});

describe("printable", () => {
  it("keeps text, tabs and line feeds, and shows controls", () => {
    assert.equal(printable("ä\t\n"), "ä\t\n");
    assert.equal(printable("\u001b[31m\r\u009b\u202e"), "\\x1b[31m\\x0d\\x9b\\x202e");
  });
});

describe("RateMeter", () => {
  it("knows no rate from one moment", () => {
    const meter = new RateMeter();
    meter.add({ atMs: 0, bytes: 0 });
    meter.add({ atMs: 0, bytes: 100 });

    assert.equal(meter.bytesPerSecond, undefined);
  });

  it("gives the rate of the last five seconds", () => {
    const meter = new RateMeter();
    for (let second = 0; second <= 10; second += 1) meter.add({ atMs: second * 1000, bytes: 0 });
    for (let second = 11; second <= 20; second += 1) {
      meter.add({ atMs: second * 1000, bytes: (second - 10) * 500 });
    }

    assert.equal(meter.bytesPerSecond, 500);
  });

  it("is never negative", () => {
    const meter = new RateMeter();
    meter.add({ atMs: 0, bytes: 100 });
    meter.add({ atMs: 1000, bytes: 0 });

    assert.equal(meter.bytesPerSecond, 0);
  });
});

describe("progressText", () => {
  it("has amount, share, rate and remaining time", () => {
    const state = { label: "map", doneBytes: 120e6, totalBytes: 392e6 };

    assert.equal(progressText(state, 31e6), "120 MB of 392 MB  30%  31.0 MB/s  0:09 left");
    assert.equal(progressText(state, undefined), "120 MB of 392 MB  30%");
    assert.equal(progressText({ ...state, totalBytes: 0 }, 31e6), "120 MB");
  });
});

describe("progressLine", () => {
  it("fills the bar by its share", () => {
    const line = progressLine({ label: "map", doneBytes: 5e6, totalBytes: 1e7 }, undefined, 100);

    assert.equal(line, `map  [${"#".repeat(15)}${".".repeat(15)}]  5.00 MB of 10.0 MB  50%`);
  });

  it("never reaches the terminal's last column (property)", () => {
    fc.assert(
      fc.property(fc.nat(2e12), fc.nat(2e12), fc.integer({ min: 1, max: 200 }), (a, b, columns) => {
        const state = { label: "mapping layers 1/2", doneBytes: a, totalBytes: b };

        assert.ok(progressLine(state, 1e6, columns).length < Math.max(columns, 1) + 0.5);
      }),
    );
  });
});

describe("ProgressDisplay", () => {
  it("writes plain lines at most every five seconds where there is no terminal", () => {
    let nowMs = 0;
    const clock = { nowMs: () => nowMs } as Clock;
    const lines: string[] = [];
    const display = new ProgressDisplay({ write: (text) => lines.push(text) }, clock);

    for (; nowMs <= 12_000; nowMs += 100) {
      display.update({ label: "fetching", doneBytes: nowMs * 1000, totalBytes: 20e6 });
    }
    display.finish();

    assert.deepEqual(lines, [
      "fetching: 0 B of 20.0 MB  0%\n",
      "fetching: 5.00 MB of 20.0 MB  25%  1.00 MB/s  0:15 left\n",
      "fetching: 10.0 MB of 20.0 MB  50%  1.00 MB/s  0:10 left\n",
    ]);
  });

  it("shows no control characters of a label", () => {
    const lines: string[] = [];
    const clock = { nowMs: () => 0 } as Clock;

    new ProgressDisplay({ write: (text) => lines.push(text) }, clock).update({
      label: "\u001b[2J",
      doneBytes: 0,
      totalBytes: 0,
    });

    assert.deepEqual(lines, ["\\x1b[2J\n"]);
  });
});
