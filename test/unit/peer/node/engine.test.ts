/** Whole nodes on a simulated network: what a driver has to do beside the protocol's core. */
import assert from "node:assert/strict";
import type { MembershipConfig } from "../../../../src/peer/membership/config.ts";
import type { SimPeer } from "../../../support/peer/sim-nodes.ts";
import { SimNetwork, SIM_KEY, SIM_PORT } from "../../../support/peer/sim-nodes.ts";
import { KeyRing } from "../../../../src/peer/transport/key-ring.ts";

const OTHER_KEY = new Uint8Array(32).fill(2);

async function started(
  count: number,
  membership: Partial<MembershipConfig> = {},
): Promise<SimNetwork> {
  const network = new SimNetwork();
  for (let number = 0; number < count; number += 1) network.add(`n${number}`, { membership });
  await network.time.runAsync(5000);
  for (const peer of network.peers) assert.equal(peer.present().length, count, "views differ");
  return network;
}

function peerOf(network: SimNetwork, index: number): SimPeer {
  const peer = network.peers[index];
  assert.ok(peer !== undefined);
  return peer;
}

describe("A node that joins", () => {
  it("knows a seed after one round trip, and everybody soon", async () => {
    using network = await started(5);
    const late = network.add("late");
    await network.time.runAsync(20, 1);
    const [seed] = late.tree.members.filter(({ isSeed }) => isSeed);
    assert.equal(seed?.id, "n0");
    assert.equal(seed.exchangePort, 7412);
    assert.equal(late.present().length, 6);
    await network.time.runAsync(3000);
    for (const peer of network.peers) assert.equal(peer.present().length, 6);
  });

  it("joins by packets alone where streams are blocked, and both sides say so", async () => {
    using network = await started(3, { pushPullIntervalMs: 2000 });
    network.cutStreams((from, to) => from === "10.0.0.9" || to === "10.0.0.9");
    const membership = { pushPullIntervalMs: 2000 };
    const late = network.add("late", { host: "10.0.0.9", membership });
    await network.time.runAsync(60_000, 50);
    assert.ok(late.present().includes("n0"));
    assert.ok(peerOf(network, 0).present().includes("late"));
    assert.ok(late.findings().some((finding) => finding.startsWith("tcp-blocked")));
    const theirs = network.peers.slice(0, 3).flatMap((peer) => peer.findings());
    assert.ok(theirs.includes("tcp-blocked late"), theirs.join());
  });

  it("never opens a stream where none is served (memberlist: FallbackTCP_Disabled)", async () => {
    using network = new SimNetwork();
    const config = { exchangePort: 0 };
    let streams = 0;
    network.cutStreams(() => {
      streams += 1;
      return false;
    });
    for (const id of ["a", "b", "c"]) network.add(id, { config });
    await network.time.runAsync(60_000, 50);
    for (const peer of network.peers) assert.equal(peer.present().length, 3);
    assert.equal(streams, 0);
  });

  it("asks again until a seed is there", async () => {
    using network = new SimNetwork();
    const seed = { host: "10.0.0.77", port: SIM_PORT };
    const early = network.add("early", { seeds: [seed] });
    await network.time.runAsync(60_000, 50);
    assert.deepEqual(early.findings(), ["seed-silent 10.0.0.77:7411"]);
    network.add("seed", { host: seed.host, seeds: [] });
    await network.time.runAsync(25_000, 50);
    assert.equal(early.present().length, 2);
    assert.deepEqual(early.findings(), []);
  });

  it("is given to the trees with the time since which it is alive, itself included", async () => {
    using network = await started(3);
    const { tree, engine } = peerOf(network, 1);
    assert.deepEqual(tree.members.map(({ id }) => id).sort(), ["n0", "n1", "n2"]);
    const isSeed = tree.members.filter((member) => member.isSeed).map(({ id }) => id);
    assert.deepEqual(isSeed, ["n0"]);
    assert.ok(tree.members.every(({ aliveSinceMs }) => aliveSinceMs < 3000));
    const seeds = tree.inputs.find(({ kind }) => kind === "seeds");
    assert.ok(seeds?.kind === "seeds" && seeds.list.length === 1);
    assert.equal(engine.presentCount, 3);
  });
});

