/** What strangers may send: nothing of it throws, nothing changes what a node knows. */
import assert from "node:assert/strict";
import { KeyRing } from "../../../../src/peer/transport/key-ring.ts";
import { PACKET_BYTES_MAX, Sealer } from "../../../../src/peer/transport/seal.ts";
import type { SimPeer } from "../../../support/peer/sim-nodes.ts";
import { SimNetwork, SIM_PORT } from "../../../support/peer/sim-nodes.ts";
import { SimRandom } from "../../../support/peer/sim-random.ts";

const STRANGER = { host: "10.0.0.99", port: SIM_PORT };

interface Scene extends Disposable {
  readonly network: SimNetwork;
  readonly victim: SimPeer;
  /** Sent to the victim, in order. */
  readonly captured: readonly Uint8Array[];
}

async function captureTraffic(): Promise<Scene> {
  const network = new SimNetwork(11);
  const [victim] = [network.add("n0"), network.add("n1"), network.add("n2")];
  await network.time.runAsync(15_000);
  const { host } = victim.engine.self.address;
  const captured = network.packets.filter(({ to }) => to.host === host).map(({ packet }) => packet);
  assert.ok(captured.length > 20);
  return {
    ...{ network, victim, captured },
    [Symbol.dispose]: () => {
      network[Symbol.dispose]();
    },
  };
}

/** All that a node knows of others, but for times. */
function knows(peer: SimPeer): unknown {
  return peer.engine.watch
    .report(() => false)
    .map(({ id, boot, address, state, incarnation }) => [id, boot, address, state, incarnation]);
}

/** The stranger sends; nothing that the node knows may change. Returns what was sent to it back. */
function attack({ network, victim }: Scene, packets: Iterable<Uint8Array>): readonly number[] {
  const before = knows(victim);
  const inputs = victim.tree.inputs.length;
  const sentBefore = network.packets.length;
  for (const packet of packets) victim.engine.receive(packet, STRANGER);
  assert.deepEqual(knows(victim), before);
  assert.equal(victim.tree.inputs.length, inputs);
  return network.packets
    .slice(sentBefore)
    .filter(({ to }) => to.host === STRANGER.host)
    .map(({ packet }) => packet.length);
}

describe("A stranger who", () => {
  it("repeats captured packets is not heard, and gets no more bytes than it sends", async () => {
    using scene = await captureTraffic();
    const answers = attack(scene, scene.captured);
    const hellos = scene.captured.filter(([kind]) => kind === 2);
    assert.ok(answers.length <= hellos.length);
    const longest = Math.max(0, ...hellos.map(({ length }) => length));
    assert.ok(answers.every((bytes) => bytes <= longest));
    assert.ok(scene.victim.engine.watch.refused.replayed > 0);
  });

  it("flips bits, cuts, lengthens or joins packets is not heard", async () => {
    using scene = await captureTraffic();
    const random = new SimRandom(5);
    const below = (count: number): number => Math.floor(random.next() * count);
    const changed = scene.captured.flatMap((packet) => {
      const flipped = Uint8Array.from(packet);
      const at = below(packet.length);
      flipped[at] = (flipped[at] ?? 0) ^ (1 << below(8));
      const joined = Uint8Array.of(...packet, ...packet);
      return [
        flipped,
        packet.subarray(0, below(packet.length)),
        Uint8Array.of(...packet, 0),
        joined,
      ];
    });
    const oversize = new Uint8Array(PACKET_BYTES_MAX + 1).fill(1);
    const answers = attack(scene, [...changed, oversize, new Uint8Array(), new Uint8Array(65_507)]);
    // Notices of unknown keys, three bytes each.
    assert.ok(answers.every((bytes) => bytes === 3) && answers.length <= 10);
  });

  it("sends at random is not heard", async () => {
    using scene = await captureTraffic();
    const random = new SimRandom(6);
    const packets = Array.from({ length: 3000 }, (_, index) => {
      const packet = random.bytes(Math.floor(random.next() * 200));
      if (packet.length > 0) packet[0] = index % 5;
      return packet;
    });
    attack(scene, packets);
  });

  it("has another key is not heard", async () => {
    using scene = await captureTraffic();
    const sealer = new Sealer(new KeyRing([new Uint8Array(32).fill(9)]), "9".repeat(32));
    const { boot } = scene.victim.engine.self;
    const content = Uint8Array.of(1, 1, 4);
    attack(scene, [sealer.seal(boot, content), sealer.seal(undefined, content)]);
    assert.equal(scene.victim.engine.watch.refused["unknown-key"], 2);
  });

  it("kept packets for the node's earlier boot is not heard by its present one", async () => {
    using scene = await captureTraffic();
    const { network, victim, captured } = scene;
    network.down(victim);
    const again = network.add("n0", { host: "10.0.0.1", seeds: [] });
    attack({ ...scene, victim: again }, captured);
    assert.equal(again.engine.watch.refused.forged, captured.filter(([kind]) => kind === 1).length);
  });

  it("forges notices makes a node name them, and do nothing", async () => {
    using scene = await captureTraffic();
    const { engine } = scene.victim;
    const keyId = scene.captured[0]?.subarray(1, 3) ?? [];
    assert.deepEqual(attack(scene, [Uint8Array.of(3, ...keyId), Uint8Array.of(3, 0, 0)]), []);
    const kinds = engine.watch.findings.map(({ kind }) => kind);
    assert.deepEqual(kinds, ["key-unknown-there"]);
  });
});
