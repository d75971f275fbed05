/** What is killed under: one image as a container, or as a mounted view, from pull to removal. */
import {
  SNAPSHOTTER,
  compareTrees,
  run,
  unmountUnder,
  viewSnapshot,
  walkTree,
  type Containerd,
  type ImageFacts,
  type Lab,
  type RunResult,
  type TreeManifest,
} from "../lab/index.ts";

/** Of the base of all containers, and what they run. */
export const PROGRAM = "/bin/busybox";
const CTR_TIMEOUT_MS = 90_000;
const SNAPSHOTS = ["snapshots", "--snapshotter", SNAPSHOTTER];
/** The program itself has hundreds of names. */
const CHECKSUMS = `find / -xdev -type f -links 1 -exec sha256sum {} + && sha256sum ${PROGRAM}`;
/** docs/equality.md: containerd knows no times before 1970. */
const KNOWN_DIFFERENCE = ": mtime is -";
const DIFFERENCES_SHOWN = 5;

/** What a reader of the whole image saw. */
export interface Reading {
  /** Bytes or names that are not the image's: never allowed. */
  readonly wrong: readonly string[];
  /** Why it did not see everything: allowed where the keeper died. */
  readonly failure: string | undefined;
}

export interface Subject {
  readonly reference: string;
  /** Chain IDs of the image: the names of its committed snapshots. */
  readonly chainIds: readonly string[];
  readonly isLarge: boolean;
  pull(): Promise<void>;
  /** A container that stays, or a mounted view. Several may be there at once. */
  start(): Promise<Running>;
  /** Removes the image; its snapshots go with the garbage collection. */
  remove(): Promise<void>;
}

export interface Running {
  read(): Promise<Reading>;
  /** Ends and removes it, also where it came up by halves. */
  end(): Promise<void>;
}

export interface SubjectImage {
  readonly reference: string;
  readonly facts: ImageFacts;
  /** sha256 of all files of one name, and of PROGRAM, by absolute path; else `tree` is compared. */
  readonly files: ReadonlyMap<string, string> | undefined;
  readonly tree: TreeManifest | undefined;
}

interface Site {
  readonly lab: Lab;
  readonly containerd: Containerd;
  /** The tree is shown by fuse-native: docs/fuse-mode.md. */
  readonly isFuseMode: () => boolean;
}

/** runc keeps all containers of the machine in one folder, whatever containerd they are of. */
let containers = 0;

const quick = { timeoutMs: CTR_TIMEOUT_MS };
const anyway = { ...quick, allowFailure: true };

export function subjectOf(image: SubjectImage, site: Site): Subject {
  const { reference, facts } = image;
  const { containerd } = site;
  return {
    reference,
    chainIds: facts.chainIds,
    isLarge: image.files === undefined,
    pull: async () => {
      await containerd.pull(reference, { snapshotter: SNAPSHOTTER, ...quick });
    },
    start: () =>
      image.files === undefined
        ? startView(image, site)
        : startContainer(reference, image.files, containerd),
    remove: async () => {
      await containerd.ctr(["image", "rm", "--sync", reference], quick);
    },
  };
}

/** Its identity is known before it is up: one that comes up by halves can be removed. */
async function startContainer(
  reference: string,
  files: ReadonlyMap<string, string>,
  containerd: Containerd,
): Promise<Running> {
  containers += 1;
  const id = `kills-${process.pid}-${containers}`;
  let reads = 0;
  const end = async (): Promise<void> => {
    await containerd.ctr(["tasks", "rm", "--force", id], anyway);
    const removed = await containerd.ctr(["containers", "rm", id], anyway);
    if (removed.status !== 0) await containerd.ctr([...SNAPSHOTS, "rm", id], anyway);
  };
  const command = ["run", "--detach", "--snapshotter", SNAPSHOTTER, reference, id];
  try {
    await containerd.ctr([...command, "/bin/sleep", "100000"], quick);
  } catch (error) {
    await end();
    throw error;
  }
  return {
    read: async () => {
      reads += 1;
      const exec = ["tasks", "exec", "--exec-id", `read-${reads}`, id];
      return judgeChecksums(
        await containerd.ctr([...exec, "/bin/sh", "-c", CHECKSUMS], anyway),
        files,
      );
    },
    end,
  };
}

function judgeChecksums(result: RunResult, files: ReadonlyMap<string, string>): Reading {
  const seen = new Set<string>();
  const wrong: string[] = [];
  const lines = result.stdout.split("\n");
  // Cut off where its writer died: no whole line.
  lines.pop();
  for (const line of lines) {
    const [, digest = "", path = ""] = /^([0-9a-f]{64}) {2}(.*)$/.exec(line) ?? [];
    seen.add(path);
    if (files.get(path) !== digest) wrong.push(`${path}: ${digest}, not ${files.get(path) ?? ""}`);
  }
  const missing = [...files.keys()].filter((path) => !seen.has(path));
  const isWhole = result.status === 0 && result.stderr === "" && missing.length === 0;
  const end = result.killedBy ?? `status ${result.status ?? -1}`;
  const failure = `${end}, ${missing.length} of ${files.size} not read: ${result.stderr.trim()}`;
  return { wrong, failure: isWhole ? undefined : failure.slice(0, 600) };
}

async function startView(image: SubjectImage, site: Site): Promise<Running> {
  const { containerd, lab } = site;
  const folder = await lab.makeFolder("v");
  const key = folder.slice(folder.lastIndexOf("/") + 1);
  const end = async (): Promise<void> => {
    await unmountUnder(folder);
    await containerd.ctr([...SNAPSHOTS, "rm", key], anyway);
  };
  try {
    await viewSnapshot(containerd, SNAPSHOTTER, key, image.facts.chainIds.at(-1) ?? "");
    const { stdout } = await containerd.ctr([...SNAPSHOTS, "mounts", folder, key], quick);
    await run("sh", ["-ec", stdout]);
  } catch (error) {
    await end();
    throw error;
  }
  return {
    read: async () => {
      let tree: TreeManifest;
      try {
        tree = await walkTree(folder);
      } catch (error) {
        return { wrong: [], failure: String(error).slice(0, 600) };
      }
      const all = compareTrees(image.tree ?? new Map(), tree, { fuseNative: site.isFuseMode() });
      const found = all.filter((line) => !line.includes(KNOWN_DIFFERENCE));
      return { wrong: found.slice(0, DIFFERENCES_SHOWN), failure: undefined };
    },
    end,
  };
}