describe("Tree packets", () => {
  it("reach a stranger: it is greeted first", async () => {
    using network = await started(2);
    const sender = peerOf(network, 1);
    const stranger = network.add("stranger", { seeds: [] });
    const { address } = stranger.engine.self;
    const content = Uint8Array.of(5, 6, 7);
    sender.tree.effects = [{ kind: "send", to: { address }, content, isAsking: true }];
    sender.engine.tree({ kind: "held", image: "i", blocks: 1 });
    await network.time.runAsync(50);
    const packet = stranger.tree.inputs.find(({ kind }) => kind === "packet");
    assert.ok(packet?.kind === "packet");
    assert.deepEqual(Uint8Array.from(packet.content), content);
    assert.equal(packet.sender, sender.engine.self.boot);
    assert.deepEqual(packet.from.address, sender.engine.self.address);
  });

  it("reach a member that was started again, after one that is lost", async () => {
    using network = await started(3);
    const old = peerOf(network, 2);
    const { address, boot } = old.engine.self;
    network.down(old);
    const again = network.add("n2", { host: address.host, seeds: [] });
    const sender = peerOf(network, 1);
    const send = async (value: number): Promise<void> => {
      const content = Uint8Array.of(value);
      sender.tree.effects = [{ kind: "send", to: { address, boot }, content, isAsking: true }];
      sender.engine.tree({ kind: "held", image: "i", blocks: value });
      await network.time.runAsync(600);
    };
    await send(1);
    await send(2);
    const got = again.tree.inputs.filter(({ kind }) => kind === "packet");
    assert.equal(got.length, 1);
    assert.equal(sender.engine.watch.report(() => false).length, 3);
  });
});

describe("A node whose machine was copied", () => {
  for (const [name, change] of [
    ["another generation id", { generationId: "g2" }],
    ["another machine id", { machineId: "m2" }],
    ["another address", { hasAddress: false }],
  ] as const) {
    it(`sends nothing under its old boot id after ${name}`, async () => {
      using network = await started(3);
      const peer = peerOf(network, 1);
      peer.machine = { generationId: "g1", machineId: "m1" };
      await network.time.runAsync(1000);
      const { boot } = peer.engine.self;
      const isOld = (packet: Uint8Array): boolean =>
        Buffer.from(packet.subarray(3, 19)).toString("hex") === boot;
      assert.ok(network.packets.some(({ packet }) => isOld(packet)));
      network.packets.length = 0;
      peer.machine = { ...peer.machine, ...change };
      await network.time.runAsync(10_000);
      assert.ok(!network.packets.some(({ packet }) => isOld(packet)));
      assert.notEqual(peer.engine.self.boot, boot);
      assert.deepEqual(peer.findings(), ["cloned n1"]);
      assert.equal(peer.selves.length, 1);
      assert.ok(peer.tree.inputs.some(({ kind }) => kind === "self"));
      const seen = peerOf(network, 0).engine.watch.report(() => false);
      assert.equal(seen.find(({ id }) => id === "n1")?.boot, peer.engine.self.boot);
      assert.equal(seen.find(({ id }) => id === "n1")?.state, "alive");
    });
  }

  it("takes another boot id when the wall clock leaps, and keeps it afterwards", async () => {
    using network = await started(2);
    const peer = peerOf(network, 1);
    peer.clock.aheadMs = 60_000;
    await network.time.runAsync(2000);
    const { boot } = peer.engine.self;
    await network.time.runAsync(10_000);
    assert.equal(peer.selves.length, 1);
    assert.equal(peer.engine.self.boot, boot);
  });
});

describe("What is wrong between nodes is named on both sides:", () => {
  it("another key", async () => {
    using network = await started(2);
    const other = network.add("other", { keys: [OTHER_KEY] });
    await network.time.runAsync(5000);
    assert.deepEqual(other.present(), ["other"]);
    assert.ok(peerOf(network, 0).findings().includes("wrong-key 10.0.0.3:7411"));
    assert.ok(other.findings().includes("key-unknown-there 10.0.0.1:7411"));
    assert.ok(peerOf(network, 0).engine.watch.refused["unknown-key"] > 0);
  });

  it("one name twice", async () => {
    using network = await started(3);
    const twin = network.add("n1", { host: "10.0.0.50" });
    await network.time.runAsync(5000);
    assert.ok(twin.findings().includes("duplicate-name n1"));
    assert.ok(peerOf(network, 0).findings().includes("duplicate-name n1"));
    const shown = peerOf(network, 0).engine.watch.report(() => false);
    assert.equal(shown.find(({ id }) => id === "n1")?.address.host, "10.0.0.2");
  });

  it("clocks that are far apart", async () => {
    using network = await started(3);
    const late = network.add("late", { aheadMs: -3_600_000 });
    await network.time.runAsync(10_000);
    assert.ok(peerOf(network, 1).findings().includes("clock-skew late"));
    assert.ok(late.findings().includes("clock-skew n1"));
    const report = peerOf(network, 1).engine.watch.report(() => false);
    const aheadMs = report.find(({ id }) => id === "late")?.clockAheadMs ?? 0;
    assert.ok(Math.abs(aheadMs + 3_600_000) < 5, `${aheadMs}`);
  });

  it("packets that are blocked", async () => {
    using network = await started(3);
    network.lose(({ from, to }) => from.host === "10.0.0.3" || to.host === "10.0.0.3");
    await network.time.runAsync(30_000);
    assert.equal(peerOf(network, 0).present().length, 3);
    assert.ok(peerOf(network, 0).findings().includes("udp-blocked n2"));
    assert.ok(
      peerOf(network, 2)
        .findings()
        .some((one) => one.startsWith("udp-blocked")),
    );
    network.lose(() => false);
    await network.time.runAsync(10_000);
    assert.deepEqual(peerOf(network, 0).findings(), []);
  });

  it("wire versions that do not meet", async () => {
    using network = await started(2);
    const newer = network.add("newer", { config: { versions: { lowest: 2, highest: 3 } } });
    await network.time.runAsync(5000);
    assert.deepEqual(newer.present(), ["newer"]);
    assert.ok(newer.findings().some((one) => one.startsWith("other-version")));
    assert.ok(
      peerOf(network, 0)
        .findings()
        .some((one) => one.startsWith("other-version")),
    );
  });
});

