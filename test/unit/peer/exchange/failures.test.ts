import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { systemClock } from "../../../../src/base/clock.ts";
import { DaemonError, errorMessage } from "../../../../src/base/errors.ts";
import type { PeerRef } from "../../../../src/peer/peer-ref.ts";
import {
  BLOCK_BYTES,
  BLOCKS,
  BLOB,
  bytesOfBlock,
  chainOf,
  disposeAll,
  last,
  plainRegistry,
  refOf,
  runOf,
  SimNode,
} from "./sim-node.ts";
import type { SimNodeOptions } from "./sim-node.ts";

/** Room for a machine that does other things too. */
const SLACK_MS = 400;

class FakePeer implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  accepted = 0;

  constructor(onSocket: (socket: Socket) => void) {
    this.#server = createServer((socket) => {
      this.accepted += 1;
      this.#sockets.add(socket);
      socket.on("error", () => undefined);
      onSocket(socket);
    });
  }

  async listen(id: string): Promise<PeerRef> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return refOf(id, "127.0.0.1", (this.#server.address() as AddressInfo).port);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

describe("a read through the tree", () => {
  let owners: AsyncDisposable[] = [];
  afterEach(async () => {
    await disposeAll(owners);
    owners = [];
  });

  async function start(options: readonly SimNodeOptions[]): Promise<SimNode[]> {
    const nodes = await chainOf(options);
    owners.push(...nodes);
    return nodes;
  }

  /** root, n1, n2 and a reader whose parent is somebody else than n2. */
  async function withParent(peer: FakePeer): Promise<{ nodes: SimNode[]; reader: SimNode }> {
    const nodes = await start([{}, { isEager: true }, {}, { hedgeMs: 100 }]);
    owners.push(peer);
    const refs = nodes.map(({ ref }) => ref);
    const [root, n1] = refs;
    const reader = last(nodes);
    assert.ok(root !== undefined && n1 !== undefined && reader.position !== undefined);
    reader.position = { ...reader.position, parent: await peer.listen("n2"), grandparent: n1 };
    return { nodes, reader };
  }

  it("goes to the grandparent at once when the parent refuses connections", async () => {
    const peer = new FakePeer(() => undefined);
    const { reader } = await withParent(peer);
    await peer[Symbol.asyncDispose]();
    owners = owners.filter((owner) => owner !== peer);

    assert.ok((await reader.read(1)).equals(bytesOfBlock(1)));
    assert.equal(reader.counters.total.hedges, 0);
    assert.deepEqual(reader.troubles, [["n2", "refused"]]);
    // The next read asks it last, so not at all.
    assert.ok((await reader.read(2)).equals(bytesOfBlock(2)));
    assert.deepEqual(reader.troubles, [["n2", "refused"]]);
  });

  it("goes to the grandparent at once when the parent resets", async () => {
    const peer = new FakePeer((socket) => socket.resetAndDestroy());
    const { reader } = await withParent(peer);

    assert.ok((await reader.read(1)).equals(bytesOfBlock(1)));
    assert.equal(reader.counters.total.hedges, 0);
    assert.equal(reader.troubles.length, 1);
    assert.deepEqual(reader.convicted, []);
  });

  it("asks the grandparent too when the parent has been silent for 100 ms", async () => {
    const peer = new FakePeer(() => undefined);
    const { reader } = await withParent(peer);

    const startMs = systemClock.nowMs();
    assert.ok((await reader.read(1)).equals(bytesOfBlock(1)));
    const tookMs = systemClock.nowMs() - startMs;

    assert.ok(tookMs >= 99 && tookMs < 100 + SLACK_MS, `${tookMs} ms`);
    assert.deepEqual(reader.troubles, [["n2", "silent"]]);
    assert.equal(reader.counters.byPeer().get("n1")?.hedges, 1);
  });

  it("goes up to the root when parent and grandparent are silent", async () => {
    const peers = [new FakePeer(() => undefined), new FakePeer(() => undefined)];
    const nodes = await start([{}, { hedgeMs: 100 }]);
    owners.push(...peers);
    const reader = last(nodes);
    const [parent, grandparent] = await Promise.all(
      peers.map(async (peer, at) => peer.listen(`x${at}`)),
    );
    assert.ok(reader.position !== undefined && parent !== undefined && grandparent !== undefined);
    reader.position = { ...reader.position, parent, grandparent };

    const startMs = systemClock.nowMs();
    assert.ok((await reader.read(1)).equals(bytesOfBlock(1)));
    assert.ok(systemClock.nowMs() - startMs < 200 + SLACK_MS);
  });

  it("goes on at the block that is missing when the parent dies half-way", async () => {
    const nodes = await start([{}, {}, {}]);
    const [root, parent, reader] = nodes;
    assert.ok(root !== undefined && parent !== undefined && reader !== undefined);
    for (let index = 0; index < BLOCKS; index += 1) parent.held.set(index, bytesOfBlock(index));
    const open = parent.open.bind(parent);
    parent.open = async (want, options) => {
      const provided = await open(want, options);
      if (want.block !== 10 || provided === undefined) return provided;
      return {
        length: BLOCK_BYTES,
        verdict: Promise.resolve(),
        pieces: (async function* () {
          yield bytesOfBlock(10).subarray(0, 30_000);
          await sleep(50); // what was sent before has arrived
          void parent.server[Symbol.asyncDispose]();
          await new Promise(() => undefined);
        })(),
      };
    };

    const bytes = await reader.read(0, BLOCKS - 1);

    assert.ok(bytes.equals(BLOB));
    assert.ok(Math.min(...root.registryReads) >= 9, `${Math.min(...root.registryReads)}`);
    assert.deepEqual(reader.convicted, []);
  });

  it("keeps the whole blocks that were on their way when a reply is cut off", async () => {
    const nodes = await start([{}, {}, {}]);
    const [root, parent, reader] = nodes;
    assert.ok(root !== undefined && parent !== undefined && reader !== undefined);
    for (let index = 0; index < BLOCKS; index += 1) parent.held.set(index, bytesOfBlock(index));
    const open = parent.open.bind(parent);
    parent.open = async (want, options) => {
      const provided = await open(want, options);
      if (want.block !== 10 || provided === undefined) return provided;
      const verdict = Promise.reject(new DaemonError("unavailable", "lost"));
      return { length: BLOCK_BYTES, verdict, pieces: provided.pieces };
    };

    const bytes = await reader.read(0, BLOCKS - 1);

    assert.ok(bytes.equals(BLOB));
    assert.ok(Math.min(...root.registryReads) >= 10, `${Math.min(...root.registryReads)}`);
    assert.deepEqual(reader.convicted, []);
  });

  it("says that nobody has it when nobody has it", async () => {
    const nodes = await start([{}, {}, {}]);
    const [root] = nodes;
    assert.ok(root !== undefined);
    root.open = async () => undefined;

    await assert.rejects(last(nodes).read(1), { code: "unavailable" });
  });

  it("asks the root for what the parent has not got, and the parent for the rest", async () => {
    const nodes = await start([{}, {}, {}, {}]);
    const [root, n1, parent, reader] = nodes;
    assert.ok(root && n1 && parent && reader);
    for (const index of [0, 1, 2, 5, 6]) parent.held.set(index, bytesOfBlock(index));

    assert.ok((await reader.read(0, 6)).equals(BLOB.subarray(0, 7 * BLOCK_BYTES)));

    assert.deepEqual(root.registryReads, [3, 4]);
    assert.equal(n1.wanted.length, 0);
    assert.equal(reader.counters.byPeer().get("n0")?.jumps, 1);
    assert.equal(reader.counters.byPeer().get("n2")?.blocksIn, 5);
  });

  it("fetches for children what two of them asked for", async () => {
    const nodes = await start([{}, {}, {}]);
    const [root, parent, first] = nodes;
    assert.ok(root && parent && first);
    const asked: (boolean | undefined)[] = [];
    const twin = twinOf(first, "twin");
    owners.push(twin);

    await first.read(4);
    asked.push(parent.wanted.at(-1)?.mayFetch);
    await twin.read(4);
    asked.push(parent.wanted.at(-1)?.mayFetch);

    assert.deepEqual(asked, [false, true]);
    assert.ok(parent.held.has(4));
  });

  it("is refused by a member that it has passed, and goes on elsewhere", async () => {
    const nodes = await start([{}, { isEager: true }, {}]);
    const [root, parent, reader] = nodes;
    assert.ok(root && parent && reader);
    // The parent takes its own child for its parent, as it may while a tree changes.
    assert.ok(parent.position !== undefined && reader.ref !== undefined);
    parent.position = { ...parent.position, parent: reader.ref };

    assert.ok((await reader.read(7)).equals(bytesOfBlock(7)));
    assert.deepEqual([...reader.convicted, ...parent.convicted], []);
  });

  it("does not wait in a circle of two that ask on their own account", async () => {
    const nodes = await start([{}, { isEager: true }, { isEager: true }]);
    const [root, one, other] = nodes;
    assert.ok(root && one?.position && other?.position && one.ref && other.ref);
    one.position = { ...one.position, parent: other.ref };
    other.position = { ...other.position, parent: one.ref };

    one.fetch(8);
    other.fetch(8);
    const [a, b] = await Promise.all([one.read(9), other.read(9)]);

    assert.ok(a.equals(bytesOfBlock(9)) && b.equals(bytesOfBlock(9)));
    await untilHeld(one, 8);
    await untilHeld(other, 8);
  });

  it("has its parent get a block when the root is gone, up to the root's child", async () => {
    const nodes = await start([{}, { registry: plainRegistry }, {}, {}]);
    const [root, child, middle] = nodes;
    assert.ok(root !== undefined && child !== undefined && middle !== undefined);
    await root[Symbol.asyncDispose]();

    assert.ok((await last(nodes).read(3)).equals(bytesOfBlock(3)));
    assert.deepEqual(child.registryReads, [3]);
    assert.deepEqual([...middle.held.keys()], [3]);
  });

  it("refuses epochs that are over", async () => {
    const nodes = await start([{}, {}]);
    const [root, reader] = nodes;
    assert.ok(root?.position && reader?.position);
    root.position = { ...root.position, epoch: { counter: 10, manager: "manager" } };

    await assert.rejects(reader.read(1), (error) => {
      assert.match(errorMessage(error), /epoch 3 of manager is not this tree's/);
      return true;
    });
    assert.deepEqual(reader.convicted, []);
  });

  it("survives a parent whose blocks have another length here", async () => {
    const nodes = await start([{}, {}, {}]);
    const [, parent, reader] = nodes;
    assert.ok(parent && reader);
    parent.open = async () => ({
      length: 5,
      pieces: (async function* () {
        yield Buffer.alloc(5);
      })(),
      verdict: Promise.resolve(),
    });

    assert.ok((await reader.read(2)).equals(bytesOfBlock(2)));
  });

  it("ends runs with a range that is not its blocks' before anything is sent", async () => {
    const [, reader] = await start([{}, {}]);
    assert.ok(reader !== undefined);
    const run = { ...runOf(1), range: { start: 5, end: 9 } };
    const signal = new AbortController().signal;
    await assert.rejects(reader.source.fetch(run, { signal, priority: 0 }), { code: "internal" });
  });
});

function twinOf(node: SimNode, id: string): SimNode {
  const twin = new SimNode(id);
  twin.position = node.position;
  return twin;
}

async function untilHeld(node: SimNode, index: number): Promise<void> {
  for (let turn = 0; turn < 200 && !node.held.has(index); turn += 1) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.ok(node.held.has(index), `${node.id} never got block ${index}`);
}
