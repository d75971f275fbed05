/** Whole clusters on a simulated network: SWIM's promises. The seed is in each test's name. */
import assert from "node:assert/strict";
import { MEMBERSHIP_PRESETS } from "../../../../src/peer/membership/config.ts";
import { SimCluster } from "../../../support/peer/sim-cluster.ts";
import type { SimNode } from "../../../support/peer/sim-cluster.ts";

const config = MEMBERSHIP_PRESETS.lan;
const SEED = 5;

function started(count: number, options: { readonly loss?: number } = {}): SimCluster {
  const cluster = new SimCluster({ config, seed: SEED, ...options });
  const first = cluster.add("n0");
  for (let index = 1; index < count; index += 1) {
    cluster.join(cluster.add(`n${index}`), first);
    cluster.run(20);
  }
  assert.notEqual(
    cluster.runUntil(() => cluster.isAgreed(), 30_000),
    undefined,
    "views differ",
  );
  return cluster;
}

function nodeOf(cluster: SimCluster, id: string): SimNode {
  const node = cluster.nodes.get(id);
  assert.ok(node !== undefined);
  return node;
}

function kindsOf(node: SimNode, id: string): readonly string[] {
  return node.events.flatMap((event) =>
    "member" in event && event.member.id === id ? [event.kind] : [],
  );
}

describe(`A cluster (seed ${SEED})`, () => {
  it("is known to each member soon after everybody joined", () => {
    const cluster = started(40);
    for (const node of cluster.nodes.values()) assert.equal(node.present().length, 40);
  });

  it("calls a killed member dead, and nobody else", () => {
    const cluster = started(20);
    cluster.kill(nodeOf(cluster, "n7"));
    const tookMs = cluster.runUntil(() => cluster.isAgreed(), 60_000);
    assert.ok(tookMs !== undefined && tookMs < 20_000, `${tookMs} ms`);
    for (const node of cluster.nodes.values()) {
      if (node.isDown) continue;
      assert.equal(kindsOf(node, "n7").at(-1), "died");
      assert.deepEqual(
        node.events.filter(({ kind }) => kind === "died").length,
        1,
        `${node.id} calls others dead`,
      );
    }
  });

  it("forgets nobody under 10 % loss for five minutes", () => {
    const cluster = started(20, { loss: 0.1 });
    cluster.run(300_000);
    for (const node of cluster.nodes.values()) {
      assert.deepEqual(
        node.events.filter(({ kind }) => kind === "died"),
        [],
      );
    }
  });

  it("says left, not dead, of a member that leaves", () => {
    const cluster = started(20);
    const leaving = nodeOf(cluster, "n3");
    cluster.input(leaving, { kind: "leave" });
    const tookMs = cluster.runUntil(() => leaving.hasLeft && cluster.isAgreed(), 10_000);
    assert.ok(tookMs !== undefined);
    for (const node of cluster.nodes.values()) {
      if (node !== leaving) assert.equal(kindsOf(node, "n3").at(-1), "left");
    }
  });

  it("takes a member back that starts again, under the same or another address", () => {
    const cluster = started(10);
    for (const host of [undefined, "10.9.9.9"]) {
      cluster.kill(nodeOf(cluster, "n4"));
      cluster.run(60_000);
      cluster.join(
        host === undefined ? cluster.add("n4") : cluster.add("n4", host),
        nodeOf(cluster, "n0"),
      );
      assert.notEqual(
        cluster.runUntil(() => cluster.isAgreed(), 40_000),
        undefined,
      );
    }
    assert.equal(nodeOf(cluster, "n1").swim.get("n4")?.address.host, "10.9.9.9");
  });

  it("becomes one again after a partition that outlasted every suspicion", () => {
    const cluster = started(16);
    const side = (id: string): boolean => Number(id.slice(1)) < 5;
    cluster.cut((from, to) => side(from) !== side(to));
    cluster.run(180_000);
    assert.equal(nodeOf(cluster, "n0").present().length, 5);
    assert.equal(nodeOf(cluster, "n9").present().length, 11);
    cluster.cut(() => false);
    const tookMs = cluster.runUntil(() => cluster.isAgreed(), 120_000);
    assert.ok(tookMs !== undefined && tookMs < 60_000, `${tookMs} ms`);
  });

  it("does not lose members because one of them is slow (Lifeguard)", () => {
    const cluster = started(20);
    const slow = nodeOf(cluster, "n2");
    slow.lagMs = 1200; // more than the probe interval
    let worstScore = 0;
    for (let second = 0; second < 120; second += 1) {
      cluster.run(1000);
      worstScore = Math.max(worstScore, slow.swim.healthScore);
    }
    for (const node of cluster.nodes.values()) {
      const died = node.events.flatMap((event) => (event.kind === "died" ? [event.member.id] : []));
      assert.deepEqual(
        died.filter((id) => id !== "n2"),
        [],
        `by ${node.id}`,
      );
    }
    assert.ok(worstScore > 0);
  });

  it("names a duplicate id on both sides", () => {
    const cluster = started(6);
    const twin = cluster.add("n3", "10.7.7.7");
    cluster.nodes.set("twin", twin);
    cluster.join(twin, nodeOf(cluster, "n0"));
    cluster.run(30_000);
    assert.ok(twin.events.some(({ kind }) => kind === "conflict"));
    assert.ok(nodeOf(cluster, "n0").events.some(({ kind }) => kind === "conflict"));
  });

  it("goes the same way twice with one seed", () => {
    assert.equal(started(12, { loss: 0.2 }).packets, started(12, { loss: 0.2 }).packets);
  });
});
