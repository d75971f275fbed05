/** Targets with defects, for the test that the driver finds them; and one without. */
import { DaemonError } from "../../src/base/errors.ts";
import type { FuzzTarget } from "./target.ts";

const SEEDS = [Buffer.from("seed")];
/** Where the defects lie: runs whose input has this first byte, found by all seeds soon. */
const TRIGGER = "s".charCodeAt(0);

function planted(name: string, defect: () => Promise<void> | void): FuzzTarget {
  return {
    name,
    seeds: () => SEEDS,
    run: (bytes) => {
      if (bytes[0] === TRIGGER) return defect();
      throw new DaemonError("invalid-argument", "not the one");
    },
  };
}

const held: unknown[] = [];

export const TARGETS: readonly FuzzTarget[] = [
  planted("sound", () => undefined),
  planted("foreign", () => {
    throw new TypeError("planted");
  }),
  planted("foreign-later", async () => {
    await Promise.resolve();
    throw new RangeError("planted");
  }),
  planted("rejection", () => {
    void Promise.reject(new Error("planted"));
  }),
  planted("greedy", () => {
    Buffer.alloc(300 * 1024 * 1024);
  }),
  planted("heap", () => {
    for (;;) held.push(new Array(1_000_000).fill(held.length));
  }),
  planted("slow", () => {
    const end = performance.now() + 1100;
    while (performance.now() < end);
  }),
  planted("endless", () => {
    for (;;);
  }),
];
