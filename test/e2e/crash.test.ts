/**
 * The image service is killed again and again while a container checksums its whole root. The
 * other processes, and other moments: random-kills.test.ts.
 */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import {
  Lab,
  SNAPSHOTTER,
  dropCaches,
  needs,
  startStack,
  type Stack,
} from "../support/lab/index.ts";

const KILLS = 6;
/** Between kills: the next life has time to serve some blocks. */
const LIFE_MS = 300;
const CHECKSUM = "find / -xdev -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum";

describe("A container whose image service is killed", function () {
  this.timeout(240_000);
  let lab: Lab;
  let stack: Stack;
  let reference: string;

  before(async function () {
    needs(this, { root: true, fuse: true, program: true, containerd: ["2"], images: ["debian"] });
    lab = await Lab.create();
    stack = await startStack(lab);
    reference = stack.registry.reference("debian");
    await stack.containerd.pull(reference, { snapshotter: SNAPSHOTTER });
  });

  after(async () => {
    await lab[Symbol.asyncDispose]();
  });

  async function checksum(): Promise<string> {
    const command = ["/bin/sh", "-c", CHECKSUM];
    const options = { snapshotter: SNAPSHOTTER, timeoutMs: 200_000 };
    return (await stack.containerd.runContainer(reference, command, options)).stdout.trim();
  }

  it(`reads the same bytes through ${KILLS} kills, without an error`, async () => {
    const expected = await checksum();
    assert.match(expected, /^[0-9a-f]{64} {2}-$/);
    let kills = 0;

    while (kills < KILLS) {
      await stack.daemon.cacheClear();
      await dropCaches();
      const over = new AbortController();
      const running = checksum().finally(() => {
        over.abort();
      });
      const killing = (async () => {
        while (kills < KILLS) {
          await sleep(LIFE_MS);
          if (over.signal.aborted) return;
          await stack.daemon.killImageService();
          kills += 1;
        }
      })();
      const [found] = await Promise.all([running, killing]);
      assert.equal(found, expected);
    }
  });
});
