/**
 * A real container on a mounted image: overlayfs above it, and runc with the image's own settings.
 * It has no network: what a container of these tests needs is its files.
 */
import { spawn } from "node:child_process";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { killGroup, labImage, registryStorage, run, type LabImageName } from "../lab/index.ts";

/** Docker's default set; runc's own is too small for root to read files of others. */
const CAPABILITIES = [
  ...["CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID"],
  ...["SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"],
].map((name) => `CAP_${name}`);

export interface ContainerOptions {
  /** Machine files that the container sees at the same path, read-only unless they end in `:rw`. */
  readonly binds?: readonly string[];
  readonly timeoutMs?: number;
  readonly env?: Readonly<Record<string, string>>;
}

export interface ContainerResult {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** From `runc run` to its end. */
  readonly seconds: number;
  /** From `runc run` to the first byte of output. */
  readonly firstOutputSeconds: number | undefined;
}

interface ImageSettings {
  readonly Env?: readonly string[];
  readonly WorkingDir?: string;
}

async function readBlob(digest: string): Promise<unknown> {
  const hex = digest.slice("sha256:".length);
  const blobs = join(registryStorage, "docker/registry/v2/blobs/sha256");
  return JSON.parse(await readFile(join(blobs, hex.slice(0, 2), hex, "data"), "utf8"));
}

async function settingsOf(image: LabImageName): Promise<ImageSettings> {
  const manifest = (await readBlob(labImage(image).digest)) as {
    readonly config: { readonly digest: string };
  };
  const config = (await readBlob(manifest.config.digest)) as { readonly config?: ImageSettings };
  return config.config ?? {};
}

let containers = 0;

export interface Bundle {
  readonly folder: string;
  readonly image: LabImageName;
  /** The image's tree, mounted. */
  readonly lower: string;
  readonly command: readonly string[];
}

/** Runs to the command's end and leaves no mount. `env` is the lab's, for its accounting. */
export async function runContainer(
  bundle: Bundle,
  labEnv: Readonly<Record<string, string>>,
  options: ContainerOptions = {},
): Promise<ContainerResult> {
  containers += 1;
  const id = `fnt-${process.pid}-${containers}`;
  const folder = join(bundle.folder, id);
  const root = join(folder, "rootfs");
  for (const name of ["rootfs", "upper", "work"]) {
    await mkdir(join(folder, name), { recursive: true });
  }
  const layers = [`lowerdir=${bundle.lower}`, `upperdir=${folder}/upper`, `workdir=${folder}/work`];
  await run("mount", ["-t", "overlay", "-o", layers.join(","), "overlay", root]);
  try {
    await writeFile(join(folder, "config.json"), JSON.stringify(await specOf(bundle, options)));
    return await runBundle(id, folder, { ...labEnv }, options.timeoutMs ?? 120_000);
  } finally {
    await run("umount", [root], { allowFailure: true });
    await rm(folder, { recursive: true, force: true });
  }
}

async function specOf(bundle: Bundle, options: ContainerOptions): Promise<object> {
  const settings = await settingsOf(bundle.image);
  const env = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ...(settings.Env ?? []),
    ...Object.entries(options.env ?? {}).map(([name, value]) => `${name}=${value}`),
  ];
  const capabilities = Object.fromEntries(
    ["bounding", "effective", "permitted"].map((set) => [set, CAPABILITIES]),
  );
  return {
    ociVersion: "1.0.2",
    process: {
      user: { uid: 0, gid: 0 },
      args: bundle.command,
      env,
      cwd:
        settings.WorkingDir === undefined || settings.WorkingDir === "" ? "/" : settings.WorkingDir,
      capabilities,
      noNewPrivileges: true,
    },
    root: { path: "rootfs", readonly: false },
    hostname: "node",
    mounts: [...SYSTEM_MOUNTS, ...(options.binds ?? []).map(bindMount)],
    linux: {
      namespaces: ["pid", "network", "ipc", "uts", "mount"].map((type) => ({ type })),
    },
  };
}

const SYSTEM_MOUNTS = [
  { destination: "/proc", type: "proc", source: "proc" },
  { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755"] },
  { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "ro"] },
];

function bindMount(bind: string): object {
  const path = bind.replace(/:rw$/, "");
  const options = ["rbind", bind.endsWith(":rw") ? "rw" : "ro"];
  return { destination: path, type: "bind", source: path, options };
}

async function runBundle(
  id: string,
  folder: string,
  labEnv: Readonly<Record<string, string>>,
  timeoutMs: number,
): Promise<ContainerResult> {
  const started = performance.now();
  const runc = ["--root", join(folder, "runc"), "run", "--bundle", folder, id];
  const child = spawn("setpriv", ["--pdeathsig", "KILL", "--", "runc", ...runc], {
    env: { ...process.env, ...labEnv },
    stdio: ["ignore", "pipe", "pipe"],
    cwd: "/",
    detached: true,
  });
  const output = { stdout: "", stderr: "" };
  let firstOutputSeconds: number | undefined;
  child.stdout.on("data", (chunk: Buffer) => {
    firstOutputSeconds ??= (performance.now() - started) / 1000;
    output.stdout += chunk.toString("latin1");
  });
  child.stderr.on("data", (chunk: Buffer) => {
    output.stderr += chunk.toString("latin1");
  });
  const limit = setTimeout(() => {
    killGroup(child.pid, "SIGKILL");
  }, timeoutMs);
  try {
    const status = await new Promise<number | null>((resolve, reject) => {
      child.once("error", reject).once("close", resolve);
    });
    const seconds = (performance.now() - started) / 1000;
    return { status, ...output, seconds, firstOutputSeconds };
  } finally {
    clearTimeout(limit);
    // After a kill of runc the container is left: end it, and forget it.
    await run("runc", ["--root", join(folder, "runc"), "delete", "--force", id], {
      allowFailure: true,
    });
  }
}
