/**
 * Cases of memberlist's own tests that no other test here has. docs/peers.md lists them all, with
 * where each one is.
 */
import assert from "node:assert/strict";
import { DaemonError } from "../../../../src/base/errors.ts";
import { decodePacket, encodePacket } from "../../../../src/peer/membership/codec.ts";
import { infoOf, SwimFixture } from "../../../support/peer/swim-fixture.ts";

const suspect = (from: string, incarnation = 1) =>
  ({ kind: "suspect", incarnation, id: "n1", from }) as const;

describe("A suspicion (memberlist: ProbeNode_Suspect_Dogpile)", () => {
  const config = {
    ...{ probeIntervalMs: 100, probeTimeoutMs: 1, gossipIntervalMs: 0 },
    ...{ suspicionMult: 5, suspicionMaxTimeoutMult: 2 },
  };
  for (const [members, confirmations, lastsMs] of [
    [2, 0, 500],
    [3, 0, 500],
    [4, 0, 500],
    [5, 0, 1000],
    [6, 0, 1000],
    [6, 1, 750],
    [6, 2, 603],
    [6, 3, 500],
    [6, 4, 500],
  ] as const) {
    it(`lasts ${lastsMs} ms among ${members} with ${confirmations} confirmations`, () => {
      const fixture = new SwimFixture(config).know(members - 1);
      fixture.step({ kind: "packet", ...packetOf(2), messages: [suspect("n0")] });
      for (let from = 0; from < confirmations; from += 1) {
        fixture.receive(2, suspect(`other${from}`));
      }
      fixture.takeEffects();
      fixture.pass(lastsMs - 5);
      assert.equal(fixture.stateOf(1), "suspect");
      fixture.pass(10);
      assert.equal(fixture.stateOf(1), "dead");
    });
  }

  it("is over at once when confirmations come late (Suspicion_Timer_Immediate)", () => {
    const fixture = new SwimFixture(config).know(6);
    fixture.receive(2, suspect("n2")).pass(700);
    assert.equal(fixture.stateOf(1), "suspect");
    for (const from of ["n3", "n4", "n5"]) fixture.receive(3, suspect(from));
    fixture.pass(1);
    assert.equal(fixture.stateOf(1), "dead");
  });

  it("is not passed on again for the same voice (SuspectNode_DoubleSuspect)", () => {
    const fixture = new SwimFixture({ gossipIntervalMs: 200 }).know(6);
    fixture.pass(20_000);
    fixture.receive(2, suspect("n2")).receive(3, suspect("n2"));
    assert.deepEqual(fixture.takeKinds().filter((kind) => kind === "suspected").length > 0, true);
    fixture.takeEffects();
    fixture.receive(3, suspect("n2"));
    assert.deepEqual(fixture.takeEffects(), []);
  });
});

describe("What a node says of itself (memberlist: delegateMeta_Update)", () => {
  it("reaches the others as a new incarnation", () => {
    const fixture = new SwimFixture().know(3);
    fixture.pass(10_000).takeEffects();
    const meta = Uint8Array.of(1, 2, 3);
    fixture.step({ kind: "announce", change: { meta } });
    fixture.pass(500);
    const told = fixture
      .takeSent()
      .flatMap(({ message }) => (message.kind === "alive" ? [message] : []))
      .find(({ member }) => member.id === "n0");
    assert.equal(told?.incarnation, 1);
    assert.deepEqual(Uint8Array.from(told.member.meta), meta);
  });

  it("is refused when it is too long", () => {
    const change = { meta: new Uint8Array(129) };
    assert.throws(() => new SwimFixture().step({ kind: "announce", change }), DaemonError);
  });
});

describe("A packet", () => {
  it("of several pings is answered for each (HandleCompoundPing)", () => {
    const ping = { kind: "ping", target: "n0", from: "n1" } as const;
    const fixture = new SwimFixture();
    fixture.receive(1, ...[5, 6, 7].map((sequence) => ({ ...ping, sequence })));
    const acks = fixture
      .takeSent()
      .flatMap(({ message }) => (message.kind === "ack" ? [message.sequence] : []));
    assert.deepEqual(acks, [5, 6, 7]);
  });

  it("without a message says nothing, and an empty one is refused (IngestPacket_EmptyMessage)", () => {
    assert.deepEqual(decodePacket(encodePacket([])), []);
    assert.throws(() => decodePacket(new Uint8Array()), DaemonError);
  });
});

describe("Acks to a node that left (memberlist: Leave)", () => {
  it("are not given: it is gone for the others", () => {
    const fixture = new SwimFixture().know(2);
    fixture.step({ kind: "leave" }).takeEffects();
    fixture.receive(1, { kind: "ping", sequence: 1, target: "n0", from: "n1" });
    assert.ok(!fixture.takeSent().some(({ message }) => message.kind === "ack"));
  });
});

function packetOf(number: number): {
  readonly from: { readonly address: { readonly host: string; readonly port: number } };
  readonly sender: string;
} {
  const { address, id } = infoOf(number);
  return { from: { address }, sender: id };
}
