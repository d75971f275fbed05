import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { request } from "node:https";
import { setTimeout as sleep } from "node:timers/promises";
import { systemRandom } from "../../../../src/base/random.ts";
import { FRAME, FrameDecoder } from "../../../../src/peer/exchange/frames.ts";
import { encodeBlocksRequest } from "../../../../src/peer/exchange/protocol.ts";
import { Identity } from "../../../../src/peer/transport/identity.ts";
import { BLOB_DIGEST, EPOCH, IMAGE, LAYER, RING, SimNode } from "./sim-node.ts";

const MIB = 1024 * 1024;
const BYTES = 24 * MIB;
const PIECE_BYTES = MIB / 4;

describe("a child that does not read", () => {
  it("holds nobody back, and gets everything when it reads", async () => {
    const node = new SimNode("n0");
    const { exchangePort } = await node.listen();
    const open = (): Promise<IncomingMessage> => ask(exchangePort);
    let iterations = 0;
    let following = 0;
    node.open = async () => ({
      length: BYTES,
      verdict: Promise.resolve(),
      pieces: (async function* () {
        iterations += 1;
        following += 1;
        try {
          for (let at = 0; at < BYTES; at += PIECE_BYTES) {
            yield Buffer.alloc(PIECE_BYTES, at / PIECE_BYTES);
            await sleep(0);
          }
        } finally {
          following -= 1;
        }
      })(),
    });
    try {
      const slow = await open();
      const digest = await read(await open());
      assert.equal(digest, expected());
      // It was let go of, rather than kept up with: two iterations so far, none goes on.
      for (let turn = 0; turn < 300 && following > 0; turn += 1) await sleep(10);
      assert.deepEqual([iterations, following], [2, 0]);

      assert.equal(await read(slow), expected());
      assert.equal(iterations, 3);
      assert.equal(node.counters.total.fellBehind, 1);
    } finally {
      await node[Symbol.asyncDispose]();
    }
  });
});

function expected(): string {
  const hash = createHash("sha256");
  for (let at = 0; at < BYTES / PIECE_BYTES; at += 1) hash.update(Buffer.alloc(PIECE_BYTES, at));
  return hash.digest("hex");
}

async function ask(port: number): Promise<IncomingMessage> {
  const { tls } = Identity.fromRing(RING, { memberId: "n1", random: systemRandom });
  const body = encodeBlocksRequest({
    image: IMAGE,
    epoch: EPOCH,
    path: ["n1"],
    layer: LAYER,
    blob: BLOB_DIGEST,
    priority: 2,
    blocks: [{ index: 0, start: 0, end: BYTES }],
  });
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        ca: tls.ca,
        cert: tls.cert,
        key: tls.key,
        checkServerIdentity: () => undefined,
        agent: false,
        port,
        method: "POST",
        path: "/faasnet/1/blocks",
      },
      resolve,
    );
    outgoing.on("error", reject);
    outgoing.end(body);
  });
}

/** The digest of the block in a reply. */
async function read(response: IncomingMessage): Promise<string> {
  const hash = createHash("sha256");
  const kinds = new Set<number>();
  const decoder = new FrameDecoder({
    onFrame: (type) => kinds.add(type),
    onData: (piece) => hash.update(piece),
  });
  for await (const piece of response as AsyncIterable<Buffer>) decoder.push(piece);
  assert.ok(kinds.has(FRAME.done) && kinds.has(FRAME.end));
  return hash.digest("hex");
}
