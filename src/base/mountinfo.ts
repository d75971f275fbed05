/** The kernel's table of mounts. Source: proc_pid_mountinfo(5). Reading it touches no mount. */
import { readFile } from "node:fs/promises";

export interface MountInfo {
  readonly mountId: number;
  readonly parentId: number;
  /** `major:minor` of the file system, as in /sys/class/bdi. */
  readonly device: string;
  readonly mountpoint: string;
  /** `erofs`, `overlay`, `fuse.faasnet`, … */
  readonly fsType: string;
  readonly source: string;
  readonly superOptions: string;
}

/** Space, tab, newline and backslash are written as three octal digits. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_all, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

function parseLine(line: string): MountInfo | undefined {
  // The optional fields between the mount options and the lone hyphen are zero or more.
  const fields = line.split(" ");
  const hyphen = fields.indexOf("-", 6);
  const [mountId, parentId, device, , mountpoint] = fields;
  const [fsType, source, superOptions] = hyphen < 0 ? [] : fields.slice(hyphen + 1);
  if (mountpoint === undefined || device === undefined || fsType === undefined) return undefined;
  return {
    mountId: Number(mountId),
    parentId: Number(parentId),
    device,
    mountpoint: unescapeOctal(mountpoint),
    fsType,
    source: unescapeOctal(source ?? ""),
    superOptions: unescapeOctal(superOptions ?? ""),
  };
}

/** In the kernel's order: of several mounts at one place the last one is on top. */
export function parseMountInfo(text: string): MountInfo[] {
  const mounts: MountInfo[] = [];
  for (const line of text.split("\n")) {
    const mount = line === "" ? undefined : parseLine(line);
    if (mount !== undefined) mounts.push(mount);
  }
  return mounts;
}

export async function readMountInfo(): Promise<MountInfo[]> {
  return parseMountInfo(await readFile("/proc/self/mountinfo", "utf8"));
}

/** The mount that an absolute path lies on, by its name alone: links are not followed. */
export function mountHolding(mounts: readonly MountInfo[], path: string): MountInfo | undefined {
  const holds = ({ mountpoint }: MountInfo): boolean =>
    mountpoint === "/" || path === mountpoint || path.startsWith(`${mountpoint}/`);
  let found: MountInfo | undefined;
  for (const mount of mounts) {
    const isDeeper = mount.mountpoint.length >= (found?.mountpoint.length ?? 0);
    if (holds(mount) && isDeeper) found = mount;
  }
  return found;
}

/** The mount that a path lookup of the mountpoint itself ends in, or undefined. */
export function mountAt(mounts: readonly MountInfo[], mountpoint: string): MountInfo | undefined {
  return mounts.findLast((mount) => mount.mountpoint === mountpoint);
}
