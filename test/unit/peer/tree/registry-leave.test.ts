/** Which members may read the registry in their root's place. */
import assert from "node:assert/strict";
import { IMAGE, manager, numbers } from "../../../support/peer/tree-fixture.ts";
import type { TreeFixture } from "../../../support/peer/tree-fixture.ts";

describe("a manager that is asked for a registry token", () => {
  const config = { registryBytesPerSecond: 1000, registryBurstBytes: 2000 };
  const ask = (fixture: TreeFixture, number: number, bytes: number): boolean | undefined => {
    fixture.receive(number, { kind: "token", image: IMAGE, nonce: 1, bytes });
    return fixture.take("token-answer")[0]?.message.granted;
  };
  const passAnswered = (fixture: TreeFixture, ms: number): void => {
    for (let passed = 0; passed < ms; passed += 10) {
      for (const { to, message } of fixture.pass(10).take("ping")) {
        const pong = { kind: "pong", image: IMAGE, nonce: message.nonce } as const;
        fixture.receive(to, { ...pong, isManager: false, isMember: true });
      }
    }
  };

  it("gives it to the root always, and to nobody else while the root answers", () => {
    const fixture = manager(numbers(3), config);
    assert.equal(ask(fixture, 1, 1e9), true);
    assert.equal(ask(fixture, 2, 1), false);
    for (let passed = 0; passed < 2000; passed += 120) {
      passAnswered(fixture, 120);
      assert.equal(ask(fixture, 2, 1), false);
    }
  });

  it("gives it from a small budget as soon as the root is silent", () => {
    const fixture = manager(numbers(3), config);
    assert.equal(ask(fixture, 2, 2000), false);
    fixture.pass(120);
    assert.equal(ask(fixture, 2, 2000), true);
    assert.equal(ask(fixture, 3, 1), false);
    fixture.pass(700);
    assert.equal(ask(fixture, 3, 500), true);
    assert.ok("n1" in fixture.parents(), "it is out only after longer silence");
  });

  it("gives it in the end to one whose root answers others only", () => {
    const fixture = manager(numbers(3), config);
    let waitedMs = 0;
    for (; waitedMs < 10_000 && ask(fixture, 2, 1000) === false; waitedMs += 120) {
      passAnswered(fixture, 120);
    }
    assert.ok(waitedMs >= 3000 && waitedMs < 3500, String(waitedMs));
  });
});
