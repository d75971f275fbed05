import assert from "node:assert/strict";
import { DaemonError } from "../../../../src/base/errors.ts";
import type { MemberInfo } from "../../../../src/peer/membership/member.ts";
import {
  decodeGreeting,
  encodeGreeting,
  HELLO_BYTES,
} from "../../../../src/peer/transport/greeting-codec.ts";
import type { Hello, Welcome } from "../../../../src/peer/transport/greeting-codec.ts";
import {
  Greeting,
  GREETINGS_MAX,
  WAITING_BYTES_MAX,
  WAITING_PACKETS_MAX,
  WELCOMES_PER_SECOND_MAX,
} from "../../../../src/peer/transport/greeting.ts";
import type { GreetingEffect } from "../../../../src/peer/transport/greeting.ts";
import { infoOf } from "../../../support/peer/swim-fixture.ts";
import { SimRandom } from "../../../support/peer/sim-random.ts";

const { address, boot } = infoOf(1);
const OTHER_BOOT = "f".repeat(32);
const CONTENT = Uint8Array.of(1, 2, 3);
const WALL_MS = 1_700_000_000_000;

function at(nowMs: number, isAsking = false) {
  return { nowMs, wallMs: WALL_MS + nowMs, isAsking };
}

function make(): Greeting {
  return new Greeting({ random: new SimRandom(1), versions: { lowest: 1, highest: 1 } });
}

function helloOf(effects: readonly GreetingEffect[]): Hello {
  const [effect] = effects;
  assert.equal(effect?.kind, "hello");
  const hello = decodeGreeting(effect.content);
  assert.equal(hello.kind, "hello");
  return hello;
}

function welcomeTo(hello: Hello, member: MemberInfo = infoOf(1)): Welcome {
  const { nonce } = hello;
  return { kind: "welcome", version: 1, nonce, wallMs: WALL_MS, incarnation: 3, member };
}

describe("A packet to a stranger", () => {
  it("waits for the welcome that tells its boot", () => {
    const greeting = make();
    const hello = helloOf(greeting.send({ address }, CONTENT, at(0)));
    const answer = greeting.onWelcome(welcomeTo(hello), boot, 8);
    assert.deepEqual(answer?.effects, [{ kind: "packet", to: address, boot, content: CONTENT }]);
    assert.equal(answer.greeted.roundTripMs, 8);
    assert.equal(answer.greeted.clockAheadMs, -4);
    assert.deepEqual(greeting.send({ address }, CONTENT, at(9)), [
      { kind: "packet", to: address, boot, content: CONTENT },
    ]);
    assert.equal(greeting.pending, 0);
    assert.equal(greeting.waitingBytes, 0);
  });

  it("goes out when gossip or a packet tells the boot first", () => {
    const greeting = make();
    greeting.send({ address }, CONTENT, at(0));
    assert.deepEqual(greeting.learn(address, boot), [
      { kind: "packet", to: address, boot, content: CONTENT },
    ]);
  });

  it("asks once for many, keeps sixteen of them, and a bounded number of bytes", () => {
    const greeting = make();
    for (let count = 0; count < 100; count += 1) greeting.send({ address }, CONTENT, at(0));
    assert.equal(greeting.pending, 1);
    assert.equal(greeting.waitingBytes, 3 * WAITING_PACKETS_MAX);
    assert.equal(greeting.dropped, 100 - WAITING_PACKETS_MAX);
    const content = new Uint8Array(1100);
    for (let port = 1; port < 6000; port += 1) {
      greeting.send({ address: { host: "10.9.9.9", port } }, content, at(0));
    }
    assert.ok(greeting.waitingBytes <= WAITING_BYTES_MAX);
    assert.equal(greeting.pending, GREETINGS_MAX);
  });

  it("is given up when nobody answers six hellos", () => {
    const greeting = make();
    let hellos = 1;
    let unanswered = 0;
    greeting.send({ address }, CONTENT, at(0));
    for (let nowMs = 0; nowMs < 20_000; nowMs += 50) {
      if (nowMs < greeting.nextMs) continue;
      for (const effect of greeting.tick(at(nowMs))) {
        if (effect.kind === "hello") hellos += 1;
        if (effect.kind === "unanswered") unanswered += 1;
      }
    }
    assert.deepEqual([hellos, unanswered, greeting.pending, greeting.dropped], [6, 1, 0, 1]);
    assert.equal(greeting.nextMs, Infinity);
    assert.equal(greeting.waitingBytes, 0);
  });

  it("goes to the boot that was told along, when nothing else is known", () => {
    assert.deepEqual(make().send({ address, boot }, CONTENT, at(0)), [
      { kind: "packet", to: address, boot, content: CONTENT },
    ]);
  });
});

