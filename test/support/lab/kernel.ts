/** What the kernel shows of the lab: mounts, processes and their memory. */
import { readFile, readdir, readlink } from "node:fs/promises";
import { run } from "./process.ts";

export interface MountEntry {
  readonly id: number;
  readonly root: string;
  readonly path: string;
  readonly type: string;
  readonly source: string;
  readonly options: string;
}

/** Source: proc_pid_mountinfo(5): space, tab, newline and backslash are octal escapes. */
function unescape(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_all, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

export async function mounts(): Promise<readonly MountEntry[]> {
  const text = await readFile("/proc/self/mountinfo", "latin1");
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const [before = "", after = ""] = line.split(" - ");
      const fields = before.split(" ");
      const [type = "", source = "", options = ""] = after.split(" ");
      return {
        id: Number(fields[0]),
        root: unescape(fields[3] ?? ""),
        path: unescape(fields[4] ?? ""),
        type,
        source: unescape(source),
        options: unescape(options),
      };
    });
}

export async function mountsUnder(folder: string): Promise<readonly MountEntry[]> {
  const all = await mounts();
  return all.filter((entry) => entry.path === folder || entry.path.startsWith(`${folder}/`));
}

/** Unmounts everything at or below a folder, the last mounted first. */
export async function unmountUnder(folder: string): Promise<void> {
  for (let round = 0; round < 3; round += 1) {
    const found = await mountsUnder(folder);
    if (found.length === 0) return;
    for (const entry of [...found].reverse()) {
      // No canonical path: that would ask a file system whose server may be dead.
      const quick = ["--internal-only", "--no-canonicalize"];
      const done = await run("umount", [...quick, entry.path], { allowFailure: true });
      if (done.status !== 0) {
        await run("umount", [...quick, "--lazy", entry.path], { allowFailure: true });
      }
    }
  }
}

async function readProc(pid: number, file: string): Promise<string> {
  return readFile(`/proc/${pid}/${file}`, "latin1").catch(() => "");
}

export interface ProcessEntry {
  readonly pid: number;
  readonly command: string;
}

/**
 * The processes that belong to a folder: it is in their environment (handed down by the lab), on
 * their command line (a shim), or their root file system comes from it (a container).
 */
export async function processesOf(folder: string): Promise<readonly ProcessEntry[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(Number);
  const found: ProcessEntry[] = [];
  for (const pid of pids) {
    if (pid === process.pid) continue;
    const command = (await readProc(pid, "cmdline")).replaceAll("\0", " ").trim();
    const belongs =
      command.includes(folder) ||
      (await readProc(pid, "environ")).includes(`FAASNET_LAB=${folder}\0`) ||
      (await isContainerOf(pid, folder));
    if (belongs && !(await isZombie(pid))) found.push({ pid, command });
  }
  return found;
}

async function isContainerOf(pid: number, folder: string): Promise<boolean> {
  const namespace = async (of: string): Promise<string> =>
    readlink(`/proc/${of}/ns/mnt`).catch(() => "");
  const theirs = await namespace(String(pid));
  if (theirs === "" || theirs === (await namespace("self"))) return false;
  return (await readProc(pid, "mountinfo")).includes(`${folder}/`);
}

async function isZombie(pid: number): Promise<boolean> {
  const stat = await readProc(pid, "stat");
  return stat === "" || stat.slice(stat.lastIndexOf(")") + 2).startsWith("Z");
}

/** Proportional set size in bytes: shared pages counted by their share. */
export async function pssOf(pid: number): Promise<number> {
  const text = await readProc(pid, "smaps_rollup");
  return Number(/^Pss:\s+(\d+) kB$/m.exec(text)?.[1] ?? 0) * 1024;
}

/** Drops the page cache and the caches of names and inodes: a file system's "cold". */
export async function dropCaches(): Promise<void> {
  await run("sh", ["-c", "sync; echo 3 > /proc/sys/vm/drop_caches"]);
}
