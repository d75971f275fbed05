/** A snapshotter behind its socket, with a fake image provider, in a folder of its own. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../../src/base/clock.ts";
import { silentLogger } from "../../../src/base/log.ts";
import type { Logger } from "../../../src/base/log.ts";
import { Scope } from "../../../src/base/scope.ts";
import { Snapshotter, SnapshotterServer } from "../../../src/snapshotter/index.ts";
import type { ContainerdApi, SnapshotterOptions } from "../../../src/snapshotter/index.ts";
import { FakeProvider } from "./fake-provider.ts";

export interface TestDaemon extends AsyncDisposable {
  readonly root: string;
  readonly address: string;
  readonly provider: FakeProvider;
  readonly snapshotter: Snapshotter;
}

export async function temporaryFolder(scope: Scope, prefix: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), prefix));
  scope.defer(() => rm(folder, { recursive: true, force: true, maxRetries: 3 }));
  return folder;
}

export async function startDaemon(
  scope: Scope,
  options: {
    readonly folder: string;
    readonly containerd?: ContainerdApi;
    readonly log?: Logger;
    readonly overrides?: Partial<SnapshotterOptions>;
  },
): Promise<TestDaemon> {
  const { folder, containerd, log = silentLogger } = options;
  const root = join(folder, "root");
  const address = join(folder, "snapshotter.sock");
  const provider = new FakeProvider();
  const own = new Scope();
  const opening = Snapshotter.open({
    root,
    provider,
    containerd,
    clock: systemClock,
    log,
    ...options.overrides,
  });
  own.use(await SnapshotterServer.listen({ address, ready: opening, clock: systemClock, log }));
  const snapshotter = await opening;
  own.use(snapshotter);
  scope.use(own);
  const stop = (): Promise<void> => own[Symbol.asyncDispose]();
  return { root, address, provider, snapshotter, [Symbol.asyncDispose]: stop };
}
