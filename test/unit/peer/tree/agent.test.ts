/** One tree agent as manager and as member, driven by hand. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { encodeTreeMessage } from "../../../../src/peer/tree/codec.ts";
import { TREE_PRESETS } from "../../../../src/peer/tree/config.ts";
import { JOINS_BURST, SEATS_MAX } from "../../../../src/peer/tree/limits.ts";
import { TreeAgent } from "../../../../src/peer/tree/tree-agent.ts";
import { imageOf } from "../../../support/peer/tree-checks.ts";
import { SimRandom } from "../../../support/peer/sim-random.ts";
import {
  IMAGE,
  manager,
  numbers,
  reportOf,
  TreeFixture,
} from "../../../support/peer/tree-fixture.ts";
import { contactOf, refOf } from "../../../support/peer/tree-samples.ts";

/** Heartbeats of all members, as the manager has them. */
function beatAll(fixture: TreeFixture, changes: (number: number) => object = () => ({})): void {
  const [tree] = fixture.agent.managed();
  for (const { id, slot, depth } of tree?.members ?? []) {
    const number = Number(id.slice(1));
    const epoch = tree?.epoch ?? { counter: 0, manager: "n0" };
    const seat = { slot, depth, size: tree?.members.length ?? 0, epoch, fingerprint: 0 };
    if (number > 0) fixture.join(number, { seat, ...changes(number) });
  }
}

