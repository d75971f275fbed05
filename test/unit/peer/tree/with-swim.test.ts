/** Trees over the real membership protocol: whole nodes, sealed packets, greetings, push/pull. */
import assert from "node:assert/strict";
import { makeTree } from "../../../../src/peer/node/tree-port.ts";
import type { Position } from "../../../../src/peer/tree/index.ts";
import { SimNetwork } from "../../../support/peer/sim-nodes.ts";
import type { SimPeer } from "../../../support/peer/sim-nodes.ts";
import { imageOf, seedsOf } from "../../../support/peer/tree-checks.ts";

const IMAGE = imageOf(1);
const SEEDS = 3;

function positionOf({ engine }: SimPeer): Position | undefined {
  return engine.trees().memberOf.find(({ image }) => image === IMAGE)?.position;
}

function running(network: SimNetwork): readonly SimPeer[] {
  return network.peers.filter(({ isDown }) => !isDown);
}

function rootsOf(peers: readonly SimPeer[]): readonly string[] {
  return peers
    .filter((peer) => positionOf(peer)?.isRoot === true)
    .map(({ engine }) => engine.self.id);
}

/** What is wrong with a tree of these nodes; empty: nothing. */
function faultsOf(peers: readonly SimPeer[]): readonly string[] {
  const faults: string[] = [];
  const ids = new Set(peers.map(({ engine }) => engine.self.id));
  const managed = peers.flatMap(({ engine }) =>
    engine.trees().managed.filter(({ image, role }) => image === IMAGE && role === "manager"),
  );
  if (managed.length !== 1) faults.push(`${managed.length} managers`);
  const parents = new Map(managed[0]?.members.map(({ id, parent }) => [id, parent]));
  if (parents.size !== ids.size) faults.push(`${parents.size} members of ${ids.size}`);
  for (const peer of peers) {
    const { id } = peer.engine.self;
    const position = positionOf(peer);
    const parent = position?.parent?.id;
    if (position === undefined) faults.push(`${id} has no position`);
    else if (parent !== parents.get(id)) faults.push(`${id} has another parent`);
    if (parent !== undefined && !ids.has(parent)) faults.push(`${id} has a parent that is gone`);
  }
  if (rootsOf(peers).length !== 1) faults.push(`roots: ${rootsOf(peers).join()}`);
  return faults;
}

async function settle(
  network: SimNetwork,
  peers: readonly SimPeer[],
  limitMs: number,
): Promise<void> {
  const startMs = network.time.nowMs;
  for (;;) {
    const faults = faultsOf(peers);
    if (faults.length === 0) return;
    assert.ok(network.time.nowMs - startMs < limitMs, faults.slice(0, 8).join("; "));
    await network.time.runAsync(100);
  }
}

/** Three seeds that have been up for a minute, and others that come within a second and join. */
async function burst(count: number, seed: number): Promise<SimNetwork> {
  const network = new SimNetwork(seed);
  network.lose(() => network.random.next() < 0.01);
  const seeds = Array.from({ length: SEEDS }, (_, index) => ({
    host: `10.0.0.${index + 1}`,
    port: 7411,
  }));
  for (let number = 0; number < SEEDS; number += 1) network.add(`n${number}`, { seeds, makeTree });
  await network.time.runAsync(60_000, 100);
  let most = 0;
  for (let number = SEEDS; number < count; number += 1) {
    const peer = network.add(`n${number}`, { seeds, makeTree });
    peer.engine.tree({ kind: "join", image: IMAGE });
    await network.time.runAsync(1000 / count);
    most = Math.max(most, rootsOf(running(network)).length);
  }
  for (const peer of network.peers.slice(0, SEEDS))
    peer.engine.tree({ kind: "join", image: IMAGE });
  await settle(network, running(network), 3000);
  assert.equal(most, 1);
  return network;
}

describe("trees over real membership", () => {
  for (const seed of seedsOf(1)) {
    it(`take a burst up, and outlive root, manager and both (seed ${seed})`, async () => {
      using network = await burst(24, seed);
      for (const who of ["root", "manager", "both"]) {
        const peers = running(network);
        const root = rootsOf(peers)[0] ?? "";
        const [first] = peers;
        const manager = (first === undefined ? undefined : positionOf(first))?.epoch.manager ?? "";
        const ids = { root: [root], manager: [manager], both: [root, manager] }[who] ?? [];
        for (const peer of peers) if (ids.includes(peer.engine.self.id)) network.down(peer);
        await settle(network, running(network), 12_000);
        await network.time.runAsync(2000);
      }

      assert.deepEqual(faultsOf(running(network)), []);
    });

    it(`become two where the network is cut, and one again (seed ${seed})`, async () => {
      using network = await burst(18, seed);
      const isFew = (host: string): boolean => Number(host.split(".")[3]) % 3 === 1;
      network.lose(({ from, to }) => isFew(from.host) !== isFew(to.host));
      network.cutStreams((from, to) => isFew(from) !== isFew(to));
      const few = network.peers.filter(({ engine }) => isFew(engine.self.address.host));
      const many = network.peers.filter(({ engine }) => !isFew(engine.self.address.host));
      await settle(network, few, 60_000);
      await settle(network, many, 60_000);
      assert.equal(rootsOf(network.peers).length, 2);
      network.lose(() => false);
      network.cutStreams(() => false);
      // Membership looks for its dead every 30 s.
      await settle(network, network.peers, 90_000);

      assert.deepEqual(faultsOf(network.peers), []);
    });
  }
});
