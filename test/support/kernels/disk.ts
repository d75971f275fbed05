/**
 * The disk of the virtual machines: an ext4 image with Node, this build of the program and its
 * production packages, the guest's part of the tests and an image to mount. Made without mounting
 * anything. EROFS metadata cannot be mounted from a tmpfs, so an initramfs alone would not do.
 */
import { access, chmod, copyFile, cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { packageRoot } from "../../../src/base/package-root.ts";
import { run } from "../fuse/keeper-fixture.ts";
import { treeWalker } from "../lab/tree.ts";
import { makeTestImage } from "./image.ts";
import { buildPageReader } from "./page-reader.ts";

const DISK_SIZE = "1G";
/** The output of the compiler that this file is part of. */
const BUILD = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "..");
const GUEST = "/faasnet/dist/test/support/kernels/guest.js";

const GUEST_SCRIPT = `#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t tmpfs tmpfs /run
mkdir -p /tmp /mnt /var/lib/faasnet
export HOME=/ PATH=/bin:/sbin:/usr/bin LD_LIBRARY_PATH=/lib UV_THREADPOOL_SIZE=8
node ${GUEST}
echo "RESULT {\\"kind\\":\\"end\\",\\"status\\":$?}"
poweroff -f
`;

/** Makes the disk image at `path`, with `folder` for what goes into it. */
export async function makeDisk(folder: string, path: string): Promise<void> {
  const root = join(folder, "disk");
  for (const name of ["bin", "sbin", "lib", "lib64", "proc", "sys", "dev", "run", "usr/bin"]) {
    await mkdir(join(root, name), { recursive: true });
  }
  await copyFile("/bin/busybox", join(root, "bin", "busybox"));
  await writeFile(join(root, "sbin", "guest"), GUEST_SCRIPT);
  await chmod(join(root, "sbin", "guest"), 0o755);
  await copyFile(process.execPath, join(root, "usr", "bin", "node"));
  await copyProgram(join(root, "faasnet"));
  const native = join(packageRoot(), "node_modules", "fuse-native", "prebuilds", "linux-x64");
  const linked = [process.execPath, await treeWalker(), join(native, "node.napi.node")];
  for (const binary of linked) await copyLibraries(binary, root);
  const imageFolder = join(folder, "image");
  await mkdir(imageFolder);
  const image = await makeTestImage(imageFolder);
  await cp(image.layout, join(root, "image", "layout"), { recursive: true });
  await writeFile(join(root, "image", "expected"), image.expected);
  await rm(path, { force: true });
  const options = ["-q", "-F", "-O", "^has_journal", "-d", root];
  await run("/sbin/mkfs.ext4", [...options, path, DISK_SIZE]);
  await rm(root, { recursive: true });
}

/** As it lies in a checkout, so that everything finds itself. */
async function copyProgram(target: string): Promise<void> {
  const source = packageRoot();
  const copy = async (name: string, from = join(source, name)): Promise<void> => {
    await mkdir(dirname(join(target, name)), { recursive: true });
    await cp(from, join(target, name), { recursive: true });
  };
  for (const name of ["package.json", "bin", "proto"]) await copy(name);
  for (const name of ["src", "test/support"]) await copy(join("dist", name), join(BUILD, name));
  for (const name of await productionPackages(source)) await copy(name);
  for (const name of ["lab/tree-walk.c", "kernels/page-reader.c"]) {
    await copy(join("test", "support", name));
  }
  for (const binary of [await treeWalker(), await buildPageReader()]) {
    await copy(relative(source, binary));
  }
}

/** The folders that package-lock.json says the program itself needs, as far as they are there. */
async function productionPackages(source: string): Promise<string[]> {
  const text = await readFile(join(source, "package-lock.json"), "utf8");
  const { packages } = JSON.parse(text) as {
    readonly packages: Readonly<Record<string, { readonly dev?: boolean }>>;
  };
  const wanted = Object.entries(packages)
    .filter(([name, about]) => name !== "" && about.dev !== true)
    .map(([name]) => name);
  const present = await Promise.all(wanted.map((name) => exists(join(source, name))));
  return wanted.filter((_name, index) => present[index]);
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false; // of another platform
  }
}

/** The shared libraries that a program or an addon loads, and the loader. */
async function copyLibraries(binary: string, root: string): Promise<void> {
  const text = await run("ldd", [binary]);
  for (const [path] of text.matchAll(/\/[^ ()]+\.so[^ ()]*/g)) {
    const folder = basename(path).startsWith("ld-linux") ? "lib64" : "lib";
    await copyFile(path, join(root, folder, basename(path)));
  }
}
