/** Generated images show in every mode what the kernel's overlayfs shows of them unpacked. */
import assert from "node:assert/strict";
import {
  describeCounterexample,
  EqualitySession,
  imagesOf,
  shrink,
} from "../../support/equality/index.ts";
import { needs } from "../../support/lab/index.ts";

const SEED = 4;
const IMAGES = 200;
/** Unpacked together; containerd's own start and import cost a second. */
const BATCH = 50;

describe("mounts of generated images", function () {
  this.timeout(400_000);
  let session: EqualitySession;

  before(async function () {
    needs(this, {
      root: true,
      fuse: true,
      commands: ["gcc", "tar", "zstd"],
      containerd: ["2"],
    });
    session = await EqualitySession.start();
  });

  after(async () => {
    // The hook before may have skipped.
    await (session as EqualitySession | undefined)?.[Symbol.asyncDispose]();
  });

  it(`equal overlayfs over the unpacked layers (${IMAGES} images, seed ${SEED})`, async () => {
    const images = imagesOf(SEED, IMAGES);
    for (let start = 0; start < IMAGES; start += BATCH) {
      const found = await session.differences(images.slice(start, start + BATCH));
      const at = found.findIndex((lines) => lines.length > 0);
      if (at === -1) continue;
      const least = await shrink(SEED, String(start + at));
      assert.fail([...(found[at] ?? []), describeCounterexample(least)].join("\n"));
    }
    // An image that containerd does not take is compared with nothing.
    assert.deepEqual(session.refused, []);
  });
});
