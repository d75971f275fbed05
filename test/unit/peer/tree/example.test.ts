/** The package's tree export as another program would use it. */
import assert from "node:assert/strict";
import { TREE_PRESETS, TreeAgent } from "faasnet-snapshotter/tree";
import type { PeerRef, TreeEffect, TreeMember } from "faasnet-snapshotter/tree";
import { systemRandom } from "../../../../src/base/random.ts";

// Seven members on a network that is a map: each asks for its place in the tree of one image.
const IMAGE = `sha256:${"ab".repeat(32)}`;
const agents = new Map<string, { readonly ref: PeerRef; readonly agent: TreeAgent }>();

function refOf(number: number): PeerRef {
  const address = { host: `10.0.0.${number}`, port: 7411 };
  const boot = number.toString(16).padStart(32, "0");
  return { id: `m${number}`, boot, address, exchangePort: 7412, zone: "", version: 1 };
}

function run(from: PeerRef, effects: readonly TreeEffect[], nowMs: number): void {
  for (const effect of effects) {
    if (effect.kind !== "send") continue;
    const { ref, agent } = agents.get(effect.to.address.host) ?? {};
    const { content } = effect;
    const packet = { kind: "packet", from, sender: from.boot, content } as const;
    if (ref !== undefined && agent !== undefined) run(ref, agent.step(packet, nowMs), nowMs);
  }
}

describe("The example of function trees", () => {
  it("shows members that join, and one that leaves", () => {
    const refs = [1, 2, 3, 4, 5, 6, 7].map(refOf);
    const list = refs.map((ref): TreeMember => {
      return { ...ref, state: "alive", aliveSinceMs: -60_000, isSeed: ref.id === "m1" };
    });
    for (const self of refs) {
      const config = TREE_PRESETS.lan;
      const agent = new TreeAgent({ config, self, random: systemRandom, nowMs: -60_000 });
      agents.set(self.address.host, { ref: self, agent });
      agent.step({ kind: "members", list }, 0);
    }
    const agentOf = (number: number) => agents.get(`10.0.0.${number}`)?.agent;
    for (const ref of refs) {
      const agent = agents.get(ref.address.host)?.agent;
      run(ref, agent?.step({ kind: "join", image: IMAGE }, 1) ?? [], 1);
    }
    for (let nowMs = 2; nowMs < 3000; nowMs += 1) {
      for (const { ref, agent } of agents.values()) {
        if (agent.nextMs <= nowMs) run(ref, agent.step({ kind: "tick" }, nowMs), nowMs);
      }
    }
    const depths = refs.map((_, index) => agentOf(index + 1)?.position(IMAGE)?.depth).sort();
    assert.deepEqual(depths, [0, 1, 1, 2, 2, 2, 2]);
    run(refOf(3), agentOf(3)?.step({ kind: "leave", image: IMAGE }, 3000) ?? [], 3000);
    assert.equal(refs.filter((_, n) => agentOf(n + 1)?.position(IMAGE) !== undefined).length, 6);
  });
});
