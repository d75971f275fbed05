/** Mounting merged EROFS metadata over its layers' data devices: from files, or by loop devices. */
import { attachLoop, mount, mountReadOnly, MS_RDONLY, nativeErrno } from "../base/native.ts";
import type { LoopDevice } from "../base/native.ts";
import { Scope } from "../base/scope.ts";

export interface ErofsMount {
  readonly metadataPath: string;
  /** The layers' data devices, bottom first. */
  readonly devicePaths: readonly string[];
  readonly target: string;
  /** SELinux context of all files. */
  readonly context?: string | undefined;
}

type Parameter = readonly [key: string, value: string];

function parameters(request: ErofsMount, devices: readonly string[]): Parameter[] {
  const list: Parameter[] = devices.map((path) => ["device", path]);
  if (request.context !== undefined) list.push(["context", request.context]);
  return list;
}

async function mountFrom(
  source: string,
  target: string,
  options: readonly Parameter[],
): Promise<void> {
  try {
    await mountReadOnly({ fsType: "erofs", source, target, parameters: options });
  } catch (error) {
    if (nativeErrno(error) !== "ENOSYS") throw error;
    // No fsopen(2) (a seccomp filter): mount(2), whose options are limited to a page.
    const data = options.map(([key, value]) => `${key}=${value}`);
    await mount({ fsType: "erofs", source, target, flags: MS_RDONLY, data: data.join(",") });
  }
}

/** File-backed: Linux 6.12 and later; the metadata may not lie on tmpfs. */
export async function mountErofsFiles(request: ErofsMount): Promise<void> {
  const options = parameters(request, request.devicePaths);
  await mountFrom(request.metadataPath, request.target, options);
}

/** By loop devices, which the kernel detaches again when the mount goes. */
export async function mountErofsLoops(request: ErofsMount): Promise<void> {
  const scope = new Scope();
  try {
    const metadata = scope.use(await attachLoop(request.metadataPath, { isDirect: false }));
    // A layer may come twice in a chain, but a block device opens once for a mount.
    const loops: LoopDevice[] = [];
    for (const path of request.devicePaths) {
      loops.push(scope.use(await attachLoop(path, { isDirect: true })));
    }
    const devices = loops.map((loop) => loop.path);
    const options = parameters(request, devices);
    await mountFrom(metadata.path, request.target, options);
  } finally {
    await scope[Symbol.asyncDispose]();
  }
}
