/** Messages of function trees, as a member that holds the key might send them. */
import { decodeTreeMessage, encodeTreeMessage } from "../../../src/peer/tree/codec.ts";
import { TREE_PRESETS } from "../../../src/peer/tree/config.ts";
import { TreeAgent } from "../../../src/peer/tree/tree-agent.ts";
import { SimRandom } from "../../support/peer/sim-random.ts";
import { imageOf } from "../../support/peer/tree-checks.ts";
import { refOf, TREE_SAMPLES } from "../../support/peer/tree-samples.ts";
import type { FuzzTarget } from "../target.ts";

/** What is accepted must be written as it was read, apart from what is left out for its length. */
const TREE_MESSAGE: FuzzTarget = {
  name: "tree-message",
  seeds: () => TREE_SAMPLES.map((sample) => encodeTreeMessage(sample)),
  run: (bytes) => {
    const message = decodeTreeMessage(bytes);
    const again = encodeTreeMessage(decodeTreeMessage(encodeTreeMessage(message)));
    if (!Buffer.from(again).equals(encodeTreeMessage(message))) {
      throw new Error(`a ${message.kind} that does not read back`);
    }
  },
};

const SELF = refOf(9);
const IMAGE = imageOf(3);

function freshAgent(): TreeAgent {
  const random = new SimRandom(1);
  const agent = new TreeAgent({ config: TREE_PRESETS.lan, self: SELF, random, nowMs: -1e6 });
  const list = [1, 2, 3, 9].map((number) => ({
    ...refOf(number),
    state: "alive" as const,
    aliveSinceMs: -1e6,
    isSeed: number === 9,
  }));
  agent.step({ kind: "members", list }, 0);
  agent.step({ kind: "join", image: IMAGE }, 0);
  return agent;
}

/**
 * The input is a sequence of messages, each with its length before it, to a member that manages.
 */
const TREE_AGENT: FuzzTarget = {
  name: "tree-agent",
  inputBytesMax: 8192,
  seeds: () => [
    Buffer.concat(
      TREE_SAMPLES.flatMap((sample) => {
        const bytes = encodeTreeMessage(sample);
        return [Buffer.of(bytes.length >> 8, bytes.length & 255), bytes];
      }),
    ),
  ],
  run: (bytes) => {
    const agent = freshAgent();
    const input = Buffer.from(bytes);
    let nowMs = 0;
    for (let at = 0; at + 2 <= input.length;) {
      const length = input.readUInt16BE(at);
      const content = input.subarray(at + 2, at + 2 + length);
      at += 2 + length;
      nowMs += length;
      const from = refOf(1 + (length % 4));
      agent.step(
        { kind: "packet", from: { address: from.address }, sender: from.boot, content },
        nowMs,
      );
      if (agent.nextMs <= nowMs) agent.step({ kind: "tick" }, nowMs);
    }
  },
};

export const TREE_TARGETS: readonly FuzzTarget[] = [TREE_MESSAGE, TREE_AGENT];
