/** What a killed process left mounted goes by itself when its successor is there. */
import assert from "node:assert/strict";
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../../../src/base/clock.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { readMountInfo } from "../../../src/base/mountinfo.ts";
import { mount, unmount } from "../../../src/base/native.ts";
import { Rootfs } from "../../../src/rootfs/index.ts";
import type { ChainMount, KeeperClient, MountMode } from "../../../src/rootfs/index.ts";
import {
  KeeperFixture,
  needsFuse,
  never,
  sha256File,
  until,
} from "../../support/fuse/keeper-fixture.ts";
import { makeLayer, readTar } from "../../support/fuse/layer-fixture.ts";
import type { LayerFixture } from "../../support/fuse/layer-fixture.ts";

const wait = { signal: never };
const QUIET_MS = 10_000;

describe("What a killed process left mounted", () => {
  let fixture: KeeperFixture;
  let layer: LayerFixture;
  let chain: ChainMount;

  before(async function () {
    await needsFuse(this);
  });

  beforeEach(async () => {
    fixture = await KeeperFixture.start();
    layer = await makeLayer(fixture.folder, "a", [
      { name: "one", bytes: 300_000 },
      { name: "tiny", bytes: 5 },
    ]);
    const { chainId, metadataPath, layerId, tarBytes, decodedPath } = layer;
    const one = { layerId, tarBytes, decodedPath, present: () => [] };
    chain = { chainId, metadataPath, layers: [one] };
  });
  afterEach(async () => {
    await fixture[Symbol.asyncDispose]();
  });

  function newClient(): KeeperClient {
    return fixture.client(async (_id, range) => ({ data: await readTar(layer, range) }));
  }

  async function open(mode: MountMode, keeper: KeeperClient): Promise<Rootfs> {
    const { stateDir } = fixture;
    const options = { stateDir, keeper, mode, clock: systemClock, log: silentLogger };
    return fixture.scope.use(await Rootfs.open(options));
  }

  async function mounted(): Promise<string[]> {
    const all = await readMountInfo();
    return all
      .map(({ mountpoint }) => mountpoint)
      .filter((one) => one.startsWith(fixture.stateDir));
  }

  async function isClean(): Promise<boolean> {
    const names = await Promise.all(
      ["c", "l"].map((name) => readdir(join(fixture.stateDir, name)).catch(() => [])),
    );
    return (await mounted()).length === 0 && names.flat().length === 0;
  }

  for (const mode of ["erofs", "fuse"] as const) {
    it(`is unmounted when no book names it, in ${mode} mode`, async () => {
      const first = newClient();
      await (await open(mode, first)).mountChain(chain, wait);
      await first[Symbol.asyncDispose]();
      // As if it had been killed after the mount and before the record of it.
      await rm(join(fixture.stateDir, "mounts.json"));
      assert.notDeepEqual(await mounted(), []);

      await open(mode, newClient());
      await until("nothing is mounted", isClean, QUIET_MS);
    });
  }

  it("is unmounted by the next keeper's client when it was released without a keeper", async () => {
    const keeper = newClient();
    const rootfs = await open("erofs", keeper);
    await rootfs.mountChain(chain, wait);
    await fixture.killKeeper();
    await until("the keeper is missed", () => !keeper.isConnected);
    assert.equal(await rootfs.releaseChain(chain.chainId, wait), true);
    assert.equal((await mounted()).length, 1);

    fixture.startKeeper();
    await until("nothing is mounted", isClean, QUIET_MS);
  });

  it("is unmounted a while after it was in use", async function () {
    this.timeout(20_000);
    const rootfs = await open("erofs", newClient());
    const { path } = await rootfs.mountChain(chain, wait);
    const target = join(fixture.folder, "merged");
    const folders = ["upper", "work"].map((name) => join(fixture.folder, name));
    for (const folder of [target, ...folders]) await mkdir(folder);
    const data = `lowerdir=${path},upperdir=${folders[0] ?? ""},workdir=${folders[1] ?? ""}`;
    await mount({ fsType: "overlay", source: "overlay", target, flags: 0, data });
    assert.equal(await rootfs.releaseChain(chain.chainId, wait), false);
    assert.equal(await sha256File(join(target, "one")), layer.files.get("one")?.sha256);

    await unmount(target, { detach: false });
    await until("nothing is mounted", isClean, QUIET_MS);
  });
});
