/**
 * Whole clusters of tree agents on a virtual network. Each case runs with a few seeds; after a
 * failure `TREE_SEED=n npx mocha .../simulation.test.js` shows it again, `TREE_SEEDS=100` tries
 * more.
 */
import assert from "node:assert/strict";
import {
  faultsOf,
  imageOf,
  loopsOf,
  membersOf,
  rootsOf,
  seedsOf,
  settle,
} from "../../../support/peer/tree-checks.ts";
import { TreeSim } from "../../../support/peer/tree-sim.ts";
import type { TreeSimNode, TreeSimOptions } from "../../../support/peer/tree-sim.ts";

const IMAGE = imageOf(1);

/** Three seeds and others that have known each other for long; all are in the tree. */
function oldCluster(count: number, options: TreeSimOptions): TreeSim {
  const sim = new TreeSim(options);
  for (let number = 0; number < count; number += 1) {
    sim.add(`n${number}`, { isSeed: number < 3, isOld: true });
  }
  sim.run(200);
  for (const node of sim.running()) {
    sim.at(sim.random.next() * 100, () => {
      sim.join(node, IMAGE);
    });
  }
  sim.run(1000);
  settle(sim, IMAGE, { limitMs: 5000 });
  return sim;
}

function rootOf(sim: TreeSim): string {
  return rootsOf(sim, IMAGE)[0] ?? "";
}

function managerOf(sim: TreeSim): string {
  const [node] = membersOf(sim, IMAGE);
  return node?.agent.position(IMAGE)?.epoch.manager ?? "";
}

function deputyOf(sim: TreeSim): string {
  const trees = sim.node(managerOf(sim)).agent.managed();
  return trees.find(({ image }) => image === IMAGE)?.deputy ?? "";
}

function parentsOf(sim: TreeSim): Map<string, string | undefined> {
  return new Map(
    membersOf(sim, IMAGE).map(({ ref, agent }) => [ref.id, agent.position(IMAGE)?.parent?.id]),
  );
}

/** Children notice after 150 ms that nothing comes, and say so. */
function killNoticed(sim: TreeSim, ids: readonly string[]): void {
  for (const { ref, agent } of membersOf(sim, IMAGE)) {
    const about = agent.position(IMAGE)?.parent?.id;
    if (about === undefined || !ids.includes(about) || ids.includes(ref.id)) continue;
    sim.at(150, () => {
      sim.input(sim.node(ref.id), { kind: "complain", image: IMAGE, about, reason: "silent" });
    });
  }
  for (const id of new Set(ids)) sim.kill(sim.node(id));
}

/** Looks every 50 ms: how many roots at most, and how long the longest loop stayed. */
class Watch {
  roots = 0;
  loopMs = 0;
  #forMs = 0;
  readonly #sim: TreeSim;

  constructor(sim: TreeSim) {
    this.#sim = sim;
  }

