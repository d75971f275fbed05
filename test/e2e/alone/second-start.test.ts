/**
 * A second start with the map known and an empty cache: the registry's own access log shows ranges
 * of what was touched, not whole layers; and our processes stay small.
 */
import assert from "node:assert/strict";
import {
  IMAGE_WORK,
  Lab,
  SNAPSHOTTER,
  dropCaches,
  labImage,
  needs,
  startStack,
  type BlobTraffic,
  type ImageWork,
  type LabImageName,
  type Stack,
} from "../../support/lab/index.ts";

const MB = 1_000_000;
/** The most that a start may fetch. pysci's is the goal; the others' keep what was reached. */
const FETCHED_BYTES_MAX: Readonly<Partial<Record<LabImageName, number>>> = {
  pysci: 45 * MB,
  node: 60 * MB,
  pg: 75 * MB,
  busybox: 2 * MB,
};
const PSS_BYTES_MAX = 150 * 1024 * 1024;

describe("A second start, map known and cache empty", function () {
  this.timeout(120_000);
  let lab: Lab;
  let stack: Stack;

  before(async function () {
    const images = IMAGE_WORK.map(({ image }) => image);
    needs(this, { root: true, fuse: true, program: true, containerd: ["2"], images });
    lab = await Lab.create();
    stack = await startStack(lab);
  });

  after(async () => {
    await lab[Symbol.asyncDispose]();
  });

  async function start(work: ImageWork): Promise<void> {
    const { containerd, registry } = stack;
    const reference = registry.reference(work.image);
    await containerd.pull(reference, { snapshotter: SNAPSHOTTER });
    const options = { snapshotter: SNAPSHOTTER };
    const { stdout } = await containerd.runContainer(reference, work.command, options);
    assert.match(stdout, work.prints);
  }

  async function startAgain(work: ImageWork): Promise<BlobTraffic> {
    const { containerd, daemon, registry } = stack;
    await containerd.ctr(["image", "rm", "--sync", registry.reference(work.image)]);
    await daemon.cacheClear();
    await dropCaches();
    const mark = await registry.mark();
    await start(work);
    const layers = new Set(labImage(work.image).layers.map((layer) => layer.digest));
    const entries = await registry.entries(mark);
    const ofLayers = entries.filter(
      (entry) => entry.method === "GET" && layers.has(entry.blob ?? ""),
    );
    const whole = ofLayers.filter((entry) => entry.status !== 206);
    assert.deepEqual(whole, [], "a layer was fetched without a range");
    return {
      bytes: ofLayers.reduce((sum, entry) => sum + entry.bytesSent, 0),
      requests: ofLayers.length,
      ranges: ofLayers.length - whole.length,
    };
  }

  for (const work of IMAGE_WORK) {
    const limit = FETCHED_BYTES_MAX[work.image] ?? 0;
    it(`fetches at most ${limit / MB} MB of ${work.image}, by ranges`, async () => {
      await start(work);

      const traffic = await startAgain(work);

      const { bytes } = traffic;
      process.stdout.write(`      ${(bytes / MB).toFixed(1)} MB in ${traffic.ranges} ranges\n`);
      assert.ok(traffic.ranges > 0);
      assert.ok(bytes <= limit, `${bytes} bytes were fetched`);
    });
  }

  it("fetches nothing when it is started once more", async () => {
    const [work] = IMAGE_WORK;
    assert.ok(work !== undefined);
    await start(work); // the tests before have cleared the cache
    const mark = await stack.registry.mark();

    await start(work);

    assert.equal((await stack.registry.traffic(mark)).bytes, 0);
  });

  it("leaves our processes with 150 MB (PSS) together", async () => {
    const pss = await stack.daemon.pssBytes();

    process.stdout.write(`      ${(pss / MB).toFixed(1)} MB\n`);
    assert.ok(pss > 0 && pss <= PSS_BYTES_MAX, `${pss} bytes`);
  });
});
