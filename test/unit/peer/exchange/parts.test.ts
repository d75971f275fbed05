import assert from "node:assert/strict";
import { silentLogger } from "../../../../src/base/log.ts";
import { ExchangeCounters } from "../../../../src/peer/exchange/counters.ts";
import { EpochBook } from "../../../../src/peer/exchange/epochs.ts";
import { FrameDecoder, FRAME, encodeFrame } from "../../../../src/peer/exchange/frames.ts";
import { PeerHealth } from "../../../../src/peer/exchange/health.ts";
import { clientHostsToml, mirrorHostsToml } from "../../../../src/peer/exchange/hosts-toml.ts";
import { Lane } from "../../../../src/peer/exchange/lane.ts";
import { MissBook } from "../../../../src/peer/exchange/miss-book.ts";
import { rungsOf } from "../../../../src/peer/exchange/position.ts";
import type { TreePosition } from "../../../../src/peer/exchange/position.ts";
import { UploadLimiter } from "../../../../src/peer/exchange/upload.ts";
import { WaitBook } from "../../../../src/peer/exchange/wait-book.ts";
import { FakeClock } from "../../../support/block/fake-clock.ts";
import { refOf } from "./sim-node.ts";

const signal = new AbortController().signal;
const [a, b, c] = ["a", "b", "c"].map((id) => refOf(id, "127.0.0.1", 1));

function positionOf(change: Partial<TreePosition> = {}): TreePosition {
  assert.ok(a && b && c);
  const epoch = { counter: 5, manager: "m" };
  return { epoch, depth: 2, parent: a, grandparent: b, root: c, isRoot: false, ...change };
}

describe("the frame decoder", () => {
  it("gives the same frames however they are cut", () => {
    const bytes = Buffer.concat([
      encodeFrame(FRAME.tick, Buffer.from("\u0001a")),
      encodeFrame(FRAME.data, Buffer.from("0123456789")),
      encodeFrame(FRAME.data, Buffer.alloc(0)),
      encodeFrame(FRAME.done, Buffer.alloc(0)),
    ]);
    for (let size = 1; size <= bytes.length; size += 1) {
      const seen: string[] = [];
      let data = "";
      const decoder = new FrameDecoder({
        onFrame: (type, payload) => seen.push(`${type}:${payload.toString("latin1")}`),
        onData: (piece) => (data += piece.toString()),
      });
      for (let at = 0; at < bytes.length; at += size) decoder.push(bytes.subarray(at, at + size));
      assert.deepEqual([seen, data], [["3:\u0001a", "9:"], "0123456789"]);
      assert.ok(decoder.isBetweenFrames);
    }
  });
});

describe("the ladder", () => {
  it("is parent, grandparent, root, each once and never ourselves", () => {
    const ids = (position: TreePosition): string[] => rungsOf(position, "self").map(({ id }) => id);
    assert.ok(a && c);
    assert.deepEqual(ids(positionOf()), ["a", "b", "c"]);
    assert.deepEqual(ids(positionOf({ grandparent: c })), ["a", "c"]);
    assert.deepEqual(ids(positionOf({ parent: c, grandparent: undefined })), ["c"]);
    assert.deepEqual(ids(positionOf({ isRoot: true })), []);
    assert.deepEqual(
      rungsOf(positionOf(), "a").map(({ id }) => id),
      ["b", "c"],
    );
  });
});

describe("a lane to a peer", () => {
  it("lets two requests flow, and others when those wait", async () => {
    const lane = new Lane();
    const first = await lane.enter(0, { signal });
    await lane.enter(0, { signal });
    let hasThird = false;
    const third = lane.enter(0, { signal }).then((slot) => {
      hasThird = true;
      return slot;
    });
    await Promise.resolve();
    assert.equal(hasThird, false);
    first.park();
    await third;
    first.unpark();
    assert.deepEqual(lane.counts, { flowing: 3, parked: 0, queued: 0 });
    first.release();
    first.release();
    assert.equal(lane.counts.flowing, 2);
  });

  it("serves by priority, and forgets who left", async () => {
    const lane = new Lane();
    const held = [await lane.enter(3, { signal }), await lane.enter(3, { signal })];
    const order: string[] = [];
    const leaver = new AbortController();
    const gone = lane.enter(1, { signal: leaver.signal });
    const waits = [
      lane.enter(3, { signal }).then(() => order.push("fill")),
      lane.enter(2, { signal }).then(() => order.push("prefetch")),
    ];
    leaver.abort();
    await assert.rejects(gone, { code: "canceled" });
    for (const slot of held) slot.release();
    await Promise.all(waits);
    assert.deepEqual(order, ["prefetch", "fill"]);
    assert.equal(lane.counts.queued, 0);
  });
});

describe("the book of waits", () => {
  it("knows whom we wait for, and forgets", () => {
    const book = new WaitBook();
    const key = WaitBook.blockKey("layer", 7);
    const leaveA = book.ask(key, "a");
    book.heard(key, "a", ["r", "x"]);
    assert.deepEqual(book.waitsFor(key), ["a", "r", "x"]);
    assert.ok(book.isWaitingFor(key, "a") && book.isWaitingFor(key, "x"));
    const leaveB = book.ask(key, "b");
    assert.deepEqual(book.waitsFor(key), ["b"]);
    assert.ok(!book.isWaitingFor(key, "a")); // b may answer
    const leaveChild = book.enter(key, ["q", "child"]);
    assert.deepEqual(book.pathOf(key), ["q", "child"]);
    assert.ok(book.isWaitingHere(key, "q") && !book.isWaitingHere(key, "a"));
    for (const leave of [leaveA, leaveB, leaveChild]) leave();
    assert.equal(book.size, 0);
  });
});

