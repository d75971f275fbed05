/** The shape of a function tree, against a model that is only arrays. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { FunctionTree } from "../../../../src/peer/tree/function-tree.ts";
import type { ParentChange } from "../../../../src/peer/tree/function-tree.ts";

function treeOf(count: number, zone = "a"): FunctionTree {
  const tree = new FunctionTree();
  for (let number = 0; number < count; number += 1) tree.join(`n${number}`, zone);
  return tree;
}

function parentsOf(tree: FunctionTree): Map<string, string | undefined> {
  return new Map([...tree.ids()].map((id) => [id, tree.parentOf(id)]));
}

/** Everything that has to hold of a tree at any time. */
function check(tree: FunctionTree): void {
  const ids = [...tree.ids()];
  assert.equal(new Set(ids).size, ids.length, "a member stands twice");
  assert.equal(ids.length, tree.size);
  const roots = ids.filter((id) => tree.parentOf(id) === undefined);
  assert.deepEqual(roots, ids.length === 0 ? [] : [tree.root]);
  for (const id of ids) {
    const parent = tree.parentOf(id);
    assert.ok(parent === undefined || tree.childrenOf(parent).includes(id), `${id} is no child`);
    assert.ok(parent === undefined || tree.has(parent), `${id} has a parent that is gone`);
    for (const child of tree.childrenOf(id)) assert.equal(tree.parentOf(child), id);
    if (id !== tree.root) assert.ok(tree.childrenOf(id).length <= 2);
    assert.equal(tree.ancestorsOf(id).at(-1) ?? id, tree.root);
  }
  const zones = new Map<string, string[]>();
  for (const id of ids) {
    const { zone } = tree.placeOf(id);
    zones.set(zone, [...(zones.get(zone) ?? []), id]);
  }
  for (const [zone, members] of zones) {
    const slots = members.map((id) => tree.placeOf(id).slot).sort((one, other) => one - other);
    assert.deepEqual(slots, [...slots.keys()], `zone ${zone} has holes`);
  }
}

/**
 * That `changes` is all that is different between two states, with the parents as they are now. The
 * member that joins may be named without need, when its new zone gives it its old parent.
 */
function checkChanges(
  before: ReadonlyMap<string, string | undefined>,
  tree: FunctionTree,
  changes: readonly ParentChange[],
  joining: string,
): void {
  const told = new Map(changes.map(({ id, parent }) => [id, parent]));
  const isOther = (id: string, parent: string | undefined): boolean =>
    !before.has(id) || before.get(id) !== parent;
  const expected = [...parentsOf(tree)].filter(
    ([id, parent]) => isOther(id, parent) || (id === joining && told.has(id)),
  );
  assert.deepEqual(told, new Map(expected));
}

describe("FunctionTree", () => {
  it("keeps its promises through any joins, leavings and swaps, in any zones", () => {
    const id = fc.integer({ min: 0, max: 24 }).map((number) => `n${number}`);
    const operation = fc.oneof(
      fc.record({ do: fc.constant("join" as const), id, zone: fc.constantFrom("a", "b", "c") }),
      fc.record({ do: fc.constant("remove" as const), id, seed: fc.nat(100) }),
      fc.record({ do: fc.constant("swap" as const), id, other: id }),
    );
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 80 }), (operations) => {
        const tree = new FunctionTree();
        for (const one of operations) {
          const before = parentsOf(tree);
          let changes: readonly ParentChange[] = [];
          if (one.do === "join") changes = tree.join(one.id, one.zone);
          else if (one.do === "remove") {
            changes = tree.remove(one.id, (held) => (Number(held.slice(1)) * one.seed) % 17);
          } else if (tree.has(one.id) && tree.has(one.other)) {
            if (tree.placeOf(one.id).zone !== tree.placeOf(one.other).zone) continue;
            changes = tree.swap(one.id, one.other);
          }
          check(tree);
          checkChanges(before, tree, changes, one.do === "join" ? one.id : "");
        }
      }),
      { numRuns: 300 },
    );
  });

  it("is complete: its depth is that of the logarithm, also after a thousand leavings", () => {
    const tree = treeOf(2000);
    for (let number = 0; number < 1000; number += 1) tree.remove(`n${2 * number}`);
    const depth = Math.max(...Array.from(tree.ids(), (id) => tree.ancestorsOf(id).length));
    assert.equal(depth, Math.floor(Math.log2(1000)));
  });

  it("never reaches a member again that was the root of two and left", () => {
    // The published prototype's defect: the new root kept a pointer to the old one.
    const tree = treeOf(2);
    tree.remove("n0");
    for (const id of ["n2", "n3", "n4"]) tree.join(id, "a");
    tree.remove("n3");
    assert.ok(![...tree.ids()].includes("n0"));
    check(tree);
  });

  it("changes few parents when a member leaves", () => {
    const tree = treeOf(1000);
    let most = 0;
    let sum = 0;
    for (let number = 0; number < 500; number += 1) {
      const changes = tree.remove(`n${(number * 7919) % 1000}`);
      most = Math.max(most, changes.length);
      sum += changes.length;
    }
    assert.ok(most <= 3, `${most}`);
    assert.ok(sum / 500 <= 2.2, `${sum / 500} on average`);
  });

  it("lets the child that holds most rise, and only then", () => {
    const held = (id: string): number => ({ n1: 5, n2: 9, n6: 1 })[id] ?? 0;
    const rising = treeOf(7);
    rising.remove("n0", held);
    assert.equal(rising.root, "n2");
    assert.deepEqual(rising.childrenOf("n2"), ["n1", "n6"]);
    const filling = treeOf(7);
    filling.remove("n0", (id) => (id === "n6" ? 10 : 1));
    assert.equal(filling.root, "n6");
  });

  it("gives each zone one member that fetches from the root", () => {
    const tree = treeOf(3);
    for (const id of ["b0", "b1", "b2", "b3"]) tree.join(id, "b");
    assert.deepEqual(tree.childrenOf("n0"), ["n1", "n2", "b0"]);
    assert.deepEqual(tree.childrenOf("b0"), ["b1", "b2"]);
    const changes = tree.remove("n0");
    assert.equal(tree.root, "n2");
    assert.ok(changes.some(({ id, parent }) => id === "b0" && parent === "n2"));
    for (const id of ["n1", "n2"]) tree.remove(id);
    assert.equal(tree.root, "b0");
    assert.equal(tree.parentOf("b0"), undefined);
  });

  it("names its leaves, last first", () => {
    assert.deepEqual([...treeOf(6).leaves("a")], ["n5", "n4", "n3"]);
    assert.deepEqual([...treeOf(1).leaves("a")], ["n0"]);
    assert.deepEqual([...treeOf(1).leaves("x")], []);
  });

  it("refuses what it cannot do by name", () => {
    const tree = treeOf(2);
    tree.join("b0", "b");
    assert.throws(() => tree.parentOf("gone"), { code: "not-found" });
    assert.throws(() => tree.swap("n0", "b0"), { code: "invalid-argument" });
    for (let number = 0; number < 62; number += 1) tree.join(`z${number}`, `zone${number}`);
    assert.throws(() => tree.join("more", "one more"), { code: "resource-exhausted" });
    assert.deepEqual(tree.remove("gone"), []);
  });
});
