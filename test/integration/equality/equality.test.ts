/** Generated images show in every mode what the kernel's overlayfs shows of them unpacked. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { compareImages, describeCounterexample, shrink } from "../../support/equality/index.ts";
import { erofsTools, Lab, needs } from "../../support/lab/index.ts";

const SEED = 4;
const IMAGES = 200;
const JOBS = 2;

describe("mounts of generated images", function () {
  this.timeout(400_000);
  let lab: Lab;

  before(async function () {
    needs(this, {
      root: true,
      fuse: true,
      commands: ["gcc", "tar", "zstd"],
      files: [join(erofsTools, "fsck.erofs")],
      containerd: ["2"],
    });
    lab = await Lab.create();
  });

  after(async () => {
    // The hook before may have skipped.
    await (lab as Lab | undefined)?.[Symbol.asyncDispose]();
  });

  it(`equal overlayfs over the unpacked layers (${IMAGES} images, seed ${SEED})`, async () => {
    const options = { seed: SEED, count: IMAGES, jobs: JOBS, differencesMax: 1 };
    const { done, checked, differing, refused } = await compareImages(lab, options);
    const [first] = differing;
    if (first !== undefined) {
      const least = await shrink(lab, SEED, String(first.at));
      assert.fail([...first.lines, describeCounterexample(least)].join("\n"));
    }
    // An image that containerd does not take is compared with nothing.
    assert.deepEqual(refused, []);
    assert.equal(done, IMAGES);
    // Merged, and of one layer at the least.
    assert.ok(checked >= 2 * IMAGES, `${checked} metadata images were checked by fsck.erofs`);
  });
});
