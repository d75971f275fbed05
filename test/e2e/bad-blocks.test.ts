/**
 * Bad bytes under a mounted image, from the registry and from the cache's disk: a read gets right
 * bytes or EIO, the log names blob and range, and the next good answer heals it.
 */
import assert from "node:assert/strict";
import { open, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  Lab,
  dropCaches,
  faasnetMount,
  needs,
  run,
  type MountCommand,
  type RunResult,
} from "../support/lab/index.ts";
import { imageOf, layerOf, publish, type HostileLayer } from "../support/hostile/index.ts";
import { END, rawMember, sampleBytes } from "../support/layers/index.ts";
import { FakeRegistry, type Fault } from "../support/registry/fake-registry.ts";

const MIB = 1024 * 1024;
const LIMIT_SECONDS = 2;
/** A source that refused, or failed, is asked again after 2 s at most. */
const HOLD_MS = 2_500;
const needed = { root: true, fuse: true, program: true } as const;

/** Two layers of one file each. */
const CONTENT = { plain: sampleBytes(3 * MIB, 21), packed: sampleBytes(3 * MIB, 22) };
type Name = keyof typeof CONTENT;

const layerWith = (name: Name, form: "gzip" | "none"): HostileLayer =>
  layerOf(Buffer.concat([rawMember({ name }, CONTENT[name]), END]), form);
const LAYERS = { plain: layerWith("plain", "none"), packed: layerWith("packed", "gzip") };

interface Mounted {
  readonly command: MountCommand;
  readonly logFile: string;
}

class Place {
  readonly lab: Lab;
  readonly registry: FakeRegistry;
  readonly root: string;
  readonly #reference: string;
  readonly #config: string;

  private constructor(lab: Lab, registry: FakeRegistry, parts: { root: string; config: string }) {
    this.lab = lab;
    this.registry = registry;
    this.root = parts.root;
    this.#config = parts.config;
    this.#reference = publish(registry, "running/image", imageOf(Object.values(LAYERS)));
  }

  static async make(lab: Lab, cache: readonly string[]): Promise<Place> {
    const registry = lab.use(await FakeRegistry.start());
    const config = lab.path("config.toml");
    const lines = ["[read]", `limit_seconds = ${LIMIT_SECONDS}`];
    lines.push("[background]", "enabled = false", "[cache]", ...cache);
    await writeFile(config, `${lines.join("\n")}\n`);
    return new Place(lab, registry, { root: await lab.makeFolder("root"), config });
  }

