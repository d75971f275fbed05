/** Probing. The cases are those of memberlist's probe tests, and Lifeguard's. */
import assert from "node:assert/strict";
import { SwimFixture, infoOf } from "../../../support/peer/swim-fixture.ts";
import type { Sent } from "../../../support/peer/swim-fixture.ts";

/** Passes time until a ping is sent, 2 s at most. */
function nextPing(fixture: SwimFixture): { readonly sent: Sent; readonly sequence: number } {
  for (let passed = 0; passed < 2000; passed += 10) {
    fixture.pass(10);
    const pings = fixture.takeSent().filter(({ message }) => message.kind === "ping");
    const [sent] = pings;
    if (sent?.message.kind === "ping") return { sent, sequence: sent.message.sequence };
  }
  throw new Error("no ping");
}

describe("A probe", () => {
  it("that is answered suspects nobody", () => {
    const fixture = new SwimFixture().know(1);
    for (let round = 0; round < 10; round += 1) {
      const { sequence } = nextPing(fixture);
      fixture.receive(1, { kind: "ack", sequence });
    }
    assert.equal(fixture.stateOf(1), "alive");
    assert.equal(fixture.swim.healthScore, 0);
  });

  it("that is silent goes through others and a stream, then suspects", () => {
    const fixture = new SwimFixture().know(6);
    const { sent } = nextPing(fixture);
    fixture.pass(490);
    assert.ok(!fixture.takeSent().some(({ message }) => message.kind === "indirect-ping"));
    fixture.pass(20);
    const effects = fixture.takeEffects();
    const streams = effects.filter(({ kind }) => kind === "stream-probe");
    assert.equal(streams.length, 1);
    const asked = effects.filter(({ kind }) => kind === "send");
    assert.equal(asked.length, 3);
    for (const effect of asked) {
      assert.ok(effect.kind === "send" && effect.to.address.host !== sent.host);
    }
    fixture.pass(500);
    assert.deepEqual(fixture.takeKinds(), ["suspected"]);
  });

  it("is saved by an ack through another member, or by the stream", () => {
    for (const way of ["ack", "stream-ack"] as const) {
      const fixture = new SwimFixture().know(6);
      const { sequence } = nextPing(fixture);
      fixture.pass(600);
      if (way === "ack") fixture.receive(5, { kind: "ack", sequence });
      else fixture.step({ kind: "stream-ack", sequence });
      fixture.takeEffects();
      fixture.pass(350);
      assert.deepEqual(fixture.takeKinds(), [], way);
    }
  });

  it("is not saved by an ack with another number", () => {
    const fixture = new SwimFixture().know(6);
    const { sequence } = nextPing(fixture);
    fixture.receive(1, { kind: "ack", sequence: (sequence + 7) % 2 ** 32 });
    fixture.pass(1010);
    assert.deepEqual(fixture.takeKinds(), ["suspected"]);
  });

  it("costs health when those that were asked are silent too, not when they say nack", () => {
    const silent = new SwimFixture().know(6);
    nextPing(silent);
    silent.pass(1010);
    assert.equal(silent.swim.healthScore, 3);
    const nacked = new SwimFixture().know(6);
    const { sequence } = nextPing(nacked);
    nacked.pass(510);
    for (let number = 1; number <= 6; number += 1)
      nacked.receive(number, { kind: "nack", sequence });
    nacked.pass(500);
    assert.equal(nacked.swim.healthScore, 0);
  });

  it("waits longer when the own health is bad, and health comes back", () => {
    const fixture = new SwimFixture().know(6);
    nextPing(fixture);
    fixture.pass(1010);
    assert.equal(fixture.swim.healthScore, 3);
    const { sequence } = nextPing(fixture);
    fixture.takeEffects();
    fixture.pass(1900);
    assert.ok(!fixture.takeSent().some(({ message }) => message.kind === "indirect-ping"));
    fixture.receive(1, { kind: "ack", sequence });
    assert.equal(fixture.swim.healthScore, 2);
  });

  it("tells a suspect member that it is one", () => {
    const fixture = new SwimFixture().know(1);
    fixture.receive(2, { kind: "suspect", incarnation: 1, id: "n1", from: "n2" });
    fixture.pass(250).takeEffects();
    for (let passed = 0; ; passed += 10) {
      assert.ok(passed < 3000, "no ping");
      fixture.pass(10);
      const sent = fixture.takeSent();
      if (!sent.some(({ message }) => message.kind === "ping")) continue;
      assert.ok(sent.some(({ message }) => message.kind === "suspect" && message.id === "n1"));
      break;
    }
  });

  it("comes to every member before it comes to one again", () => {
    const fixture = new SwimFixture().know(8);
    const round = (): readonly string[] =>
      Array.from({ length: 8 }, () => {
        const { sent, sequence } = nextPing(fixture);
        fixture.receive(1, { kind: "ack", sequence });
        return sent.host;
      });
    round(); // the ring is at a random place
    const hosts = round();
    assert.ok(new Set(hosts).size >= 7, hosts.join());
  });
});

describe("A ping", () => {
  const ping = (target: string) => ({ kind: "ping", sequence: 7, target, from: "n1" }) as const;

  it("is answered by its target only", () => {
    const fixture = new SwimFixture().receive(1, ping("n0"), ping("n5"));
    const acks = fixture.takeSent().filter(({ message }) => message.kind === "ack");
    assert.deepEqual(acks, [{ host: "10.0.0.1", message: { kind: "ack", sequence: 7 } }]);
  });

  it("carries news back", () => {
    const fixture = new SwimFixture();
    fixture.receive(2, { kind: "alive", incarnation: 0, member: infoOf(2) });
    fixture.takeEffects();
    fixture.receive(1, ping("n0"));
    const kinds = fixture.takeSent().map(({ message }) => message.kind);
    assert.deepEqual(kinds.slice(0, 1), ["ack"]);
    assert.ok(kinds.includes("alive"));
  });
});

describe("An indirect ping", () => {
  const asked = (): SwimFixture =>
    new SwimFixture().know(2).receive(1, {
      kind: "indirect-ping",
      sequence: 42,
      target: "n2",
      address: infoOf(2).address,
    });

  it("is passed on, and its ack back", () => {
    const fixture = asked();
    const sent = fixture.takeSent().find(({ message }) => message.kind === "ping");
    assert.ok(sent?.message.kind === "ping");
    assert.equal(sent.host, "10.0.0.2");
    fixture.receive(2, { kind: "ack", sequence: sent.message.sequence });
    const back = fixture.takeSent().filter(({ message }) => message.kind === "ack");
    assert.deepEqual(back, [{ host: "10.0.0.1", message: { kind: "ack", sequence: 42 } }]);
  });

  it("is answered with a nack when the target is silent", () => {
    const fixture = asked();
    fixture.takeEffects();
    fixture.pass(510);
    const nacks = fixture.takeSent().filter(({ message }) => message.kind === "nack");
    assert.deepEqual(nacks, [{ host: "10.0.0.1", message: { kind: "nack", sequence: 42 } }]);
  });

  it("is dropped when a thousand run already", () => {
    const fixture = new SwimFixture().know(2);
    for (let count = 0; count < 1500; count += 1) {
      const { address } = infoOf(2);
      fixture.receive(1, { kind: "indirect-ping", sequence: count, target: "n2", address });
    }
    const pings = fixture.takeSent().filter(({ message }) => message.kind === "ping");
    assert.equal(pings.length, 1024);
  });
});