describe("a tree's manager", () => {
  it("answers a join with parent, grandparent, root, depth, size and epoch", () => {
    const fixture = manager(numbers(4));
    fixture.join(5);
    const [answer] = fixture.take("position");

    assert.equal(answer?.to, 5);
    const { parent, grandparent, root, depth, size, slot, epoch } = answer.message;
    assert.deepEqual(
      { parent: parent?.id, grandparent: grandparent?.id, root: root.id, depth, size, slot },
      { parent: "n2", grandparent: "n1", root: "n1", depth: 2, size: 5, slot: 4 },
    );
    assert.equal(epoch.manager, "n0");
  });

  it("places a member once, however often it asks", () => {
    const fixture = manager(numbers(3));
    for (let time = 0; time < 5; time += 1) fixture.join(2);

    assert.deepEqual(fixture.parents(), { n1: "-", n2: "n1", n3: "n1" });
    assert.equal(fixture.take("position").length, 5);
  });

  it("keeps the place of a member that starts again, and tells those below how to reach it", () => {
    const fixture = manager(numbers(5));
    const again = refOf(2, { boot: "ab".repeat(16), exchangePort: 8000 });
    fixture.step({
      kind: "packet",
      from: { address: again.address },
      sender: again.boot,
      content: encodeTreeMessage(reportOf(2, { member: again })),
    });
    const told = fixture.take("position");

    assert.deepEqual(fixture.parents(), { n1: "-", n2: "n1", n3: "n1", n4: "n2", n5: "n2" });
    assert.deepEqual(told.map(({ to }) => to).sort(), [2, 4, 5]);
    assert.ok(told.every(({ to, message }) => to === 2 || message.parent?.exchangePort === 8000));
  });

  it("takes nobody's word for another: a join that was not passed on has to be the sender's", () => {
    const fixture = manager([1]);
    fixture.receive(7, reportOf(2));

    assert.deepEqual(fixture.parents(), { n1: "-" });
  });

  it("acknowledges a heartbeat that shows what it knows, and repeats a position until one does", () => {
    const fixture = manager(numbers(7));
    fixture.join(7);
    const [position] = fixture.take("position").slice(-1);
    assert.ok(position !== undefined);
    const { slot, depth, size, epoch, fingerprint } = position.message;
    fixture.join(7, { seat: { slot, depth, size, epoch, fingerprint } });
    assert.deepEqual(
      fixture.takeSent().map(({ to, message }) => [to, message.kind]),
      [[7, "ack"]],
    );

    fixture.receive(3, { kind: "leave", image: IMAGE, member: contactOf(refOf(3)) });
    const first = fixture.take("position").map(({ to }) => to);
    assert.ok(first.includes(7) || first.includes(6));
    fixture.pass(450);
    const repeated = fixture.take("position").map(({ to }) => to);
    for (const to of first) assert.equal(repeated.filter((other) => other === to).length, 2);
  });

  it("removes who leaves, who membership calls dead, and nobody that is only unknown", () => {
    const fixture = manager(numbers(5));
    fixture.receive(2, { kind: "leave", image: IMAGE, member: contactOf(refOf(2)) });
    fixture.receive(4, { kind: "leave", image: IMAGE, member: contactOf(refOf(5)) });
    assert.deepEqual(Object.keys(fixture.parents()).sort(), ["n1", "n3", "n4", "n5"]);
    fixture.know([0, 1]).know([0, 1], { 1: { state: "dead" } });

    assert.deepEqual(Object.keys(fixture.parents()).sort(), ["n3", "n4", "n5"]);
    assert.ok(Object.values(fixture.parents()).every((parent) => parent !== "n1"));
  });

  it("pings a member whose heartbeats stop, and takes out only one that does not answer", () => {
    const fixture = manager(numbers(3));
    fixture.pass(5000);
    beatAll(fixture, () => ({}));
    fixture.takeEffects();
    const pinged = new Set<number>();
    for (let passed = 0; passed < 7000; passed += 50) {
      for (const { to, message } of fixture.pass(50).take("ping")) {
        pinged.add(to);
        const pong = { kind: "pong", image: IMAGE, nonce: message.nonce } as const;
        if (to !== 3) fixture.receive(to, { ...pong, isManager: false, isMember: true });
      }
    }

    assert.deepEqual([...pinged].sort(), [1, 2, 3]);
    assert.deepEqual(Object.keys(fixture.parents()).sort(), ["n1", "n2"]);
  });

  it("lets the child that holds most rise when an interior member goes", () => {
    const fixture = manager(numbers(7));
    beatAll(fixture, (number) => ({ heldBlocks: number === 5 ? 100 : number }));
    fixture.receive(2, { kind: "leave", image: IMAGE, member: contactOf(refOf(2)) });

    assert.deepEqual(fixture.parents(), {
      n1: "-",
      n5: "n1",
      n3: "n1",
      n4: "n5",
      n7: "n5",
      n6: "n3",
    });
  });

  it("feeds a zone through one member of it", () => {
    const fixture = new TreeFixture().know([0]);
    for (const number of [1, 2]) fixture.join(number, { member: refOf(number, { zone: "a" }) });
    for (const number of [3, 4, 5]) fixture.join(number, { member: refOf(number, { zone: "b" }) });

    assert.deepEqual(fixture.parents(), { n1: "-", n2: "n1", n3: "n1", n4: "n3", n5: "n3" });
  });

  it("prefers members that feed others in few trees, and says so when there is none", () => {
    const fixture = manager([1]);
    fixture.join(2, { interior: 20 }).join(3);
    fixture.takeEffects();
    fixture.join(4);
    assert.equal(fixture.parents()["n4"], "n3");
    assert.deepEqual(
      fixture.takeEvents().map(({ kind }) => kind),
      ["joined"],
    );

    const full = new TreeFixture().know([0]);
    for (const number of [1, 2, 3]) full.join(number, { interior: 20 + number });
    full.takeEffects();
    full.join(4, { interior: 30 });
    const events = full.takeEvents();
    assert.ok(events.some((event) => event.kind === "interior-limit" && event.id === "n2"));
    assert.equal(full.parents()["n4"], "n2");
  });

  it("swaps a parent that is far slower than its peers with a leaf, once", () => {
    const fixture = manager(numbers(15));
    const slow = (number: number): object => ({ bytesPerSecond: number === 3 ? 1e6 : 1e8 });
    for (let second = 0; second < 8; second += 1) {
      beatAll(fixture, slow);
      fixture.pass(1000);
    }

    const parents = fixture.parents();
    assert.ok(!Object.values(parents).includes("n3"), JSON.stringify(parents));
    const moved = fixture.takeEvents().filter(({ kind }) => kind === "moved");
    assert.deepEqual(moved, [{ kind: "moved", image: IMAGE, id: "n3", reason: "slow" }]);
  });

  it("drops joins of one boot beyond its share", () => {
    const fixture = manager();
    for (let time = 0; time < JOINS_BURST + 50; time += 1) fixture.join(1);

    assert.equal(fixture.take("position").length, JOINS_BURST);
  });

  it("listens for two heartbeats before it makes anybody root when it may have been preceded", () => {
    const fixture = new TreeFixture({ upMs: 0 }).know([0, 1], { 1: { aliveSinceMs: 1e6 } });
    fixture.step({ kind: "seeds", list: [] });
    fixture.join(2, { rank: "manager" });
    const answers = fixture.takeSent().filter(({ to }) => to === 2);
    assert.deepEqual(
      answers.map(({ message }) => message.kind),
      ["wait"],
    );
    // A member of a tree that was there before keeps its place.
    const epoch = { counter: 40, manager: "n9" };
    const seat = { slot: 0, depth: 0, size: 1, epoch, fingerprint: 1 };
    fixture.join(5, { seat, rank: "manager" });
    fixture.pass(3000);

    assert.deepEqual(fixture.parents(), { n5: "-", n2: "n5" });
    const [tree] = fixture.agent.managed();
    assert.ok((tree?.epoch.counter ?? 0) > 40);
  });
});

