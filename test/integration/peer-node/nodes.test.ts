/** Nodes with real sockets on loopback, in this thread and in workers. */
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../../src/base/clock.ts";
import type { Clock } from "../../../src/base/clock.ts";
import { DaemonError } from "../../../src/base/errors.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { decodeView, MEMBERSHIP_PRESETS } from "../../../src/peer/membership/index.ts";
import { noStreams, PEER_NODE_DEFAULTS, WorkerPeerNode } from "../../../src/peer/node/index.ts";
import type { PeerNode, PeerNodeConfig, Streams } from "../../../src/peer/node/index.ts";
import { makeTree } from "../../../src/peer/node/tree-port.ts";
import { FLEET_KEY, NodeFleet, textOf } from "../../support/peer/node-fleet.ts";

const { signal } = new AbortController();
const membership = MEMBERSHIP_PRESETS.local;
const IMAGE = `sha256:${"ab".repeat(32)}`;

/** What waits for seconds waits for hundredths. */
const HASTY: Clock = {
  ...systemClock,
  sleep: (delayMs, options) => systemClock.sleep(delayMs / 100, options),
};

async function until(holds: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (let tries = 0; tries < 300; tries += 1) {
    if (await holds()) return;
    await systemClock.sleep(20, { signal });
  }
  assert.fail(what);
}

async function presentIn(node: PeerNode): Promise<number> {
  const { members } = await node.members();
  return members.filter(({ state }) => state === "alive").length;
}