describe("A peer that started again", () => {
  it("is greeted when a packet that has to be answered is not", () => {
    const greeting = make();
    greeting.learn(address, boot);
    greeting.send({ address, boot }, CONTENT, at(0, true));
    assert.equal(greeting.nextMs, 400);
    const hello = helloOf(greeting.tick(at(400)));
    greeting.onWelcome(welcomeTo(hello, infoOf(1, { boot: OTHER_BOOT })), OTHER_BOOT, 401);
    const [effect] = greeting.send({ address, boot }, CONTENT, at(402));
    assert.ok(effect?.kind === "packet" && effect.boot === OTHER_BOOT);
  });

  it("is not greeted when it answers, nor when nothing was to be answered", () => {
    const greeting = make();
    greeting.learn(address, boot);
    greeting.send({ address }, CONTENT, at(0, true));
    greeting.heard(address, boot);
    greeting.send({ address }, CONTENT, at(1, false));
    assert.equal(greeting.nextMs, Infinity);
    assert.deepEqual(greeting.tick(at(10_000)), []);
  });
});

describe("A welcome", () => {
  it("to no hello of ours, or by another than it says, changes nothing", () => {
    const greeting = make();
    const hello = helloOf(greeting.greet(address, at(0)));
    const wrong = { ...welcomeTo(hello), nonce: "00".repeat(8) };
    assert.equal(greeting.onWelcome(wrong, boot, 1), undefined);
    assert.equal(greeting.onWelcome(welcomeTo(hello), OTHER_BOOT, 1), undefined);
    assert.equal(greeting.bootAt(address), undefined);
    assert.ok(greeting.onWelcome(welcomeTo(hello), boot, 1) !== undefined);
    assert.equal(greeting.onWelcome(welcomeTo(hello), boot, 1), undefined, "a second time");
  });

  it("is never longer than the hello", () => {
    const member = infoOf(1, {
      id: "x".repeat(253),
      address: { host: "fd00:1:2:3:4:5:6:7", port: 7411 },
      meta: new Uint8Array(128),
    });
    const hello = helloOf(make().greet(address, at(0)));
    assert.ok(encodeGreeting(welcomeTo(hello, member)).length <= HELLO_BYTES);
    assert.equal(encodeGreeting(hello).length, HELLO_BYTES);
  });

  it("is given a bounded number of times in a second", () => {
    const greeting = make();
    let given = 0;
    for (let count = 0; count < 30_000; count += 1) given += Number(greeting.mayWelcome(500));
    assert.equal(given, WELCOMES_PER_SECOND_MAX);
    assert.ok(greeting.mayWelcome(1500));
  });

  it("for an earlier boot of this node is not waited for", () => {
    const greeting = make();
    greeting.send({ address }, CONTENT, at(0));
    greeting.restart();
    assert.deepEqual([greeting.pending, greeting.waitingBytes, greeting.dropped], [0, 0, 1]);
  });
});

describe("Greetings as bytes", () => {
  const hello = helloOf(make().greet(address, at(0)));

  it("read back as written", () => {
    for (const message of [hello, welcomeTo(hello)]) {
      assert.deepEqual(decodeGreeting(encodeGreeting(message)), message);
    }
  });

  it("skip what a later version adds behind a welcome", () => {
    const longer = Uint8Array.of(...encodeGreeting(welcomeTo(hello)), 1, 2, 3);
    assert.deepEqual(decodeGreeting(longer), welcomeTo(hello));
  });

  it("are refused when cut, too long or unknown", () => {
    const welcome = encodeGreeting(welcomeTo(hello));
    const broken = [
      ...Array.from(welcome, (_, length) => welcome.subarray(0, length)),
      Uint8Array.of(...welcome, ...new Uint8Array(HELLO_BYTES)),
      encodeGreeting(hello).subarray(1),
      encodeGreeting(hello).subarray(0, -1),
      new Uint8Array(HELLO_BYTES + 1).fill(1),
      Uint8Array.of(9),
    ];
    for (const bytes of broken) {
      assert.throws(() => decodeGreeting(bytes), DaemonError, Buffer.from(bytes).toString("hex"));
    }
  });
});