describe("complaints", () => {
  const complain = (accuser: number, about: number, reason: "silent" | "wrong-bytes") =>
    ({
      kind: "complaint",
      image: IMAGE,
      accuser: `n${accuser}`,
      about: `n${about}`,
      reason,
    }) as const;

  it("of silence bring about pings, and removal when nothing answers", () => {
    const fixture = manager(numbers(7));
    fixture.receive(4, complain(4, 2, "silent"));
    fixture.pass(650);

    assert.ok(fixture.take("ping").every(({ to }) => to === 2));
    assert.ok(!("n2" in fixture.parents()));
  });

  it("of silence of one that answers move nobody, of several move it to a leaf", () => {
    const fixture = manager(numbers(7));
    const answerPings = (): void => {
      for (const { to, message } of fixture.take("ping")) {
        const pong = { kind: "pong", image: IMAGE, nonce: message.nonce } as const;
        fixture.receive(to, { ...pong, isManager: false, isMember: true });
      }
    };
    const before = fixture.parents();
    const hear = (...accusers: number[]): void => {
      for (const accuser of accusers) fixture.receive(accuser, complain(accuser, 2, "silent"));
      fixture.pass(10);
      answerPings();
      fixture.pass(990);
      beatAll(fixture);
      fixture.takeEffects();
    };
    for (let second = 0; second < 5; second += 1) hear(4);
    assert.deepEqual(fixture.parents(), before, "one alone");
    hear(5);
    assert.deepEqual(fixture.parents(), before, "who is only busy answers soon");
    for (let second = 0; second < 3; second += 1) hear(4, 5);

    assert.ok("n2" in fixture.parents());
    assert.ok(!Object.values(fixture.parents()).includes("n2"));
  });

  it("of wrong bytes make the liar a leaf; with two accusers it stays one", () => {
    const fixture = manager(numbers(7));
    fixture.receive(4, complain(4, 2, "wrong-bytes"));
    assert.ok(!Object.values(fixture.parents()).includes("n2"));
    fixture.receive(5, complain(5, 2, "wrong-bytes"));
    for (const number of [8, 9, 10, 11, 12, 13, 14, 15, 16]) fixture.join(number);

    assert.ok(!Object.values(fixture.parents()).includes("n2"), JSON.stringify(fixture.parents()));
    assert.equal(Object.keys(fixture.parents()).length, 16);
  });

  it("of one member about the root move that member; the root stays", () => {
    const fixture = manager(numbers(7));
    fixture.receive(2, complain(2, 1, "wrong-bytes"));

    assert.equal(fixture.parents()["n1"], "-");
    assert.notEqual(fixture.parents()["n2"], "n1");
  });

  it("of one member never dissolve a tree: three moves, then no more", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 30 }),
        fc.array(fc.integer({ min: 1, max: 31 }), { maxLength: 60 }),
        (accuser, abouts) => {
          const fixture = manager(numbers(30));
          const { accusationsMax } = TREE_PRESETS.lan;
          const before = fixture.parents();
          for (const about of abouts) {
            fixture.receive(accuser, complain(accuser, about, "wrong-bytes"));
          }
          const after = fixture.parents();
          const changed = Object.keys(before).filter((id) => before[id] !== after[id]);
          assert.equal(Object.keys(after).length, 30);
          // A swap of an interior member and a leaf gives at most seven others another parent.
          assert.ok(changed.length <= 7 * accusationsMax, `${changed.length}`);
        },
      ),
      { numRuns: 50 },
    );
  });

  it("are taken from the accuser itself only", () => {
    const fixture = manager(numbers(7));
    const before = fixture.parents();
    fixture.receive(6, complain(4, 2, "wrong-bytes"));

    assert.deepEqual(fixture.parents(), before);
  });
});

