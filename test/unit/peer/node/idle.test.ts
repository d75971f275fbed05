/** What a node costs that has nothing to do: how often it wakes up, and what it sends. */
import assert from "node:assert/strict";
import type { Clock } from "../../../../src/base/clock.ts";
import { MachineReader } from "../../../../src/peer/node/machine.ts";
import { Positions } from "../../../../src/peer/node/positions.ts";
import type { Position } from "../../../../src/peer/tree/index.ts";
import { SimClock, SimTime } from "../../../support/peer/sim-clock.ts";
import { SimNetwork } from "../../../support/peer/sim-nodes.ts";

const HOST = "10.0.0.1";
const MACHINE_MS = 1000;

describe("An idle node", () => {
  it("wakes at most four times a second, packets included", async () => {
    using network = new SimNetwork();
    for (let number = 0; number < 4; number += 1) network.add(`n${number}`);
    // Until everybody was greeted, and news were told as often as they are.
    await network.time.runAsync(20_000);
    const seconds = 60;
    const count = (): number => network.peers.reduce((sum, { clock }) => sum + clock.fired, 0);
    const before = { timers: count(), packets: network.packets.length };
    await network.time.runAsync(seconds * 1000);
    const perNode = network.peers.length * seconds;
    const timers = (count() - before.timers) / perNode;
    const packets = (network.packets.length - before.packets) / perNode;
    // A probe and its ack each second, a greeting and its welcome each ten.
    assert.ok(packets <= 2.5, `${packets} packets a second`);
    assert.ok(timers + packets <= 4, `${timers} timers and ${packets} packets a second`);
  });
});

describe("Positions", () => {
  const ref = (id: string) => ({
    ...{ id, boot: id.repeat(32), address: { host: HOST, port: 1 } },
    ...{ exchangePort: 2, zone: "", version: 1 },
  });
  const position = (change: Partial<Position> = {}): Position => ({
    ...{ image: "i", epoch: { counter: 1, manager: "m" }, zone: "", slot: 1, depth: 1 },
    ...{ parent: ref("a"), root: ref("a"), isRoot: false, size: 2, children: 0 },
    ...change,
  });

  function listen(): { positions: Positions; time: SimTime; heard: (number | undefined)[] } {
    const time = new SimTime();
    const positions = new Positions(new SimClock(time));
    const heard: (number | undefined)[] = [];
    positions.listen((_image, told) => heard.push(told?.size));
    return { positions, time, heard };
  }

  it("tell what is news, and what was told before not again", () => {
    const { positions, heard } = listen();
    positions.set("i", undefined);
    positions.set("i", position());
    positions.set("i", position());
    positions.set("i", position({ children: 1 }));
    positions.set("i", position({ children: 1, parent: { ...ref("a"), boot: "0".repeat(32) } }));
    positions.set("i", position({ children: 1, epoch: { counter: 2, manager: "m" } }));
    positions.set("i", undefined);
    positions.set("i", undefined);
    assert.deepEqual(heard, [2, 2, 2, 2, undefined]);
  });

  it("tell the last of many sizes after a second", () => {
    const { positions, time, heard } = listen();
    positions.set("i", position());
    for (let size = 3; size <= 50; size += 1) positions.set("i", position({ size }));
    assert.deepEqual(heard, [2]);
    assert.equal(positions.get("i")?.size, 50);
    time.run(1000);
    assert.deepEqual(heard, [2, 50]);
    time.run(10_000);
    assert.deepEqual(heard, [2, 50]);
  });
});

describe("What a node reads of its machine", () => {
  class Machine {
    readonly time = new SimTime();
    readonly clock: Clock & { aheadMs: number } = new SimClock(this.time);
    reads = 0;
    generationReads = 0;
    host = HOST;
    generation = "a";
    readonly reader = new MachineReader(this.clock, {
      hosts: () => {
        this.reads += 1;
        return new Set([this.host]);
      },
      machineId: () => "m",
      generationId: () => {
        this.generationReads += 1;
        return this.generation;
      },
    });
  }

  it("is the list of interfaces once a second, however busy it is", () => {
    const machine = new Machine();
    for (let packet = 0; packet < 10_000; packet += 1) {
      machine.reader.read(HOST);
      machine.time.run(1);
    }
    assert.equal(machine.reads, 10_000 / MACHINE_MS);
    assert.equal(machine.generationReads, 10_000 / 20);
  });

  it("is all of it again when the clocks have parted", () => {
    const machine = new Machine();
    machine.reader.read(HOST);
    machine.host = "10.0.0.2";
    machine.generation = "b";
    assert.equal(machine.reader.read(HOST).hasAddress, true);
    machine.clock.aheadMs = 100;
    const { hasAddress, generationId } = machine.reader.read(HOST);
    assert.deepEqual({ hasAddress, generationId }, { hasAddress: false, generationId: "b" });
  });

  it("is a new generation id within 20 ms", () => {
    const machine = new Machine();
    machine.reader.read(HOST);
    machine.generation = "b";
    machine.time.run(20);
    assert.equal(machine.reader.read(HOST).generationId, "b");
  });
});