describe("Nodes of adjacent versions", () => {
  it("are one cluster", async () => {
    using network = await started(3);
    const newer = network.add("newer", { config: { versions: { lowest: 1, highest: 2 } } });
    await network.time.runAsync(10_000);
    for (const peer of network.peers) assert.equal(peer.present().length, 4);
    for (const peer of network.peers) assert.deepEqual(peer.findings(), []);
    const shown = peerOf(network, 0).engine.watch.report(() => false);
    assert.equal(shown.find(({ id }) => id === "newer")?.version, 2);
    assert.equal(newer.engine.self.version, 2);
  });

  it("are one cluster where only the later of the two versions is common", async () => {
    using network = new SimNetwork();
    const both = { versions: { lowest: 1, highest: 2 } };
    for (const id of ["a", "b"]) network.add(id, { config: both });
    const newer = network.add("newer", { config: { versions: { lowest: 2, highest: 3 } } });
    await network.time.runAsync(90_000, 50);
    for (const peer of network.peers) assert.equal(peer.present().length, 3);
    for (const peer of network.peers) assert.deepEqual(peer.findings(), []);
    for (const peer of network.peers) assert.equal(peer.engine.watch.refused["other-version"], 0);
    assert.equal(newer.engine.self.version, 3);
  });
});

describe("A report", () => {
  it("has each member's round trip and ways (memberlist: PingDelegate)", async () => {
    using network = await started(4);
    await network.time.runAsync(30_000);
    for (const one of peerOf(network, 1).engine.watch.report(() => false)) {
      if (one.isSelf) continue;
      assert.ok(one.roundTripMs !== undefined && one.roundTripMs >= 2 && one.roundTripMs <= 4);
      assert.ok(Math.abs(one.clockAheadMs ?? Infinity) < 2);
      assert.equal(one.udp, "ok");
    }
  });
});

describe("A node that leaves", () => {
  it("is left, not dead, in the views of the others, and leaves its trees", async () => {
    using network = await started(4);
    const leaving = peerOf(network, 2);
    const left = leaving.engine.leave();
    await network.time.runAsync(3000);
    await left;
    network.down(leaving);
    const states = network.peers
      .filter((peer) => peer !== leaving)
      .map((peer) => peer.engine.watch.report(() => false).find(({ id }) => id === "n2")?.state);
    assert.deepEqual(states, ["left", "left", "left"]);
  });
});

describe("A cluster that was cut in two", () => {
  it("is one again, also after both halves have forgotten each other", async () => {
    using network = new SimNetwork();
    const membership = { reconnectTimeoutMs: 20_000 };
    const seeds = [1, 4].map((number) => ({ host: `10.0.0.${number}`, port: SIM_PORT }));
    for (let number = 0; number < 6; number += 1) network.add(`n${number}`, { membership, seeds });
    await network.time.runAsync(5000);
    const isLow = (host: string): boolean => Number(host.split(".").at(-1)) <= 3;
    network.lose(({ from, to }) => isLow(from.host) !== isLow(to.host));
    network.cutStreams((from, to) => isLow(from) !== isLow(to));
    await network.time.runAsync(120_000, 50);
    for (const peer of network.peers) {
      assert.equal(peer.present().length, 3);
      assert.equal(peer.engine.watch.report(() => false).length, 3, "not forgotten");
    }
    network.lose(() => false);
    network.cutStreams(() => false);
    await network.time.runAsync(60_000, 50);
    for (const peer of network.peers) assert.equal(peer.present().length, 6);
  });
});

describe("A rotation of keys", () => {
  it("loses nobody, and in the end shuts out who has only the old key", async () => {
    using network = await started(4);
    const old = peerOf(network, 3);
    const rings = [[SIM_KEY, OTHER_KEY], [OTHER_KEY, SIM_KEY], [OTHER_KEY]];
    for (const ring of rings) {
      for (const peer of network.peers) {
        if (peer === old && ring.length === 1) continue;
        peer.engine.rotate(new KeyRing(peer === old ? [SIM_KEY, OTHER_KEY] : ring));
        await network.time.runAsync(1500);
      }
      if (ring.length > 1) {
        for (const peer of network.peers) assert.equal(peer.present().length, 4);
        for (const peer of network.peers) assert.deepEqual(peer.findings(), []);
      }
    }
    assert.ok(
      peerOf(network, 0)
        .findings()
        .some((one) => one.startsWith("wrong-key")),
    );
  });
});
