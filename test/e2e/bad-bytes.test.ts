/**
 * Hostile images and registries: a pull fails with layer, entry and rule and leaves nothing; a bad
 * block of a mounted image is EIO, never a wrong byte, and the next good answer heals it.
 */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Semaphore } from "../../src/base/semaphore.ts";
import {
  Containerd,
  FaasnetDaemon,
  Lab,
  SNAPSHOTTER,
  mountView,
  needs,
  run,
} from "../support/lab/index.ts";
import {
  attemptMount,
  gzipLayer,
  HOSTILE_CASES,
  imageOf,
  layerOf,
  publish,
  REFUSED_BY_LIMIT,
  type Attempt,
  type HostileCase,
  type HostileImage,
} from "../support/hostile/index.ts";
import { END, rawMember, sampleBytes } from "../support/layers/index.ts";
import { FakeRegistry, type Fault } from "../support/registry/fake-registry.ts";

const needed = { root: true, fuse: true, program: true, commands: ["zstd"] } as const;
const ATTEMPTS_AT_ONCE = 2;
const SECONDS_MAX = 30;
const MIB = 1024 * 1024;

interface Tried {
  readonly image: HostileImage;
  readonly attempt: Attempt;
}

/** Every answer with the last layer's blob goes wrong. */
function spoil(registry: FakeRegistry, image: HostileImage, fault: Fault | undefined): void {
  const digest = image.layers.at(-1)?.digest ?? "";
  if (fault === undefined) return;
  registry.fail(({ url }) => url.endsWith(digest), fault, Number.POSITIVE_INFINITY);
}

function assertRefused({ image, attempt }: Tried, says: readonly string[]): void {
  const { status, stderr, left, files, seconds } = attempt;
  assert.ok(status !== null && status !== 0, `status ${status}\n${stderr}`);
  const message = stderr.split("\n").find((line) => line.startsWith("faasnet: ")) ?? stderr;
  for (const part of [image.layers.at(-1)?.digest ?? "", ...says]) {
    assert.ok(message.includes(part), `"${part}" is not in: ${message}`);
  }
  assert.deepEqual(left, []);
  assert.deepEqual(files, []);
  assert.ok(seconds < SECONDS_MAX, `after ${seconds} s`);
}

describe("A hostile image", function () {
  this.timeout(180_000);
  let lab: Lab;
  let registry: FakeRegistry;
  const attempts = new Map<string, Promise<Tried>>();

  async function attempt(image: HostileImage, withMemory = false): Promise<Tried> {
    const digest = image.layers.at(-1)?.digest.slice(7, 27) ?? "";
    const reference = publish(registry, `hostile/${digest}`, image);
    return { image, attempt: await attemptMount(lab, reference, { withMemory }) };
  }

  async function attemptCase(one: HostileCase): Promise<Tried> {
    const image = imageOf([await one.layer()]);
    spoil(registry, image, one.fault);
    return attempt(image);
  }

  before(async function () {
    needs(this, needed);
    lab = await Lab.create();
    registry = lab.use(await FakeRegistry.start());
  });

  /** A few at a time, ahead of the tests that look at them. */
  function attemptAll(): void {
    const free = new Semaphore(ATTEMPTS_AT_ONCE, { queueMax: HOSTILE_CASES.length });
    const signal = new AbortController().signal;
    for (const one of HOSTILE_CASES) {
      const running = free.run({ signal }, () => attemptCase(one));
      running.catch(() => undefined); // its test tells
      attempts.set(one.name, running);
    }
  }

  after(async () => {
    await Promise.allSettled(attempts.values());
    // The hook before may have skipped.
    await (lab as Lab | undefined)?.[Symbol.asyncDispose]();
  });

  for (const one of HOSTILE_CASES) {
    it(`is refused: ${one.name}`, async () => {
      if (attempts.size === 0) attemptAll();
      const done = await attempts.get(one.name);
      assert.ok(done !== undefined);
      assertRefused(done, one.says);
    });
  }

  for (const one of REFUSED_BY_LIMIT) {
    it(`is refused within bounds: ${one.name}`, async () => {
      const done = await attempt(imageOf([await gzipLayer(one.tar())]), true);

      assertRefused(done, one.says);
      const { peakRssBytes } = done.attempt;
      assert.ok(peakRssBytes > 0 && peakRssBytes < one.rssMax, `${peakRssBytes / MIB} MiB`);
    });
  }

  it("leaves nothing of the layers that were under way", async () => {
    // The slow layer is in the middle of its body when the other proves bad.
    const slow = layerOf(rawMember({ name: "slow" }, sampleBytes(3 * MIB, 99)), "none");
    spoil(registry, imageOf([slow]), { kind: "stall", afterBytes: MIB });
    const bad = layerOf(Buffer.from("no tar".repeat(200)));
    const done = await attempt(imageOf([slow, bad]));

    assertRefused(done, ["wrong header checksum"]);
  });
});

