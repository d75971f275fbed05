/**
 * A manager keeps its promises whatever its members, or liars among them, say in whatever order.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import type { TreeMessage } from "../../../../src/peer/tree/messages.ts";
import { IMAGE, reportOf, TreeFixture } from "../../../support/peer/tree-fixture.ts";
import {
  anyPosition,
  anyTreeMessage,
  contactOf,
  refOf,
} from "../../../support/peer/tree-samples.ts";

type Said =
  | { readonly do: "join"; readonly who: number; readonly zone: string; readonly interior: number }
  | { readonly do: "beat" | "leave" | "die"; readonly who: number; readonly held: number }
  | {
      readonly do: "complain";
      readonly who: number;
      readonly about: number;
      readonly reason: "silent" | "wrong-bytes";
    }
  | { readonly do: "pass"; readonly ms: number };

const who = fc.integer({ min: 1, max: 20 });
const said: fc.Arbitrary<Said> = fc.oneof(
  fc.record({
    do: fc.constant("join" as const),
    who,
    zone: fc.constantFrom("", "a", "b"),
    interior: fc.nat(25),
  }),
  fc.record({
    do: fc.constantFrom("beat" as const, "leave" as const, "die" as const),
    who,
    held: fc.nat(50),
  }),
  fc.record({
    do: fc.constant("complain" as const),
    who,
    about: who,
    reason: fc.constantFrom("silent" as const, "wrong-bytes" as const),
  }),
  fc.record({ do: fc.constant("pass" as const), ms: fc.nat(1500) }),
);

function say(fixture: TreeFixture, one: Said): void {
  switch (one.do) {
    case "join": {
      const member = refOf(one.who, { zone: one.zone });
      fixture.receive(one.who, reportOf(one.who, { member, interior: one.interior }));
      break;
    }
    case "beat": {
      const epoch = { counter: one.held, manager: "n0" };
      const seat = { slot: one.held, depth: 1, size: 5, epoch, fingerprint: one.held };
      fixture.join(one.who, { heldBlocks: one.held, bytesPerSecond: one.held * 1e6, seat });
      break;
    }
    case "leave":
      fixture.receive(one.who, {
        kind: "leave",
        image: IMAGE,
        member: contactOf(refOf(one.who)),
      });
      break;
    case "die":
      fixture.know([0, one.who]).know([0]);
      break;
    case "complain":
      fixture.receive(one.who, {
        kind: "complaint",
        image: IMAGE,
        accuser: `n${one.who}`,
        about: `n${one.about}`,
        reason: one.reason,
      });
      break;
    case "pass":
      fixture.pass(one.ms);
  }
}

/** One root, everybody below it, few children, and the depth of a complete tree. */
function check(fixture: TreeFixture): void {
  const [tree] = fixture.agent.managed();
  const members = tree?.members ?? [];
  const ids = new Set(members.map(({ id }) => id));
  assert.equal(ids.size, members.length);
  const roots = members.filter(({ parent }) => parent === undefined);
  assert.equal(roots.length, Math.min(1, members.length));
  const zones = new Set(members.map(({ zone }) => zone)).size;
  const deepest = Math.ceil(Math.log2(members.length + 1)) + Math.min(1, zones - 1);
  for (const { id, parent, depth } of members) {
    assert.ok(parent === undefined || ids.has(parent), `${id} has a parent that is gone`);
    assert.ok(depth <= deepest, `${id} is ${depth} deep`);
    const above = members.find((other) => other.id === parent);
    assert.ok(above === undefined || above.depth < depth, `${id} is not below its parent`);
  }
}

describe("a manager", () => {
  it("has one complete tree after whatever members say, and sends no position that is not in it", () => {
    fc.assert(
      fc.property(fc.array(said, { maxLength: 60 }), (all) => {
        const fixture = new TreeFixture().know([0]);
        let counter = 0;
        for (const one of all) {
          fixture.takeEffects();
          say(fixture, one);
          check(fixture);
          const ids = new Set(fixture.agent.managed()[0]?.members.map(({ id }) => id));
          for (const { message } of one.do === "pass" ? [] : fixture.take("position")) {
            // Epochs never go back.
            assert.ok(message.epoch.counter >= counter);
            counter = message.epoch.counter;
            for (const near of [message.parent, message.grandparent, message.root]) {
              assert.ok(near === undefined || ids.has(near.id));
            }
          }
        }
      }),
      { numRuns: 150 },
    );
  });

  it("takes any message of anybody at any time without breaking", () => {
    const message: fc.Arbitrary<TreeMessage> = fc
      .tuple(fc.oneof(anyTreeMessage, anyPosition), fc.boolean())
      .map(([one, isOurs]) => (isOurs ? { ...one, image: IMAGE } : one));
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(5), message, fc.nat(3000)), { maxLength: 30 }),
        (all) => {
          const fixture = new TreeFixture().know([0, 1, 2]);
          fixture.step({ kind: "join", image: IMAGE });
          for (const [from, one, ms] of all) fixture.receive(from + 1, one).pass(ms);
          assert.ok(fixture.agent.nextMs > fixture.nowMs - 1);
        },
      ),
      { numRuns: 150 },
    );
  });
});