describe("Nodes on loopback", () => {
  let fleet: NodeFleet;

  beforeEach(async () => {
    fleet = await NodeFleet.open();
  });

  afterEach(async () => {
    await fleet[Symbol.asyncDispose]();
  });

  it("find each other, put each other into a tree, and leave", async () => {
    const one = await fleet.add("one", [], { membership }, { makeTree });
    const seed = textOf(one.self.address);
    const two = await fleet.add("two", [seed], { membership }, { makeTree });
    await until(() => one.presentCount === 2 && two.presentCount === 2, "views differ");
    one.join(IMAGE);
    two.join(IMAGE);
    await until(() => two.position(IMAGE)?.size === 2, "no tree of two");
    const roots = [one, two].filter((node) => node.position(IMAGE)?.isRoot === true);
    assert.equal(roots.length, 1);
    assert.equal((await two.trees()).memberOf.length, 1);
    await two[Symbol.asyncDispose]();
    await until(async () => {
      const { members } = await one.members();
      return members.find(({ id }) => id === "two")?.state === "left";
    }, "it has not left");
  });

  it("take a new key from the file while they run", async () => {
    const folder = await mkdtemp(join(tmpdir(), "faasnet-keys-"));
    try {
      const file = join(folder, "keys");
      await writeFile(file, Buffer.from(FLEET_KEY).toString("hex"), { mode: 0o600 });
      const one = await fleet.add("one", [], { membership });
      const seeds = [textOf(one.self.address)];
      const two = await fleet.add("two", seeds, { membership, keys: { file } }, { clock: HASTY });
      await until(() => two.presentCount === 2, "not joined");
      assert.equal((await two.members()).findings.length, 0);
      await writeFile(file, "no key");
      const findings = async (): Promise<readonly string[]> =>
        (await two.members()).findings.map(({ kind }) => kind);
      await until(async () => (await findings()).includes("key-file"), "a bad file is not named");
      await writeFile(file, Buffer.alloc(32, 9).toString("hex"));
      await until(async () => (await findings()).includes("wrong-key"), "the key is not changed");
      await assert.rejects(
        fleet.add("three", [], { keys: { file: `${file}x` } }),
        /cluster key file/,
      );
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it("find each other over IPv6, and an IPv4 node finds one that listens for both", async () => {
    const bind = (host: string) => ({ membership, bind: { host, port: 0 } });
    const one = await fleet.add("one", [], bind("::1"));
    const two = await fleet.add("two", [`[::1]:${one.self.address.port}`], bind("::1"));
    await until(() => one.presentCount === 2 && two.presentCount === 2, "not joined over IPv6");
    const config = { ...bind("::"), advertise: { host: "127.0.0.1" } };
    const both = await fleet.add("both", [], config);
    const four = await fleet.add("four", [`127.0.0.1:${both.self.address.port}`], { membership });
    await until(() => both.presentCount === 2 && four.presentCount === 2, "not joined");
  });

  it("say what they cannot be", async () => {
    const one = await fleet.add("one", []);
    const code = (expected: string) => (error: unknown) =>
      error instanceof DaemonError && error.code === expected;
    await assert.rejects(fleet.add("a b", []), code("invalid-argument"));
    await assert.rejects(fleet.add("two", ["a b"]), code("invalid-argument"));
    await assert.rejects(fleet.add("two", [], { zone: "a b" }), code("invalid-argument"));
    await assert.rejects(
      fleet.add("two", [], { advertise: { host: "0.0.0.0" } }),
      code("invalid-argument"),
    );
    const { port } = one.self.address;
    const bind = { host: "127.0.0.1", port };
    await assert.rejects(fleet.add("two", [], { bind }), code("unavailable"));
  });

  it("advertise the address that a seed is reached from, or the one they are told to", async () => {
    const one = await fleet.add("one", []);
    const bind = { host: "0.0.0.0", port: 0 };
    const two = await fleet.add("two", [textOf(one.self.address)], { bind });
    assert.equal(two.self.address.host, "127.0.0.1");
    const advertise = { host: "192.0.2.1", port: 9 };
    const three = await fleet.add("three", [], { bind, advertise });
    assert.deepEqual(three.self.address, advertise);
  });
});

describe("A node in a worker", () => {
  it("does what one in this thread does", async () => {
    await using fleet = await NodeFleet.open();
    const one = await fleet.add("one", [], { membership }, { makeTree });
    const config: PeerNodeConfig = {
      ...PEER_NODE_DEFAULTS,
      ...{ id: "worker", bind: { host: "127.0.0.1", port: 0 }, membership },
      seeds: [textOf(one.self.address)],
      exchangePort: fleet.streams.port,
      keys: { secrets: [FLEET_KEY] },
    };
    const options = { config, log: silentLogger, logLevel: "warn", signal } as const;
    const streams: Streams = fleet.streams;
    await using worker = await WorkerPeerNode.start({ ...options, streams });
    fleet.streams.nodes.set("worker", worker);
    assert.equal(worker.self.id, "worker");
    await until(async () => (await presentIn(worker)) === 2, "the worker is alone");
    await until(() => one.presentCount === 2, "the worker is not known");
    const heard: string[] = [];
    worker.onPosition((image, position) => {
      heard.push(`${image} ${position === undefined ? "none" : "some"}`);
    });
    one.join(IMAGE);
    worker.join(IMAGE);
    worker.join("no digest");
    worker.held(IMAGE, 3);
    await until(() => worker.position(IMAGE)?.size === 2, "no tree of two");
    assert.ok(heard.includes(`${IMAGE} some`));
    const answer = await worker.onPushPull(Uint8Array.of(1, 0, 0, 0, 0));
    assert.equal(decodeView(answer).length, 2);
    await assert.rejects(worker.onPushPull(Uint8Array.of(9)), DaemonError);
    assert.equal((await worker.trees()).memberOf.length, 1);
    const { members } = await worker.members();
    assert.equal(members.find(({ id }) => id === "worker")?.isSelf, true);
    worker.leave(IMAGE);
    await until(() => worker.position(IMAGE) === undefined, "it is still in the tree");
    await worker[Symbol.asyncDispose]();
    await assert.rejects(worker.members(), /not running/);
    assert.throws(() => worker.self, /not running/);
  });

  it("that ends by itself is started again, and joins its trees anew", async () => {
    const config: PeerNodeConfig = {
      ...PEER_NODE_DEFAULTS,
      ...{ id: "a", bind: { host: "127.0.0.1", port: 0 }, keys: { secrets: [FLEET_KEY] } },
    };
    const events: string[] = [];
    const log = { ...silentLogger, error: (event: string) => events.push(event) };
    const program = new URL("../../support/peer/crashing-worker.js", import.meta.url);
    await using node = await WorkerPeerNode.start({
      ...{ config, streams: noStreams, log, logLevel: "warn", signal, program },
    });
    let joined = 0;
    node.onPosition(() => (joined += 1));
    node.join(IMAGE);
    await until(() => joined === 1, "not joined");
    const asked = node.members();
    node.held(IMAGE, 1);
    await assert.rejects(asked, /thread ended/);
    assert.throws(() => node.self, /not running/);
    assert.equal(joined, 2, "the position is gone");
    await until(() => joined === 3, "not joined again");
    assert.equal(node.self.id, "a");
    assert.deepEqual(events, ["peer-worker", "peer-worker-ended"]);
  });

  it("says why it does not start", async () => {
    const config: PeerNodeConfig = {
      ...PEER_NODE_DEFAULTS,
      ...{ id: "bad id", bind: { host: "127.0.0.1", port: 0 }, keys: { secrets: [FLEET_KEY] } },
    };
    const streams = { pushPull: async () => new Uint8Array(), probe: async () => undefined };
    await assert.rejects(
      WorkerPeerNode.start({ config, streams, log: silentLogger, logLevel: "warn", signal }),
      (error: unknown) => error instanceof DaemonError && error.code === "invalid-argument",
    );
  });
});