  async mount(): Promise<Mounted> {
    const options = { root: this.root, extra: ["--config", this.#config] };
    const command = await faasnetMount(this.lab, this.#reference, options);
    return { command, logFile: command.logFile };
  }

  /** Its maps are made, and the cache is empty. */
  async mountCold(): Promise<Mounted> {
    await (await this.mount()).command.end();
    await rm(join(this.root, "cache"), { recursive: true });
    return this.mount();
  }

  /** Every answer with a part of the layer's blob goes wrong. */
  spoil(name: Name, fault: Fault): void {
    const { digest } = LAYERS[name];
    this.registry.fail(({ url }) => url.endsWith(digest), fault, Number.POSITIVE_INFINITY);
  }
}

async function read({ command }: Mounted, name: Name): Promise<RunResult> {
  await dropCaches();
  return run("cat", [join(command.folder, name)], { allowFailure: true });
}

/** What came before the error, too, must be right. */
function assertFailed(result: RunResult, name: Name): void {
  assert.notEqual(result.status, 0);
  assert.match(result.stderr, /Input\/output error/);
  const came = result.stdoutBytes;
  assert.ok(came.length < CONTENT[name].length);
  assert.ok(came.equals(CONTENT[name].subarray(0, came.length)), "wrong bytes before the error");
}

function assertRight(result: RunResult, name: Name): void {
  assert.equal(result.status, 0, result.stderr);
  assert.ok(result.stdoutBytes.equals(CONTENT[name]), `wrong bytes of ${name}`);
}

interface BadRead {
  readonly name: string;
  readonly fault: Fault;
  readonly event: string;
  readonly says: RegExp;
}

const BAD_READS: readonly BadRead[] = [
  {
    name: "a byte flipped in every block",
    fault: { kind: "flip", at: 1000 },
    event: "block-lost",
    says: /block 0 of blob .*, bytes 0-\d+ cannot be read.*wrong sha256/,
  },
  {
    name: "another range",
    fault: { kind: "wrong-range" },
    event: "block-lost",
    says: /block 0 of blob .*, bytes 0-\d+ cannot be read.*another range/,
  },
  {
    name: "a body that ends too soon",
    fault: { kind: "cut", afterBytes: 1000 },
    event: "read-failed",
    says: /blocks? 0-\d+ of blob .*bytes 0-\d+/,
  },
  {
    name: "a 404",
    fault: { kind: "status", status: 404 },
    event: "block-lost",
    says: /block 0 of blob .*, bytes 0-\d+ cannot be read.*404/,
  },
];

describe("A mounted image", function () {
  this.timeout(120_000);
  let lab: Lab;
  let place: Place;
  let mounted: Mounted;

  before(async function () {
    needs(this, needed);
    lab = await Lab.create();
    // Nothing is kept: every read asks the registry.
    place = await Place.make(lab, ["quota_bytes = 0", "memory_bytes = 1"]);
    mounted = await place.mount();
  });

  after(async () => {
    // The hook before may have skipped.
    await (lab as Lab | undefined)?.[Symbol.asyncDispose]();
  });

  for (const layer of ["plain", "packed"] as const) {
    const other = layer === "plain" ? "packed" : "plain";
    for (const bad of BAD_READS) {
      it(`gives EIO and heals: ${bad.name} of the ${layer} layer`, async () => {
        const logBytes = (await readFile(mounted.logFile)).length;
        place.spoil(layer, bad.fault);

        assertFailed(await read(mounted, layer), layer);
        assertRight(await read(mounted, other), other);
        const log = (await readFile(mounted.logFile)).subarray(logBytes).toString("utf8");
        const lines = log.split("\n").filter((line) => line.includes(`"event":"${bad.event}"`));
        assert.ok(lines.length > 0, log);
        assert.match(lines[0] ?? "", bad.says);
        const digest = LAYERS[layer].digest;
        assert.ok(
          lines.some((line) => line.includes(digest.slice(0, 19))),
          lines[0],
        );

        place.registry.clearFaults();
        await sleep(HOLD_MS);
        assertRight(await read(mounted, layer), layer);
      });
    }

    it(`reads on from a registry that sends the whole blob: ${layer}`, async () => {
      place.spoil(layer, { kind: "ignore-range" });

      assertRight(await read(mounted, layer), layer);
      place.registry.clearFaults();
    });
  }
});

/** Turns one bit in the middle of every file of a folder whose name fits. */
async function flipIn(folder: string, name: RegExp): Promise<number> {
  let flipped = 0;
  for (const entry of await readdir(folder)) {
    if (!name.test(entry)) continue;
    const file = await open(join(folder, entry), "r+");
    try {
      const at = Math.floor((await file.stat()).size / 2);
      const { buffer } = await file.read(Buffer.alloc(1), 0, 1, at);
      await file.write(Buffer.of((buffer[0] ?? 0) ^ 1), 0, 1, at);
      flipped += 1;
    } finally {
      await file.close();
    }
  }
  return flipped;
}

describe("Bytes that changed on the disk", function () {
  this.timeout(120_000);
  let lab: Lab;
  let place: Place;

  beforeEach(async function () {
    needs(this, needed);
    lab = await Lab.create();
    place = await Place.make(lab, ["keep_blobs = true"]);
    const first = await place.mountCold();
    for (const name of ["plain", "packed"] as const) assertRight(await read(first, name), name);
    await first.command.end();
  });

  afterEach(async () => {
    await (lab as Lab | undefined)?.[Symbol.asyncDispose]();
  });

  async function assertAllRight(event: string): Promise<void> {
    const mounted = await place.mount();
    for (const name of ["plain", "packed"] as const) assertRight(await read(mounted, name), name);
    const log = await readFile(mounted.logFile, "utf8");
    assert.ok(log.includes(`"event":"${event}"`), log);
    await mounted.command.end();
  }

  it("are found in decoded blocks after an unclean stop, and fetched again", async () => {
    const session = { version: 1, state: "open", bootId: "another-boot", doubtful: [] };
    await writeFile(join(place.root, "cache", "session.json"), JSON.stringify(session));
    assert.equal(await flipIn(join(place.root, "cache", "decoded"), /^[0-9a-f]{64}$/), 2);

    await assertAllRight("cached-block-discarded");
  });

  it("are found in blocks kept as fetched", async () => {
    const decoded = join(place.root, "cache", "decoded");
    for (const name of await readdir(decoded)) await rm(join(decoded, name));
    assert.equal(await flipIn(join(place.root, "cache", "blobs"), /^[0-9a-f]{64}$/), 2);
    const before = place.registry.log.length;

    await assertAllRight("chain-mounted");
    assert.ok(place.registry.log.length > before, "nothing was fetched again");
  });

  it("are found in layer maps, which are made again", async () => {
    assert.equal(await flipIn(join(place.root, "layers"), /\.map$/), 2);
    for (const name of await readdir(join(place.root, "chains"))) {
      await rm(join(place.root, "chains", name));
    }

    await assertAllRight("layer-map-made");
  });
});
