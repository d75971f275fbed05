/** Who is silent, and who is only slow. */
import assert from "node:assert/strict";
import { Reachability } from "../../../../src/peer/tree/reachability.ts";
import type { CheckReason } from "../../../../src/peer/tree/reachability.ts";
import { SimRandom } from "../../../support/peer/sim-random.ts";
import { contactOf, refOf } from "../../../support/peer/tree-samples.ts";
import { IMAGE } from "../../../support/peer/tree-fixture.ts";

const contact = contactOf(refOf(1));

class Checking {
  readonly reach = new Reachability(new SimRandom(1));
  nowMs = 0;
  #nonce = 0;

  /** After how many ms the member is found silent; it answers after `answerMs`. */
  check(answerMs: number, reason: CheckReason = "member"): number | "answered" {
    const startMs = this.nowMs;
    this.reach.check(contact, { image: IMAGE, reason, withinMs: 200 }, this.nowMs);
    for (; this.nowMs < startMs + 60_000; this.nowMs += 5) {
      const { pings: sent, verdicts } = this.reach.tick(this.nowMs);
      if (verdicts.length > 0) return this.nowMs - startMs;
      const [ping] = sent;
      if (ping !== undefined) this.#nonce = ping.nonce;
      if (this.nowMs - startMs < answerMs) continue;
      const pong = { kind: "pong", image: IMAGE, nonce: this.#nonce } as const;
      const answer = { ...pong, isManager: false, isMember: true };
      if (this.reach.pong(answer, contact.boot, this.nowMs).length > 0) return "answered";
    }
    return assert.fail("no end");
  }

  /** Nothing is checked. */
  rest(ms: number): void {
    for (const endMs = this.nowMs + ms; this.nowMs < endMs; this.nowMs += 5) {
      this.reach.tick(this.nowMs);
    }
  }
}

describe("reachability", () => {
  it("finds silent who does not answer in time", () => {
    const checking = new Checking();
    assert.equal(checking.check(Infinity), 200);
    assert.ok(checking.reach.isSilent(contact.boot));
  });

  it("waits four times as long as answers take now, and forgets that they were slow", () => {
    const checking = new Checking();
    assert.equal(checking.check(150), "answered");
    const slowMs = checking.check(Infinity);
    assert.ok(slowMs !== "answered" && slowMs >= 550 && slowMs <= 605, String(slowMs));
    checking.rest(60_000);
    assert.equal(checking.check(Infinity), 200);
  });

  it("learns from who was taken for silent and was only slow, but not without a limit", () => {
    const checking = new Checking();
    checking.check(Infinity);
    checking.rest(300);
    assert.ok(checking.reach.heard(contact.boot, checking.nowMs));
    const waitedMs = checking.check(Infinity);
    assert.ok(waitedMs !== "answered" && waitedMs > 1800 && waitedMs <= 2005, String(waitedMs));
    checking.rest(9000);
    checking.reach.heard(contact.boot, checking.nowMs);
    const longestMs = checking.check(Infinity);
    assert.ok(longestMs !== "answered" && longestMs <= 4005, String(longestMs));
  });

  it("asks on whom a short look at a root found silent", () => {
    const checking = new Checking();
    assert.equal(checking.check(Infinity, "root"), 200);
    assert.ok(!checking.reach.isSilent(contact.boot));
  });
});