describe("a tree's member", () => {
  const position = (parent: number, counter: number, from = 1) =>
    ({
      kind: "position",
      image: IMAGE,
      epoch: { counter, manager: `n${from}` },
      slot: 3,
      depth: 2,
      size: 9,
      children: 0,
      fingerprint: counter,
      root: refOf(7),
      parent: refOf(parent),
      grandparent: refOf(7),
      manager: contactOf(refOf(from)),
    }) as const;

  it("asks a seed while it knows nobody, then others, and is alone when nobody answers", () => {
    const fixture = new TreeFixture({ upMs: 0 });
    const seeds = [1, 2].map((number) => ({ address: refOf(number).address }));
    fixture.step({ kind: "seeds", list: seeds }).know([0], { 0: { aliveSinceMs: fixture.nowMs } });
    fixture.step({ kind: "join", image: IMAGE });
    assert.equal(fixture.take("report").length, 1);
    fixture.pass(1500);
    const asked = new Set(fixture.take("report").map(({ to }) => to));
    assert.deepEqual([...asked].sort(), [1, 2]);
    assert.equal(fixture.agent.position(IMAGE), undefined);
    fixture.pass(6000);

    assert.equal(fixture.agent.position(IMAGE)?.isRoot, true);
  });

  it("is root at once where there are no others", () => {
    const fixture = new TreeFixture({ upMs: 0 }).know([0], { 0: { aliveSinceMs: 1e6 } });
    fixture.step({ kind: "join", image: IMAGE });

    assert.equal(fixture.agent.position(IMAGE)?.isRoot, true);
  });

  it("takes newer positions only, and shows each that it takes", () => {
    const fixture = new TreeFixture().know([0, 1]);
    fixture.step({ kind: "join", image: IMAGE });
    fixture.receive(1, position(5, 10));
    assert.equal(fixture.agent.position(IMAGE)?.parent?.id, "n5");
    assert.equal(fixture.take("report").at(-1)?.message.seat?.fingerprint, 10);
    fixture.receive(1, position(6, 9));
    assert.equal(fixture.agent.position(IMAGE)?.parent?.id, "n5");
    fixture.receive(1, position(6, 11));
    assert.equal(fixture.agent.position(IMAGE)?.parent?.id, "n6");
    // Another manager's, older: it hears of the one that is followed.
    fixture.takeEffects();
    fixture.receive(2, position(4, 10, 2));
    assert.deepEqual(
      fixture.take("rival").map(({ to, message }) => [to, message.manager.id]),
      [[2, "n1"]],
    );
  });

  it("does not believe a position that its manager did not send", () => {
    const fixture = new TreeFixture().know([0, 1]);
    fixture.step({ kind: "join", image: IMAGE });
    fixture.receive(3, position(5, 10));

    assert.equal(fixture.agent.position(IMAGE), undefined);
  });

  it("sends heartbeats to manager and deputy, once a second", () => {
    const fixture = new TreeFixture({ upMs: 0 }).know([1], { 1: { isSeed: true } });
    fixture.step({ kind: "join", image: IMAGE });
    fixture.receive(1, { ...position(5, 10), deputy: contactOf(refOf(2)) });
    fixture.pass(1000);
    fixture.takeEffects();
    const ack = { kind: "ack", image: IMAGE, epoch: position(5, 10).epoch, size: 9, children: 0 };
    for (let second = 0; second < 5; second += 1) {
      fixture.pass(1000).receive(1, ack as Parameters<TreeFixture["receive"]>[1]);
    }
    const reports = fixture.take("report").map(({ to, message }) => `${to} ${message.rank}`);

    assert.deepEqual([...reports].sort(), [
      ...Array<string>(5).fill("1 manager"),
      ...Array<string>(5).fill("2 deputy"),
    ]);
  });

  it("leaves, and says so again to a manager that has not heard it", () => {
    const fixture = new TreeFixture().know([0, 1]);
    fixture.step({ kind: "join", image: IMAGE });
    fixture.receive(1, position(5, 10));
    fixture.takeEffects();
    fixture.step({ kind: "leave", image: IMAGE });
    assert.deepEqual(
      fixture.take("leave").map(({ to }) => to),
      [1],
    );
    fixture.receive(1, position(5, 11));
    assert.deepEqual(
      fixture.take("leave").map(({ to }) => to),
      [1],
    );
    assert.equal(fixture.agent.position(IMAGE), undefined);
  });

  it("reads on its own small budget when no manager answers for tokens", () => {
    const fixture = new TreeFixture().know([0, 1]);
    fixture.step({ kind: "join", image: IMAGE });
    fixture.receive(1, position(5, 10));
    fixture.takeEffects();
    fixture.step({ kind: "token", image: IMAGE, bytes: 1000, id: 5 }).pass(130);
    const answers = fixture.takeEffects().filter(({ kind }) => kind === "token-answer");

    assert.deepEqual(answers, [
      { kind: "token-answer", image: IMAGE, id: 5, granted: true, retryAfterMs: 0 },
    ]);
  });

  it("joins no more trees than it may, and nothing that is no digest", () => {
    const fixture = new TreeFixture().know([0]);
    for (let number = 0; number < SEATS_MAX; number += 1) {
      fixture.step({ kind: "join", image: imageOf(number) });
    }
    assert.throws(() => fixture.step({ kind: "join", image: imageOf(SEATS_MAX) }), {
      code: "resource-exhausted",
    });
    assert.throws(() => fixture.step({ kind: "join", image: "latest" }), {
      code: "invalid-argument",
    });
  });

  it("forgets its trees when it becomes another, and joins them anew", () => {
    const fixture = new TreeFixture().know([0]);
    fixture.step({ kind: "join", image: IMAGE });
    assert.equal(fixture.agent.position(IMAGE)?.isRoot, true);
    fixture.step({ kind: "self", self: refOf(0, { boot: "cd".repeat(16) }) });
    assert.equal(fixture.agent.position(IMAGE), undefined);
    assert.deepEqual(fixture.agent.managed(), []);
    assert.deepEqual(fixture.agent.images(), [IMAGE]);
  });

  it("tells of packets that it cannot read, and of versions that it does not speak", () => {
    const fixture = new TreeFixture();
    fixture.step({
      kind: "packet",
      from: { address: refOf(1).address },
      sender: refOf(1).boot,
      content: Uint8Array.of(9, 8, 0),
    });
    const [event] = fixture.takeEvents();

    assert.match(event?.kind === "bad-packet" ? event.message : "", /speaks 1 to 1/);
  });

  it("refuses a configuration, an id or a zone that cannot be", () => {
    const options = { self: refOf(0), random: new SimRandom(1), nowMs: 0 };
    const lan = TREE_PRESETS.lan;
    for (const config of [
      { ...lan, heartbeatMs: 0 },
      { ...lan, memberTimeoutMs: 10 },
      { ...lan, slowShare: -1 },
    ]) {
      assert.throws(() => new TreeAgent({ ...options, config }), { code: "invalid-argument" });
    }
    const self = refOf(0, { zone: "a b" });
    assert.throws(() => new TreeAgent({ ...options, self, config: lan }), {
      code: "invalid-argument",
    });
  });
});
