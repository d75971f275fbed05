import assert from "node:assert/strict";
import { cloneSign, newBootId } from "../../../../src/peer/transport/boot-id.ts";
import type { MachineState } from "../../../../src/peer/transport/boot-id.ts";
import { SimRandom } from "../../../support/peer/sim-random.ts";

const machine: MachineState = {
  wallMs: 1_700_000_000_000,
  monotonicMs: 5000,
  hasAddress: true,
  machineId: "a1",
  generationId: "g1",
};

function after(ms: number, change: Partial<MachineState> = {}): MachineState {
  const { wallMs, monotonicMs } = machine;
  return { ...machine, wallMs: wallMs + ms, monotonicMs: monotonicMs + ms, ...change };
}

describe("A clone of a machine", () => {
  for (const [name, now, sign] of [
    ["nothing but time", after(86_400_000), undefined],
    ["a small correction of the clock", after(1000, { wallMs: machine.wallMs + 2500 }), undefined],
    ["another generation id", after(1, { generationId: "g2" }), "generation-id"],
    ["another machine id", after(1, { machineId: "a2" }), "machine-id"],
    ["an address that is gone", after(1, { hasAddress: false }), "address"],
    ["a wall clock that leapt", after(0, { wallMs: machine.wallMs + 3000 }), "clock-jump"],
    ["a wall clock set back", after(0, { wallMs: machine.wallMs - 3000 }), "clock-jump"],
    ["ids that cannot be read now", after(1, { machineId: "", generationId: "" }), undefined],
  ] as const) {
    it(`is ${sign === undefined ? "not " : ""}seen in ${name}`, () => {
      assert.equal(cloneSign(machine, now), sign);
    });
  }

  it("is not seen in an address that no interface ever had", () => {
    const before = { ...machine, hasAddress: false };
    assert.equal(cloneSign(before, { ...before, monotonicMs: 5000 }), undefined);
  });
});

describe("A boot id", () => {
  it("is 32 hex digits", () => {
    assert.match(newBootId(new SimRandom(1), machine), /^[\da-f]{32}$/);
  });

  it("differs between copies that draw the same random numbers", () => {
    const ids = [machine, after(1), after(0, { generationId: "g2" })].map((state) =>
      newBootId(new SimRandom(1), state),
    );
    assert.equal(new Set(ids).size, ids.length);
  });
});
