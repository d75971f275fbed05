/** The keeper as a process, over real FUSE, with an image service that fails in every way. */
import assert from "node:assert/strict";
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { open, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { systemClock } from "../../../src/base/clock.ts";
import { mountAt, readMountInfo } from "../../../src/base/mountinfo.ts";
import { punchHole } from "../../../src/base/native.ts";
import { RangeSet } from "../../../src/base/range-set.ts";
import type { ByteRange } from "../../../src/base/range-set.ts";
import { Semaphore } from "../../../src/base/semaphore.ts";
import type { KeeperClient } from "../../../src/rootfs/index.ts";
import {
  ended,
  Gate,
  KeeperFixture,
  needsFuse,
  never,
  readPage,
  run,
  sha256File,
  until,
} from "../../support/fuse/keeper-fixture.ts";
import { fillDecoded, makeLayer, readTar } from "../../support/fuse/layer-fixture.ts";
import type { LayerFixture } from "../../support/fuse/layer-fixture.ts";

const MIB = 1 << 20;
const IMAGE_PROGRAM = join(
  dirname(fileURLToPath(import.meta.url)),
  "../../support/fuse/fake-image-process.js",
);

/** The 99th percentile of more than 200 reads of a page each, in ms. */
async function p99OfReads(path: string, last: number): Promise<number> {
  await using file = await open(path, "r");
  const timesMs: number[] = [];
  const page = Buffer.alloc(4096);
  // Backwards in large strides: no page was read ahead.
  for (let at = last; at >= 0; at -= 16 * 4096) {
    const startMs = systemClock.nowMs();
    const { bytesRead } = await file.read(page, 0, 4096, at);
    timesMs.push(systemClock.nowMs() - startMs);
    assert.equal(bytesRead, 4096);
  }
  timesMs.sort((one, other) => one - other);
  assert.ok(timesMs.length > 200);
  return timesMs[Math.floor(timesMs.length * 0.99)] ?? Infinity;
}

describe("keeper", () => {
  let fixture: KeeperFixture;
  let layer: LayerFixture;
  let mountpoint: string;
  let data: string;

  before(async function () {
    await needsFuse(this);
  });

  beforeEach(async () => {
    fixture = await KeeperFixture.start();
    mountpoint = join(fixture.stateDir, "l", "0");
    data = join(mountpoint, "data");
    layer = await makeLayer(fixture.folder, "a", [
      { name: "one", bytes: 24 * MIB + 17 },
      { name: "two", bytes: 8 * MIB },
    ]);
  });

  afterEach(async () => {
    await fixture[Symbol.asyncDispose]();
  });

  async function serve(client: KeeperClient, present: () => Iterable<ByteRange>): Promise<void> {
    const { layerId, tarBytes, decodedPath } = layer;
    const request = { layerId, tarBytes, decodedPath, present, mountpoint };
    await client.serveLayer(request, { signal: never });
  }

  async function expectedDigest(): Promise<string> {
    const padding = (512 - (layer.tarBytes % 512)) % 512;
    const padded = join(fixture.folder, "padded");
    await run("cp", [layer.tarPath, padded]);
    await run("truncate", ["-s", `+${padding}`, padded]);
    return sha256File(padded);
  }

  it("serves the stream padded with zeros to 512 bytes, asking for each part", async () => {
    let fetches = 0;
    const client = fixture.client(async (_id, range) => {
      fetches += 1;
      await fillDecoded(layer, range);
      return { present: [range] };
    });
    await serve(client, () => []);
    assert.equal(await sha256File(data), await expectedDigest());
    assert.ok(fetches > 100);
    const stats = await client.stats({ signal: never });
    assert.equal(stats.waiting, 0);
    assert.ok(stats.readsMissed > 100);
    const mount = mountAt(await readMountInfo(), mountpoint);
    assert.equal(mount?.fsType, "fuse.faasnet");
    const bdi = `/sys/class/bdi/${mount.device}/read_ahead_kb`;
    assert.equal((await readFile(bdi, "utf8")).trim(), "1024");
  });

  it("passes bytes through that the image service could not keep", async () => {
    const client = fixture.client(async (_id, range) => ({ data: await readTar(layer, range) }));
    await serve(client, () => []);
    assert.equal(await sha256File(data), await expectedDigest());
  });

  it("asks nobody for what is present", async () => {
    await fillDecoded(layer, { start: 0, end: layer.tarBytes });
    const client = fixture.client(() => Promise.reject(new Error("not expected")));
    await serve(client, () => [{ start: 0, end: layer.tarBytes }]);
    assert.equal(await sha256File(data), await expectedDigest());
    assert.equal((await client.stats({ signal: never })).readsMissed, 0);
  });

  it("loses no read when the image service is killed again and again", async function () {
    this.timeout(60_000);
    const args = ["--socket", fixture.socketPath, "--layer", layer.layerId, "--tar", layer.tarPath];
    args.push("--decoded", layer.decodedPath, "--bytes", String(layer.tarBytes));
    args.push("--mountpoint", mountpoint, "--delay", "40");
    const start = async (): Promise<ChildProcess> => {
      const child = fork(IMAGE_PROGRAM, args);
      await new Promise((resolve) => child.once("message", resolve));
      return child;
    };
    let image = await start();
    const progress = { isDone: false };
    const digest = sha256File(data).finally(() => (progress.isDone = true));
    let kills = 0;
    while (!progress.isDone && kills < 8) {
      await systemClock.sleep(60, { signal: never });
      image.kill("SIGKILL");
      await ended(image);
      kills += 1;
      image = await start();
    }
    assert.equal(await digest, await expectedDigest());
    image.kill("SIGKILL");
    await ended(image);
    assert.ok(kills >= 4, `${kills} kills`);
  });

  it("keeps present blocks fast while 40 readers wait", async function () {
    this.timeout(60_000);
    const presentEnd = 16 * MIB;
    await fillDecoded(layer, { start: 0, end: presentEnd });
    const gate = new Gate();
    const client = fixture.client(async (_id, range) => {
      await gate.pass();
      await fillDecoded(layer, range);
      return { present: [range] };
    });
    await serve(client, () => [{ start: 0, end: presentEnd }]);
    const step = Math.floor((layer.tarBytes - presentEnd - MIB) / 40 / 4096) * 4096;
    const readers: ChildProcess[] = [];
    for (let index = 0; index < 40; index += 1) {
      readers.push(readPage(data, presentEnd + index * step));
    }
    await until("40 readers wait", () => gate.waiting >= 40);
    // The best of several rounds over other pages: other work of the machine only makes it slower.
    const p99sMs: number[] = [];
    for (let round = 1; round <= 8 && Math.min(...p99sMs) >= 10; round += 1) {
      p99sMs.push(await p99OfReads(data, presentEnd - round * 4096));
    }
    assert.ok(Math.min(...p99sMs) < 10, `p99 of the rounds: ${p99sMs.join(", ")} ms`);
    gate.open();
    for (const reader of readers) assert.equal(await ended(reader), 0);
  });

  it("lets a waiting reader die at once and answers its request later", async () => {
    const gate = new Gate();
    const client = fixture.client(async (_id, range) => {
      await gate.pass();
      await fillDecoded(layer, range);
      return { present: [range] };
    });
    await serve(client, () => []);
    const reader = readPage(data, 4 * MIB);
    await until("the reader waits", () => gate.waiting > 0);
    const startMs = systemClock.nowMs();
    reader.kill("SIGKILL");
    assert.equal(await ended(reader), "SIGKILL");
    assert.ok(systemClock.nowMs() - startMs < 1000);
    gate.open();
    await until("nothing waits", async () => {
      return (await client.stats({ signal: never })).waiting === 0;
    });
    assert.equal(await sha256File(data), await expectedDigest());
  });

  it("ends a read with EIO after its limit, and serves it when the image service is back", async () => {
    const gate = new Gate();
    const client = fixture.client(
      async (_id, range) => {
        await gate.pass();
        await fillDecoded(layer, range);
        return { present: [range] };
      },
      { readWaitMs: 300 },
    );
    await serve(client, () => []);
    await assert.rejects(sha256File(data), /Input\/output error/);
    gate.open();
    assert.equal(await sha256File(data), await expectedDigest());
  });

  it("passes a final error of the image service on as EIO at once", async () => {
    const client = fixture.client(() => Promise.reject(new Error("blob is gone")));
    await serve(client, () => []);
    const startMs = systemClock.nowMs();
    await assert.rejects(sha256File(data), /Input\/output error/);
    assert.ok(systemClock.nowMs() - startMs < 2000);
  });

  it("never shows a hole while ranges are dropped, punched and fetched again", async function () {
    this.timeout(60_000);
    const present = new RangeSet();
    const decoded = await open(layer.decodedPath, "r+");
    // Filling and punching exclude each other, as in the cache; answers and drops do not.
    const turns = new Semaphore(1, { queueMax: 10_000 });
    let evictions = 0;
    let isDone = false;
    const client = fixture.client(async (_id, range) => {
      await turns.run({ signal: never }, async () => {
        await fillDecoded(layer, range);
        present.add(range);
      });
      return { present: [range] };
    });
    await serve(client, () => present);
    const evict = async (): Promise<void> => {
      while (!isDone) {
        for (const range of [...present]) {
          await turns.run({ signal: never }, async () => {
            present.remove(range);
            await client.drop(layer.layerId, [range], { signal: never });
            await punchHole(decoded.fd, range.start, range.end - range.start);
          });
          evictions += 1;
        }
        await systemClock.sleep(1, { signal: never });
      }
    };
    const evicting = evict();
    const expected = await expectedDigest();
    try {
      for (let round = 0; round < 3; round += 1) {
        // O_DIRECT and 64 KiB: each read asks the keeper again.
        const script = `dd if=${data} bs=64k iflag=direct status=none | sha256sum`;
        assert.equal((await run("sh", ["-c", script])).slice(0, 64), expected);
      }
    } finally {
      isDone = true;
      await evicting;
      await decoded.close();
    }
    assert.ok(evictions > 50, `${evictions} evictions`);
  });

  it("refuses to stop a layer that is in use, and leaves on SIGTERM once it is not", async () => {
    const client = fixture.client(async (_id, range) => ({ data: await readTar(layer, range) }));
    await serve(client, () => []);
    const file = await open(data, "r");
    assert.equal(await client.stopLayer(layer.layerId, { signal: never }), false);
    assert.equal(await client.shutdown({ force: false, signal: never }), 1);
    const { bytesRead } = await file.read(Buffer.alloc(4096), 0, 4096, 8 * MIB);
    assert.equal(bytesRead, 4096);
    for (const name of ["SIGHUP", "SIGINT"] as const) fixture.keeper?.kill(name);
    await file.close();
    fixture.keeper?.kill("SIGTERM");
    assert.equal(fixture.keeper === undefined ? -1 : await ended(fixture.keeper), 0);
    assert.equal(mountAt(await readMountInfo(), mountpoint), undefined);
  });

  it("replaces the dead mount of a keeper that was killed", async () => {
    const client = fixture.client(async (_id, range) => ({ data: await readTar(layer, range) }));
    await serve(client, () => []);
    const before = await client.connected({ signal: never });
    await fixture.killKeeper();
    await client.drop(layer.layerId, [{ start: 0, end: MIB }], { signal: never });
    fixture.startKeeper();
    await until("another keeper is there", () => client.hello?.instance !== before.instance);
    await client.connected({ signal: never });
    assert.equal(await sha256File(data), await expectedDigest());
  });

  it("obeys only the newest image service", async () => {
    const first = fixture.client(() => Promise.reject(new Error("not asked any more")));
    await serve(first, () => []);
    const second = fixture.client(async (_id, range) => ({ data: await readTar(layer, range) }));
    await second.connected({ signal: never });
    assert.deepEqual([...second.servedLayers], [[layer.layerId, mountpoint]]);
    assert.equal(await first.stopLayer(layer.layerId, { signal: never }), false);
    assert.equal(await sha256File(data), await expectedDigest());
  });
});
