/**
 * Counting and deleting whole folders, asynchronously and with few calls under way, so that a
 * large layer neither holds the event loop nor fills libuv's queue.
 * Paths are Buffers: names in a layer are bytes, not UTF-8.
 */
import { lstat, readdir, rmdir, unlink } from "node:fs/promises";
import { throwIfAborted } from "../base/abort.ts";
import { systemErrorName } from "../base/errors.ts";
import { SCAN_STATS_MAX } from "./limits.ts";
import type { SnapshotUsage } from "./snapshot-info.ts";

/** Source: stat(2): st_blocks counts 512-byte units whatever the file system. */
const STAT_BLOCK_BYTES = 512n;
const SLASH = Buffer.from("/");

function below(folder: Buffer, name: Buffer): Buffer {
  return Buffer.concat([folder, SLASH, name]);
}

/** Runs `work` over the items, a few at a time. */
async function forEachLimited<T>(
  items: readonly T[],
  work: (item: T) => Promise<void>,
): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    for (;;) {
      const item = items[next];
      if (next >= items.length || item === undefined) return;
      next += 1;
      await work(item);
    }
  };
  await Promise.all(Array.from({ length: Math.min(SCAN_STATS_MAX, items.length) }, worker));
}

function isGone(error: unknown): boolean {
  return ["ENOENT", "ENOTDIR"].includes(systemErrorName(error) ?? "");
}

/** A container may delete what is being counted: that then counts as nothing. */
async function orGone<T>(promise: Promise<T>): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

/**
 * Disk blocks and inodes below and with `path`; a hard-linked file counts once.
 * Source: containerd continuity fs.DiskUsage.
 */
export async function diskUsage(
  path: string,
  { signal }: { readonly signal: AbortSignal },
): Promise<SnapshotUsage> {
  let blocks = 0n;
  let inodes = 0;
  const linked = new Set<string>();
  const folders: Buffer[] = [];
  const count = async (entry: Buffer): Promise<void> => {
    throwIfAborted(signal);
    const stats = await orGone(lstat(entry, { bigint: true }));
    if (stats === undefined) return;
    if (stats.isDirectory()) {
      folders.push(entry);
    } else if (stats.nlink > 1n) {
      const identity = `${stats.dev}:${stats.ino}`;
      if (linked.has(identity)) return;
      linked.add(identity);
    }
    blocks += stats.blocks;
    inodes += 1;
  };
  await count(Buffer.from(path));
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    const parent = folder;
    const names = (await orGone(readdir(parent, { encoding: "buffer" }))) ?? [];
    await forEachLimited(names, (name) => count(below(parent, name)));
  }
  return { bytes: Number(blocks * STAT_BLOCK_BYTES), inodes };
}

/** Deletes a folder and all below it; what is gone already is fine. Follows no symlink. */
export async function removeTree(
  path: string,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  await removeFolder(Buffer.from(path), signal);
}

async function removeFolder(folder: Buffer, signal: AbortSignal): Promise<void> {
  throwIfAborted(signal);
  const entries =
    (await orGone(readdir(folder, { encoding: "buffer", withFileTypes: true }))) ?? [];
  const folders: Buffer[] = [];
  await forEachLimited(entries, async (entry) => {
    const path = below(folder, entry.name);
    if (entry.isDirectory()) folders.push(path);
    else await orGone(unlink(path));
  });
  // One after the other: depth, not breadth, decides how many folders are held in memory.
  for (const child of folders) await removeFolder(child, signal);
  await orGone(rmdir(folder));
}