  run(ms: number): void {
    this.#sim.run(ms, 50, () => {
      this.roots = Math.max(this.roots, rootsOf(this.#sim, IMAGE).length);
      this.#forMs = loopsOf(this.#sim, IMAGE).length === 0 ? 0 : this.#forMs + 50;
      this.loopMs = Math.max(this.loopMs, this.#forMs);
    });
  }
}

describe("a simulated cluster of trees", () => {
  for (const seed of seedsOf(2)) {
    const named = `(seed ${seed})`;

    it(`goes on with one root, and few new parents, when members die ${named}`, () => {
      const sim = oldCluster(40, { seed, loss: 0.01 });
      const watch = new Watch(sim);
      const cases: readonly (readonly [() => readonly string[], number])[] = [
        [() => [rootOf(sim)], 2500],
        [() => [managerOf(sim)], 4000],
        [() => [rootOf(sim), managerOf(sim)], 6000],
        [() => [sim.node(rootOf(sim)).ref.id, "n7", "n8"], 6000],
        [() => [managerOf(sim), deputyOf(sim)], 8000],
      ];
      for (const [choose, limitMs] of cases) {
        const ids = choose().filter((id) => !sim.node(id).isDown);
        const before = parentsOf(sim);
        killNoticed(sim, ids);
        watch.run(200);
        settle(sim, IMAGE, { limitMs });
        const after = parentsOf(sim);
        const changed = [...after].filter(([id, parent]) => before.get(id) !== parent);
        assert.ok(changed.length <= 5 * ids.length, `${changed.length} for ${ids.join()}`);
        watch.run(3000);
      }

      assert.equal(watch.roots, 1);
      // One has heard of its new parent, the other's packet was lost and is repeated.
      assert.ok(watch.loopMs <= 500, `a loop of ${watch.loopMs} ms`);
    });

    it(`gives each side of a cut a tree, and one tree after it ${named}`, () => {
      const sim = oldCluster(30, { seed, loss: 0.01 });
      const isFew = ({ ref }: TreeSimNode): boolean => Number(ref.id.slice(1)) % 3 === 0;
      sim.cut((from, to) => isFew(sim.node(from)) !== isFew(sim.node(to)));
      settle(sim, IMAGE, { limitMs: 20_000, of: isFew });
      settle(sim, IMAGE, { limitMs: 20_000, of: (node) => !isFew(node) });
      assert.equal(rootsOf(sim, IMAGE).length, 2);
      const before = parentsOf(sim);
      sim.heal(3000);
      settle(sim, IMAGE, { limitMs: 10_000 });
      const after = parentsOf(sim);

      // The smaller side joins the larger, which stays as it is.
      for (const node of sim.running()) {
        const { id } = node.ref;
        if (!isFew(node)) assert.equal(after.get(id), before.get(id));
      }
      sim.run(5000);
      assert.deepEqual(faultsOf(sim, IMAGE), []);
    });

    it(`settles after members came, left, died, paused and started again ${named}`, () => {
      const sim = oldCluster(30, { seed, loss: 0.02, newsMs: 2000 });
      const watch = new Watch(sim);
      let next = 30;
      for (let time = 0; time < 60; time += 1) {
        const running = sim.running();
        const node = running[Math.floor(sim.random.next() * running.length)];
        const choice = sim.random.next();
        if (node === undefined || choice > 0.7) {
          sim.join(sim.add(`n${next}`), IMAGE);
          next += 1;
        } else if (choice < 0.3) sim.kill(node);
        else if (choice < 0.5) sim.join(sim.restart(node.ref.id), IMAGE);
        else if (choice < 0.6) sim.input(node, { kind: "leave", image: IMAGE });
        else sim.pause(node, 500 + sim.random.next() * 4000);
        watch.run(500);
      }
      settle(sim, IMAGE, { limitMs: 15_000 });

      assert.ok(watch.roots <= 2, `${watch.roots} roots`);
      assert.ok(watch.loopMs <= 3000, `a loop of ${watch.loopMs} ms`);
    });
  }

  it("takes up a burst of newcomers that know a seed each", () => {
    const [seed = 1] = seedsOf(1);
    const sim = new TreeSim({ seed, loss: 0.01, latencyMs: 2, newsMs: 10_000 });
    const watch = new Watch(sim);
    for (let number = 0; number < 3; number += 1) {
      sim.add(`n${number}`, { isSeed: true, isOld: true });
    }
    sim.run(100);
    for (let number = 3; number < 200; number += 1) {
      sim.at(sim.random.next() * 1000, () => {
        sim.join(sim.add(`n${number}`), IMAGE);
      });
    }
    watch.run(1000);
    settle(sim, IMAGE, { limitMs: 3000 });
    const waits = membersOf(sim, IMAGE)
      .map(({ placedMs, startedMs }) => (placedMs.get(IMAGE) ?? Infinity) - startedMs)
      .sort((one, other) => one - other);

    assert.equal(watch.roots, 1);
    assert.ok((waits[Math.floor(waits.length * 0.99)] ?? Infinity) < 700, `${waits.at(-1)} ms`);
    const before = sim.packets;
    sim.run(5000);
    // Two heartbeats and an answer, and the membership of three seeds.
    assert.ok((sim.packets - before) / 5 / 197 < 3.3);
  });

  it("lets members of two adjacent versions share one tree", () => {
    const sim = new TreeSim({ seed: 5 });
    const wires = [
      { version: 1, oldest: 1 },
      { version: 2, oldest: 1 },
    ];
    for (let number = 0; number < 20; number += 1) {
      const wire = wires[number % 2];
      const options = { isSeed: number < 2, isOld: true };
      sim.add(`n${number}`, wire === undefined ? options : { ...options, wire });
    }
    sim.run(200);
    for (const node of sim.running()) sim.join(node, IMAGE);
    sim.run(1000);
    settle(sim, IMAGE, { limitMs: 3000 });
    sim.kill(sim.node(managerOf(sim)));
    settle(sim, IMAGE, { limitMs: 10_000 });

    const events = sim.running().flatMap((node) => node.events);
    assert.equal(events.filter(({ kind }) => kind === "bad-packet").length, 0);
  });
});
