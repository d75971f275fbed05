/** A Snapshotter on a real disk, with containerd and the image service played by fakes. */
import assert from "node:assert/strict";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { DaemonError } from "../../../src/base/errors.ts";
import { systemClock } from "../../../src/base/clock.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { Scope } from "../../../src/base/scope.ts";
import { digestHex } from "../../../src/oci/index.ts";
import type { ChainId } from "../../../src/oci/index.ts";
import { Snapshotter } from "../../../src/snapshotter/index.ts";
import type { Mount, SnapshotInfo, SnapshotterOptions } from "../../../src/snapshotter/index.ts";
import { LABEL_SNAPSHOT_REF } from "../../../src/snapshotter/labels.ts";
import { temporaryFolder } from "./daemon.ts";
import { FakeContainerd } from "./fake-containerd.ts";
import { FakeProvider } from "./fake-provider.ts";

const { signal } = new AbortController();
const SOURCE = new Map([["containerd.io/distribution.source.reg.example", "app"]]);

export class SnapshotterBench implements AsyncDisposable {
  readonly root: string;
  readonly provider = new FakeProvider();
  readonly containerd = new FakeContainerd();
  readonly #scope: Scope;
  #own = new Scope();
  #snapshotter: Snapshotter | undefined;

  private constructor(scope: Scope, root: string) {
    this.#scope = scope;
    this.root = root;
  }

  static async create(): Promise<SnapshotterBench> {
    const scope = new Scope();
    const root = join(await temporaryFolder(scope, "fn-life-"), "root");
    const bench = new SnapshotterBench(scope, root);
    await bench.open();
    return bench;
  }

  get snapshotter(): Snapshotter {
    assert.ok(this.#snapshotter !== undefined);
    return this.#snapshotter;
  }

  async open(overrides: Partial<SnapshotterOptions> = {}): Promise<void> {
    this.#own = this.#scope.use(new Scope());
    this.#snapshotter = this.#own.use(
      await Snapshotter.open({
        root: this.root,
        provider: this.provider,
        containerd: this.containerd,
        clock: systemClock,
        log: silentLogger,
        ...overrides,
      }),
    );
  }

  async close(): Promise<void> {
    await this.#own[Symbol.asyncDispose]();
  }

  async reopen(overrides: Partial<SnapshotterOptions> = {}): Promise<void> {
    await this.close();
    await this.open(overrides);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scope[Symbol.asyncDispose]();
  }

  async prepare(
    key: string,
    parent = "",
    labels: Readonly<Record<string, string>> = {},
  ): Promise<Mount[]> {
    const input = { key, parent, labels: new Map(Object.entries(labels)), namespace: "default" };
    return this.snapshotter.prepare(input, { signal });
  }

  async view(key: string, parent: string): Promise<Mount[]> {
    const input = { key, parent, labels: new Map<string, string>(), namespace: "" };
    return this.snapshotter.view(input, { signal });
  }

  async commit(name: string, key: string, labels: Record<string, string> = {}): Promise<void> {
    const input = { name, key, parent: "", labels: new Map(Object.entries(labels)) };
    await this.snapshotter.commit(input);
  }

  async layer(name: string, parent = ""): Promise<void> {
    await this.prepare(`${name}-key`, parent);
    await this.commit(name, `${name}-key`);
  }

  /** As the unpacker does: the layer's chain ID as the wanted snapshot. */
  async pull(chain: ChainId, parent: string, key: string): Promise<"claimed" | Mount[]> {
    try {
      return await this.prepare(key, parent, { [LABEL_SNAPSHOT_REF]: chain });
    } catch (error) {
      assert.ok(error instanceof DaemonError && error.code === "already-exists", String(error));
      return "claimed";
    }
  }

  /** As containerd's metadata layer looks the claimed snapshot up after AlreadyExists. */
  lookUp(chain: ChainId, parent: string): SnapshotInfo {
    const filter = `labels."${LABEL_SNAPSHOT_REF}"==${chain},parent==${JSON.stringify(parent)}`;
    const [found] = this.snapshotter.list([filter]).filter(({ kind }) => kind === "committed");
    assert.ok(found !== undefined, `containerd finds no snapshot of ${chain} on "${parent}"`);
    return found;
  }

  /** The image service has complete maps of these chains. */
  async trees(...chains: readonly ChainId[]): Promise<void> {
    for (const chain of chains) {
      const folder = join(this.root, "..", digestHex(chain).slice(-8));
      await mkdir(folder, { recursive: true });
      this.provider.known.set(chain, folder);
    }
  }

  /** An image of two layers, in containerd's content store: its two chains. */
  image(base = "a", top = "b"): readonly [ChainId, ChainId] {
    const [first, second] = this.containerd.add({ seeds: [base, top], labels: SOURCE }).chains;
    assert.ok(first !== undefined && second !== undefined);
    return [first, second];
  }

  async snapshotFolders(): Promise<string[]> {
    return (await readdir(join(this.root, "snapshots"))).toSorted();
  }
}
