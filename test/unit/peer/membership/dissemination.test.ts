/** What is believed of whom. The cases are those of memberlist's state tests. */
import assert from "node:assert/strict";
import type { Message } from "../../../../src/peer/membership/messages.ts";
import { SwimFixture, infoOf } from "../../../support/peer/swim-fixture.ts";

const alive = (number: number, incarnation: number, changes = {}): Message => ({
  kind: "alive",
  incarnation,
  member: infoOf(number, changes),
});
const suspect = (number: number, incarnation: number, from = 9): Message => ({
  kind: "suspect",
  incarnation,
  id: `n${number}`,
  from: `n${from}`,
});
const dead = (number: number, incarnation: number, from = 9): Message => ({
  kind: "dead",
  incarnation,
  id: `n${number}`,
  from: `n${from}`,
});
const elsewhere = { boot: "f".repeat(32), address: { host: "10.9.9.9", port: 1 } };

/** The kinds of broadcasts about a member that wait to be passed on. */
function passedOn(fixture: SwimFixture, number: number): readonly string[] {
  fixture.takeEffects();
  fixture.pass(250);
  const kinds = fixture.takeSent().flatMap(({ message }) => {
    const about = "member" in message ? message.member.id : "id" in message ? message.id : "";
    return about === `n${number}` ? [message.kind] : [];
  });
  return [...new Set(kinds)];
}

describe("An alive message", () => {
  it("makes a new member known, and is passed on", () => {
    const fixture = new SwimFixture().receive(1, alive(1, 0));
    assert.deepEqual(fixture.takeKinds(), ["joined"]);
    assert.equal(fixture.swim.presentCount, 2);
    assert.deepEqual(passedOn(fixture, 1), ["alive"]);
  });

  it("changes nothing when repeated or older", () => {
    const fixture = new SwimFixture().know(1).receive(1, alive(1, 1), alive(1, 0));
    assert.deepEqual(fixture.takeKinds(), []);
  });

  it("clears a suspicion with a higher incarnation only", () => {
    const fixture = new SwimFixture().know(3).receive(2, suspect(1, 1));
    fixture.receive(1, alive(1, 1));
    assert.equal(fixture.stateOf(1), "suspect");
    fixture.receive(1, alive(1, 2));
    assert.equal(fixture.stateOf(1), "alive");
    assert.deepEqual(fixture.takeKinds(), ["suspected", "cleared"]);
  });

  it("brings new metadata", () => {
    const meta = Uint8Array.from([1, 2]);
    const fixture = new SwimFixture().know(1).receive(1, alive(1, 2, { meta }));
    const [event] = fixture.takeEvents();
    assert.ok(event?.kind === "updated");
    assert.deepEqual([event.member.meta, event.previous.meta.length], [meta, 0]);
  });

  it("from another address under a live id is a conflict", () => {
    const fixture = new SwimFixture().know(1).receive(2, alive(1, 7, elsewhere));
    assert.deepEqual(fixture.takeKinds(), ["conflict"]);
    assert.equal(fixture.swim.get("n1")?.address.host, "10.0.0.1");
  });

  it("from another address is taken when the same boot says so", () => {
    const { address } = elsewhere;
    const fixture = new SwimFixture().know(1).receive(1, alive(1, 2, { address }));
    assert.deepEqual(fixture.takeKinds(), ["updated"]);
  });

  it("from another address takes the id of a member that left, or is dead for long", () => {
    const left = new SwimFixture().know(1).receive(1, dead(1, 1, 1));
    left.receive(2, alive(1, 0, elsewhere));
    assert.deepEqual(left.takeKinds(), ["left", "joined"]);
    const died = new SwimFixture({ deadReclaimMs: 5000 }).know(1).receive(2, dead(1, 1));
    died.receive(2, alive(1, 0, elsewhere));
    assert.deepEqual(died.takeKinds(), ["died", "conflict"]);
    died.pass(5000).takeEffects();
    died.receive(2, alive(1, 0, elsewhere));
    assert.deepEqual(died.takeKinds(), ["joined"]);
  });

  it("about this node's earlier life is refuted", () => {
    const fixture = new SwimFixture().receive(1, alive(0, 5, { boot: "e".repeat(32) }));
    assert.equal(fixture.swim.self.incarnation, 6);
    assert.deepEqual(fixture.takeKinds(), []);
  });

  it("about this node at another address is a conflict", () => {
    const fixture = new SwimFixture().receive(1, alive(0, 5, elsewhere));
    assert.deepEqual(fixture.takeKinds(), ["conflict"]);
    assert.equal(fixture.swim.self.incarnation, 0);
  });
});

