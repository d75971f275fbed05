/** Chains mounted for real, in every mode, over a keeper in a process of its own. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, open, readdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../../../src/base/clock.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { mountAt, readMountInfo } from "../../../src/base/mountinfo.ts";
import { mount, unmount } from "../../../src/base/native.ts";
import {
  defaultDirectory,
  ErofsInodeInput,
  FILE_TYPE,
  writeErofs,
} from "../../../src/erofs/index.ts";
import { MOUNT_MODES, Rootfs } from "../../../src/rootfs/index.ts";
import type { ChainMount, KeeperClient, MountMode } from "../../../src/rootfs/index.ts";
import {
  ended,
  KeeperFixture,
  needsFuse,
  never,
  run,
  sha256File,
  until,
} from "../../support/fuse/keeper-fixture.ts";
import { makeLayer, readTar } from "../../support/fuse/layer-fixture.ts";
import type { LayerFixture } from "../../support/fuse/layer-fixture.ts";

const MIB = 1 << 20;
const wait = { signal: never };

/** Everything that a file's metadata says, but for what fuse mode is known not to carry. */
const FIND_FORMAT = "%y %m %U %G %n %s %i %T@ %l %p\\n";

describe("rootfs", () => {
  let fixture: KeeperFixture;
  let layer: LayerFixture;
  let keeper: KeeperClient;

  before(async function () {
    await needsFuse(this);
  });

  beforeEach(async () => {
    fixture = await KeeperFixture.start();
    layer = await makeLayer(fixture.folder, "a", [
      { name: "one", bytes: 3 * MIB + 17 },
      { name: "two", bytes: 300_000 },
      { name: "tiny", bytes: 5 },
    ]);
    keeper = newClient();
  });

  afterEach(async () => {
    await fixture[Symbol.asyncDispose]();
  });

  function newClient(): KeeperClient {
    return fixture.client(async (_id, range) => ({ data: await readTar(layer, range) }));
  }

  async function openRootfs(mode: MountMode, client = keeper): Promise<Rootfs> {
    const { stateDir } = fixture;
    const options = { stateDir, keeper: client, mode, clock: systemClock, log: silentLogger };
    return fixture.scope.use(await Rootfs.open(options));
  }

  function chainOf(target?: string): ChainMount {
    const { chainId, metadataPath, layerId, tarBytes, decodedPath } = layer;
    const one = { layerId, tarBytes, decodedPath, present: () => [] };
    return { chainId, metadataPath, layers: [one], target };
  }

  function tinyOffset(): number {
    return layer.files.get("tiny")?.offset ?? 0;
  }

  async function checkContents(path: string): Promise<void> {
    for (const [name, { sha256 }] of layer.files) {
      assert.equal(await sha256File(join(path, name)), sha256, name);
    }
    assert.equal(await sha256File(join(path, "hard")), layer.files.get("one")?.sha256);
  }

  for (const mode of MOUNT_MODES) {
    it(`mounts, reads and unmounts a chain in ${mode} mode`, async () => {
      const rootfs = await openRootfs(mode);
      const mounted = await rootfs.mountChain(chainOf(), wait);
      assert.deepEqual(mounted, { path: join(fixture.stateDir, "c", "0"), mode });
      await checkContents(mounted.path);
      const text = await run("getfattr", [
        "--only-values",
        "-n",
        "user.name",
        join(mounted.path, "two"),
      ]);
      assert.equal(text, "two");
      await assert.rejects(run("touch", [join(mounted.path, "new")]), /Read-only/);
      assert.deepEqual(await rootfs.mountChain(chainOf(), wait), mounted);
      assert.equal(await rootfs.releaseChain(layer.chainId, wait), true);
      const mounts = await readMountInfo();
      assert.deepEqual(
        mounts.filter((one) => one.mountpoint.startsWith(fixture.stateDir)),
        [],
      );
      assert.deepEqual(await readdir(join(fixture.stateDir, "l")).catch(() => []), []);
    });

    it(`takes a chain over after a restart in ${mode} mode`, async () => {
      const first = await openRootfs(mode);
      const before = await first.mountChain(chainOf(), wait);
      const device = mountAt(await readMountInfo(), before.path)?.device;
      await keeper[Symbol.asyncDispose]();
      const second = await openRootfs(mode, newClient());
      assert.deepEqual(await second.mountChain(chainOf(), wait), before);
      assert.equal(mountAt(await readMountInfo(), before.path)?.device, device);
      await checkContents(before.path);
      assert.equal(await second.unmountAll({ ...wait, unusedOnly: true }), 0);
    });

    it(`mounts anew at the same place when the keeper died in ${mode} mode`, async () => {
      const rootfs = await openRootfs(mode);
      const before = await rootfs.mountChain(chainOf(), wait);
      const holder = await open(join(before.path, "one"), "r");
      await fixture.killKeeper();
      fixture.startKeeper();
      const instance = keeper.hello?.instance;
      await until("another keeper", () => keeper.hello?.instance !== instance);
      assert.deepEqual(await rootfs.mountChain(chainOf(), wait), before);
      await checkContents(before.path);
      await assert.rejects(holder.read(Buffer.alloc(4096), 0, 4096, MIB));
      await holder.close().catch(() => undefined); // flush(2) of a dead FUSE file is ENOTCONN
      const second = await openRootfs(mode);
      await second.mountChain(chainOf(), wait);
      await checkContents(before.path);
    });
  }

  it("shows the same tree in every mode", async () => {
    const listings: string[] = [];
    for (const mode of MOUNT_MODES) {
      const rootfs = await openRootfs(mode);
      const { path } = await rootfs.mountChain(chainOf(), wait);
      const text = await run("sh", [
        "-c",
        `cd ${path} && LC_ALL=C find . ! -name 'caf*' -printf '${FIND_FORMAT}' | sort;` +
          ` stat -c '%n %t %T' tty; LC_ALL=C getfattr -d -m - *; ls | LC_ALL=C wc -l`,
      ]);
      listings.push(text);
      assert.equal(await rootfs.releaseChain(layer.chainId, wait), true);
    }
    assert.equal(listings[1], listings[0]);
    assert.equal(listings[2], listings[0]);
    assert.match(listings[0] ?? "", /tty 5 12c/);
  });

  it("finds names that are not UTF-8 in fuse mode as they are listed and as they are", async () => {
    const rootfs = await openRootfs("fuse");
    const { path } = await rootfs.mountChain(chainOf(), wait);
    const shell = `cd ${path} && stat -c %s "$(printf 'caf\\351')" caf*`;
    assert.equal(await run("sh", ["-c", shell]), "0\n0\n");
  });

  it("keeps a chain that is an overlay's lower folder, and its layers after a forced unmount", async () => {
    const rootfs = await openRootfs("erofs");
    const { path } = await rootfs.mountChain(chainOf(), wait);
    for (const name of ["upper", "work", "merged"]) await mkdir(join(fixture.folder, name));
    const target = join(fixture.folder, "merged");
    const upper = `upperdir=${join(fixture.folder, "upper")},workdir=${join(fixture.folder, "work")}`;
    const data = `lowerdir=${path},${upper}`;
    await mount({ fsType: "overlay", source: "overlay", target, flags: 0, data });
    assert.equal(await rootfs.releaseChain(layer.chainId, wait), false);
    assert.equal(await rootfs.unmountAll({ ...wait, unusedOnly: true }), 2);
    assert.equal(await rootfs.unmountAll({ ...wait, unusedOnly: false }), 1);
    // The overlay pins the file system, and that the data device.
    await checkContents(target);
    await unmount(target, { detach: false });
    assert.equal(await rootfs.unmountAll({ ...wait, unusedOnly: true }), 0);
  });

  it("keeps a chain with an open file", async () => {
    const rootfs = await openRootfs("erofs");
    const { path } = await rootfs.mountChain(chainOf(), wait);
    const sleeper = spawn("sleep", ["60"], { cwd: path, stdio: "ignore" });
    assert.equal(await rootfs.releaseChain(layer.chainId, wait), false);
    sleeper.kill("SIGKILL");
    await ended(sleeper);
    assert.equal(await rootfs.releaseChain(layer.chainId, wait), true);
  });

  it("shares a layer's data device among chains", async () => {
    const rootfs = await openRootfs("erofs");
    const one = chainOf();
    await rootfs.mountChain(one, wait);
    await rootfs.mountChain({ ...one, chainId: layer.layerId }, wait);
    const mounts = await readMountInfo();
    const fuse = mounts.filter((entry) => entry.mountpoint.startsWith(`${fixture.stateDir}/l/`));
    assert.equal(fuse.length, 1);
    assert.equal(await rootfs.releaseChain(one.chainId, wait), true);
    await checkContents(join(fixture.stateDir, "c", "1"));
    assert.equal(await rootfs.releaseChain(layer.layerId, wait), true);
  });

  for (const mode of ["erofs", "loop"] as const) {
    it(`mounts a long chain with some layers twice in ${mode} mode`, async function () {
      this.timeout(60_000);
      const rootfs = await openRootfs(mode);
      const one = chainOf().layers[0];
      assert.ok(one !== undefined);
      const count = mode === "erofs" ? 130 : 12;
      // All over the same bytes: only the identity counts here. Every tenth comes again.
      const layers = Array.from({ length: count }, (_none, index) => ({
        ...one,
        layerId: createHash("sha256")
          .update(String(index % (count - 10)))
          .digest("hex"),
      }));
      const root = new ErofsInodeInput(defaultDirectory());
      for (const index of layers.keys()) {
        const extent = { fileOffset: 0, length: 5, device: index + 1, deviceOffset: tinyOffset() };
        const attributes = { ...defaultDirectory(), mode: FILE_TYPE.regular | 0o644 };
        const data = { kind: "extents" as const, size: 5, extents: [extent] };
        root.entries?.set(`file${index}`, new ErofsInodeInput(attributes, { data }));
      }
      const metadataPath = join(fixture.folder, "many.erofs");
      const devices = layers.map((entry) => ({ bytes: Math.ceil(entry.tarBytes / 512) * 512 }));
      await writeFile(metadataPath, writeErofs(root, { devices }));
      const { path } = await rootfs.mountChain({ ...chainOf(), layers, metadataPath }, wait);
      const sums = await run("sh", ["-c", `cat ${path}/* | sha256sum; ls ${path} | wc -l`]);
      const tiny = await readTar(layer, { start: tinyOffset(), end: tinyOffset() + 5 });
      const all = Buffer.concat(Array.from({ length: count }, () => tiny));
      const digest = createHash("sha256").update(all).digest("hex");
      assert.equal(sums, `${digest}  -\n${count}\n`);
      assert.equal(await rootfs.unmountAll({ ...wait, unusedOnly: true }), 0);
    });
  }

  it("mounts where it is told to, through a symbolic link too", async () => {
    const rootfs = await openRootfs("erofs");
    const real = join(fixture.folder, "real");
    await mkdir(real);
    await symlink(real, join(fixture.folder, "link"));
    const { path } = await rootfs.mountChain(chainOf(join(fixture.folder, "link")), wait);
    assert.equal(path, real);
    await checkContents(real);
    assert.equal(await rootfs.releaseChain(layer.chainId, { ...wait, target: real }), true);
  });

  it("refuses a target that is somebody else's mountpoint", async () => {
    const rootfs = await openRootfs("erofs");
    const target = join(fixture.folder, "taken");
    await mkdir(target);
    await mount({ fsType: "tmpfs", source: "none", target, flags: 0, data: "" });
    await assert.rejects(rootfs.mountChain(chainOf(target), wait), (error: Error) => {
      assert.match(String(error.cause), /is a mountpoint of tmpfs/);
      return true;
    });
    assert.deepEqual(rootfs.chains, []);
  });

  for (const mode of ["erofs", "loop"] as const) {
    it(`says what is wrong with metadata that does not fit, in ${mode} mode`, async () => {
      const rootfs = await openRootfs(mode);
      const chain = { ...chainOf(), metadataPath: layer.tarPath };
      await assert.rejects(rootfs.mountChain(chain, wait), (error: Error) => {
        assert.match(String(error.cause), /EINVAL|EUCLEAN/);
        return true;
      });
      assert.equal(await rootfs.unmountAll({ ...wait, unusedOnly: true }), 0);
    });
  }
});