describe("the epochs of a tree", () => {
  it("are known while they are current, for five minutes after, and when they are next", async () => {
    const clock = new FakeClock();
    let position: TreePosition | undefined = positionOf();
    const book = new EpochBook(() => position, clock);
    const epoch = (counter: number, manager = "m") => ({ counter, manager });
    assert.equal(book.check("i", epoch(5)), "known");
    assert.equal(book.check("i", epoch(6, "x")), "known");
    assert.equal(book.check("i", epoch(4)), "known");
    assert.equal(book.check("i", epoch(3)), "unknown");
    position = positionOf({ epoch: epoch(9) });
    assert.equal(book.check("i", epoch(5)), "known");
    assert.equal(book.check("i", epoch(7)), "known", "its child may not have heard yet");
    await clock.advance(10_001);
    assert.equal(book.check("i", epoch(7)), "unknown");
    assert.equal(book.check("i", epoch(5)), "known");
    await clock.advance(5 * 60_000 + 1);
    assert.equal(book.check("i", epoch(5)), "unknown");
    position = undefined;
    assert.equal(book.check("i", epoch(7)), "none");
  });
});

describe("the health of peers", () => {
  it("asks a failed one last for a while that grows, a convicted one not for ten minutes", async () => {
    const clock = new FakeClock();
    const counters = new ExchangeCounters();
    const convicted: string[] = [];
    const health = new PeerHealth({
      clock,
      counters,
      logger: silentLogger,
      onConvicted: (id) => convicted.push(id),
    });
    health.failed("i", "a", "reset");
    assert.ok(health.isCooling("a"));
    await clock.advance(1001);
    assert.ok(!health.isCooling("a"));
    health.failed("i", "a", "silent");
    await clock.advance(1001);
    assert.ok(health.isCooling("a"));
    health.good("a");
    assert.ok(!health.isCooling("a"));

    health.convict("i", "b", "wrong bytes");
    health.convict("i", "b", "again");
    assert.deepEqual(convicted, ["b"]);
    await clock.advance(10 * 60_000 - 1);
    assert.ok(health.isConvicted("b"));
    await clock.advance(2);
    assert.ok(!health.isConvicted("b"));
    assert.equal(counters.byPeer().get("b")?.convictions, 2);
  });
});

describe("misses", () => {
  it("become wanted when a second child asks", () => {
    const book = new MissBook();
    assert.ok(!book.isWantedByOthers("k", "a"));
    book.note("k", "a");
    assert.ok(!book.isWantedByOthers("k", "a"));
    assert.ok(book.isWantedByOthers("k", "b"));
  });
});

describe("the upload limit", () => {
  it("keeps to its rate, and gives readers what bulk has to leave", async () => {
    const clock = new FakeClock();
    const limiter = new UploadLimiter(clock, { bytesPerSecond: 10_000_000 });
    assert.equal(limiter.delayMs(2), 0);
    limiter.spend(400_000);
    assert.equal(limiter.delayMs(0), 0);
    assert.ok(limiter.delayMs(2) > 0);
    limiter.spend(200_000);
    const waitMs = limiter.delayMs(0);
    assert.ok(waitMs > 0 && waitMs <= 20);
    await clock.advance(waitMs);
    assert.equal(limiter.delayMs(0), 0);
  });

  it("lets bulk give way to a reader, for a while at a time", async () => {
    const clock = new FakeClock();
    const limiter = new UploadLimiter(clock, {});
    const end = limiter.beginReader();
    assert.equal(limiter.delayMs(2), 50);
    assert.equal(limiter.delayMs(0), 0);
    await clock.advance(60);
    assert.equal(limiter.delayMs(2), 0);
    await clock.advance(50);
    assert.ok(limiter.delayMs(2) > 0);
    let wakes = 0;
    limiter.whenNoReader(() => (wakes += 1));
    limiter.whenNoReader(() => (wakes += 10))();
    const endOther = limiter.beginReader();
    end();
    end();
    assert.equal(wakes, 0);
    endOther();
    assert.equal(wakes, 1);
    assert.equal(limiter.delayMs(2), 0);
  });
});

describe("hosts.toml", () => {
  it("names the node, its files, and where misses go", () => {
    const files = { ca: "/e/ca.crt", cert: '/e/"c".cert', key: "/e/c.key" };
    assert.equal(
      clientHostsToml({ url: "https://n:1", upstream: "https://registry-1.docker.io", files }),
      `server = "https://registry-1.docker.io"

[host."https://n:1"]
  capabilities = ["pull", "resolve"]
  ca = "/e/ca.crt"
  client = [["/e/\\"c\\".cert", "/e/c.key"]]
`,
    );
    assert.equal(
      mirrorHostsToml({ url: "http://127.0.0.1:5000" }),
      `[host."http://127.0.0.1:5000"]\n  capabilities = ["pull", "resolve"]\n`,
    );
  });
});