describe("A suspect message", () => {
  it("about nobody, or with an older incarnation, changes nothing", () => {
    const fixture = new SwimFixture().know(1).receive(2, suspect(5, 1), suspect(1, 0));
    assert.deepEqual(fixture.takeKinds(), []);
    assert.equal(fixture.stateOf(1), "alive");
  });

  it("makes a member suspect, and is passed on", () => {
    const fixture = new SwimFixture().know(5).receive(2, suspect(1, 1));
    assert.deepEqual(fixture.takeKinds(), ["suspected"]);
    assert.deepEqual(passedOn(fixture, 1), ["suspect"]);
    assert.equal(fixture.swim.presentCount, 6);
  });

  it("ends in death when nobody refutes, sooner when others confirm", () => {
    const lasts = (...confirming: readonly number[]): number => {
      // Nothing is probed, so that all suspicion comes from outside.
      const fixture = new SwimFixture({ probeIntervalMs: 1000, gossipNodes: 0 }).know(9);
      fixture.receive(2, suspect(1, 1, 2));
      const startMs = fixture.nowMs;
      for (const from of confirming) fixture.receive(from, suspect(1, 1, from));
      while (fixture.stateOf(1) === "suspect") {
        fixture.pass(100);
        assert.ok(fixture.nowMs - startMs < 60_000, "suspect for ever");
      }
      return fixture.nowMs - startMs;
    };
    const alone = lasts();
    const twice = lasts(2, 2); // the same voice again
    const confirmed = lasts(3, 4);
    assert.ok(Math.abs(alone - 24_000) < 1000 || alone < 24_000, `${alone}`);
    assert.equal(twice, alone);
    assert.ok(confirmed <= 4100, `${confirmed}`);
    assert.ok(alone > 2 * confirmed, `${alone} ${confirmed}`);
  });

  it("about this node is refuted, and costs health", () => {
    const fixture = new SwimFixture().know(2).receive(1, suspect(0, 3));
    assert.equal(fixture.swim.self.incarnation, 4);
    assert.equal(fixture.swim.self.state, "alive");
    assert.equal(fixture.swim.healthScore, 1);
    assert.deepEqual(passedOn(fixture, 0), ["alive"]);
  });
});

describe("A dead message", () => {
  it("about nobody, older, or repeated changes nothing", () => {
    const fixture = new SwimFixture().know(1).receive(2, dead(5, 1), dead(1, 0));
    assert.deepEqual(fixture.takeKinds(), []);
    fixture.receive(2, dead(1, 1), dead(1, 1), dead(1, 9));
    assert.deepEqual(fixture.takeKinds(), ["died"]);
    assert.equal(fixture.swim.presentCount, 1);
  });

  it("is not undone by the alive message that it overrode", () => {
    const fixture = new SwimFixture().know(1).receive(2, dead(1, 1), alive(1, 1));
    assert.equal(fixture.stateOf(1), "dead");
    fixture.receive(1, alive(1, 2));
    assert.equal(fixture.stateOf(1), "alive");
  });

  it("of the member itself says that it left", () => {
    const fixture = new SwimFixture().know(1).receive(1, dead(1, 1, 1));
    assert.deepEqual(fixture.takeKinds(), ["left"]);
  });

  it("about this node is refuted, unless it leaves", () => {
    const fixture = new SwimFixture().know(1).receive(1, dead(0, 2));
    assert.equal(fixture.swim.self.incarnation, 3);
    fixture.step({ kind: "leave" }).receive(1, dead(0, 3, 0), alive(0, 9));
    assert.equal(fixture.swim.self.state, "left");
    assert.equal(fixture.swim.self.incarnation, 3);
  });
});

describe("Another's view", () => {
  it("is believed of the living and of those that left; the dead are only suspected", () => {
    const fixture = new SwimFixture().know(4);
    const record = (number: number, state: "alive" | "suspect" | "dead" | "left") => ({
      state,
      incarnation: 2,
      member: infoOf(number),
    });
    fixture.step({
      kind: "view",
      records: [
        record(1, "alive"),
        record(2, "suspect"),
        record(3, "dead"),
        record(4, "left"),
        record(5, "alive"),
        record(6, "suspect"),
        record(7, "dead"),
        record(8, "left"),
      ],
    });
    const states = [1, 2, 3, 4, 5, 6, 7, 8].map((number) => fixture.stateOf(number));
    assert.deepEqual(states.slice(0, 4), ["alive", "suspect", "suspect", "left"]);
    assert.deepEqual(states.slice(4), ["alive", "suspect", undefined, undefined]);
  });

  it("shows a member that it is called dead, so that it refutes", () => {
    const fixture = new SwimFixture().know(1);
    fixture.step({ kind: "view", records: [{ state: "dead", incarnation: 8, member: infoOf(0) }] });
    assert.equal(fixture.swim.self.incarnation, 9);
  });
});

describe("Leaving", () => {
  it("is told as often as other news, then done", () => {
    const fixture = new SwimFixture().know(5).pass(3000);
    fixture.takeEffects();
    fixture.step({ kind: "leave" }).pass(10_000);
    const effects = fixture.takeEffects();
    assert.equal(effects.filter(({ kind }) => kind === "has-left").length, 1);
    assert.equal(fixture.swim.nextMs, Infinity);
  });

  it("is done at once when nobody is there", () => {
    const fixture = new SwimFixture().step({ kind: "leave" });
    assert.deepEqual(
      fixture.takeEffects().map(({ kind }) => kind),
      ["has-left"],
    );
  });
});

describe("A member that is dead", () => {
  it("is gossiped to for a while, then only reconnected to, then forgotten", () => {
    const fixture = new SwimFixture({ reconnectTimeoutMs: 100_000 }).know(1);
    fixture.receive(1, dead(1, 1));
    fixture.pass(1000);
    assert.ok(fixture.takeSent().some(({ host }) => host === "10.0.0.1"));
    fixture.pass(40_000).takeEffects();
    fixture.step({ kind: "announce", change: { meta: Uint8Array.of(1) } }).pass(31_000);
    const effects = fixture.takeEffects();
    assert.ok(!effects.some(({ kind }) => kind === "send"));
    assert.ok(effects.some(({ kind }) => kind === "push-pull"));
    fixture.pass(100_000);
    assert.equal(fixture.swim.get("n1"), undefined);
  });
});