describe("A hostile image through containerd", function () {
  this.timeout(120_000);
  let lab: Lab;
  let registry: FakeRegistry;
  let daemon: FaasnetDaemon;
  let containerd: Containerd;

  before(async function () {
    needs(this, { ...needed, containerd: ["2"] });
    lab = await Lab.create();
    registry = lab.use(await FakeRegistry.start());
    daemon = await FaasnetDaemon.create(lab, { knownHosts: [registry.domain] });
    containerd = await Containerd.start(lab, {
      line: "2",
      snapshotter: { name: SNAPSHOTTER, address: daemon.address, root: daemon.root },
    });
    await daemon.start(containerd.address);
  });

  after(async () => {
    await (lab as Lab | undefined)?.[Symbol.asyncDispose]();
  });

  const pull = async (
    repository: string,
    image: HostileImage,
    snapshotter: string = SNAPSHOTTER,
  ): Promise<{ readonly status: number | null; readonly stderr: string }> => {
    const reference = publish(registry, repository, image);
    return containerd.pull(reference, { snapshotter, allowFailure: true });
  };

  /** The daemon's reason for not claiming a layer. */
  async function reasonFor(digest: string): Promise<string> {
    const lines = (await readFile(daemon.logFile, "utf8")).split("\n");
    return lines.find((one) => one.includes('"layer-not-claimed"') && one.includes(digest)) ?? "";
  }

  it("meets containerd's own refusal, and the daemon stays well", async () => {
    const bad = HOSTILE_CASES.find(({ name }) => name === "a path through a file");
    assert.ok(bad !== undefined);
    const layer = await bad.layer();

    const { status, stderr } = await pull("bad/refused", imageOf([layer]));

    assert.notEqual(status, 0);
    assert.match(stderr, bad.containerd === "either" ? /./ : (bad.containerd ?? /./));
    const reason = await reasonFor(layer.digest);
    for (const part of bad.says) {
      assert.ok(reason.includes(JSON.stringify(part).slice(1, -1)), `${part} is not in: ${reason}`);
    }
    assert.equal((await daemon.status()).ready, true);
  });

  it("is unpacked as ever where containerd accepts it, inside the root", async () => {
    const tar = Buffer.concat([rawMember({ name: "a/../../../escaped" }, Buffer.from("in")), END]);
    const layer = layerOf(tar);

    const { status, stderr } = await pull("bad/accepted", imageOf([layer]));

    assert.equal(status, 0, stderr);
    assert.match(await reasonFor(layer.digest), /path climbs out of the root/);
    const folder = await mountView(lab, containerd, layer.diffId, SNAPSHOTTER);
    assert.equal((await run("cat", [join(folder, "escaped")])).stdout, "in");
  });

  it("does not keep the next one from being lazy", async () => {
    const layer = layerOf(Buffer.concat([rawMember({ name: "/abs/good" }, Buffer.from("g")), END]));

    const { status, stderr } = await pull("good/image", imageOf([layer]));

    assert.equal(status, 0, stderr);
    assert.equal(await reasonFor(layer.digest), "");
    const { stdout } = await containerd.ctr(["content", "ls", "--quiet"]);
    assert.ok(!stdout.includes(layer.digest), "the layer was fetched");
    const folder = await mountView(lab, containerd, layer.diffId, SNAPSHOTTER);
    assert.equal((await run("cat", [join(folder, "abs", "good")])).stdout, "g");
  });

  it("is refused or taken by containerd as the table says", async () => {
    for (const [index, one] of HOSTILE_CASES.entries()) {
      if (one.containerd === "either") continue;
      const image = imageOf([await one.layer()]);
      spoil(registry, image, one.fault);
      const { status, stderr } = await pull(`table/${index}`, image, "overlayfs");
      if (one.containerd === undefined) assert.equal(status, 0, `${one.name}: ${stderr}`);
      else assert.match(stderr, one.containerd, one.name);
    }
  });
});
