/** What the running kernel needs of overlay mounts, found out as containerd does. */
import { access, readFile } from "node:fs/promises";

export interface KernelOverlay {
  readonly indexOff: boolean;
  readonly userXattr: boolean;
}

/** Source: user_namespaces(7): the initial namespace maps the whole range onto itself. */
export function isInitialUserNamespace(uidMap: string): boolean {
  return /^\s*0\s+0\s+4294967295\s*$/.test(uidMap);
}

/** Overlay mounts in a user namespace need Linux 5.11, which also brought `userxattr`. */
export async function detectOverlay(): Promise<KernelOverlay> {
  const [indexOff, uidMap] = await Promise.all([
    access("/sys/module/overlay/parameters/index").then(
      () => true,
      () => false,
    ),
    readFile("/proc/self/uid_map", "utf8").catch(() => "0 0 4294967295"),
  ]);
  return { indexOff, userXattr: !isInitialUserNamespace(uidMap) };
}
