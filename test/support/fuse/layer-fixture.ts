/** A layer for mount tests: a data device with known files in it, and EROFS metadata over it. */
import { createHash } from "node:crypto";
import { open, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  defaultDirectory,
  ErofsInodeInput,
  FILE_TYPE,
  symlinkData,
  writeErofs,
} from "../../../src/erofs/index.ts";

export interface FixtureFile {
  readonly name: string;
  readonly bytes: number;
}

export interface LayerFixture {
  readonly layerId: string;
  readonly chainId: string;
  /** The whole stream: what a registry would hold. */
  readonly tarPath: string;
  readonly tarBytes: number;
  /** Sparse and empty: what the cache fills. */
  readonly decodedPath: string;
  readonly metadataPath: string;
  readonly files: ReadonlyMap<string, { readonly offset: number; readonly sha256: string }>;
}

const BLOCK_BYTES = 512;

function idOf(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** Never a zero byte: a hole that shows is found at once. */
function content(seed: number, bytes: number): Buffer {
  const data = Buffer.alloc(bytes);
  let state = (seed * 2_654_435_761 + 1) >>> 0;
  for (let at = 0; at < bytes; at += 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    data[at] = (state >>> 24) | 1;
  }
  return data;
}

export async function makeLayer(
  folder: string,
  name: string,
  files: readonly FixtureFile[],
): Promise<LayerFixture> {
  const tarPath = join(folder, `${name}.tar`);
  const tar = await open(tarPath, "w");
  const root = new ErofsInodeInput(defaultDirectory());
  const made = new Map<string, { offset: number; sha256: string }>();
  let offset = 0;
  const plain = { ...defaultDirectory(), mode: FILE_TYPE.regular | 0o644, mtimeSec: 1_600_000_000 };
  for (const [index, file] of files.entries()) {
    offset += BLOCK_BYTES; // the header's place
    const data = content(index + 1, file.bytes);
    await tar.write(data, 0, data.length, offset);
    made.set(file.name, { offset, sha256: createHash("sha256").update(data).digest("hex") });
    const extent = { fileOffset: 0, length: file.bytes, device: 1, deviceOffset: offset };
    const inode = new ErofsInodeInput(
      { ...plain, xattrs: new Map([["user.name", Buffer.from(file.name)]]) },
      { data: { kind: "extents", size: file.bytes, extents: [extent] } },
    );
    root.entries?.set(file.name, inode);
    if (index === 0) root.entries?.set("hard", inode);
    offset += Math.ceil(file.bytes / BLOCK_BYTES) * BLOCK_BYTES;
  }
  const link = { ...defaultDirectory(), mode: FILE_TYPE.symlink | 0o777 };
  root.entries?.set("link", new ErofsInodeInput(link, { data: symlinkData("target/of/link") }));
  const special = {
    ...plain,
    mode: FILE_TYPE.characterDevice | 0o600,
    rdevMajor: 5,
    rdevMinor: 300,
  };
  root.entries?.set("tty", new ErofsInodeInput(special));
  root.entries?.set("empty", new ErofsInodeInput({ ...plain, mode: FILE_TYPE.regular | 0o4755 }));
  root.entries?.set("caf\xe9", new ErofsInodeInput(plain));
  const folderInode = new ErofsInodeInput({
    ...defaultDirectory(),
    mode: FILE_TYPE.directory | 0o1777,
  });
  root.entries?.set("folder", folderInode);
  // The stream ends with its last file's last byte: the device is longer by its padding.
  await tar.close();
  const tarBytes = offset - BLOCK_BYTES + 100;
  await truncate(tarPath, tarBytes);
  const decodedPath = join(folder, `${name}.decoded`);
  await writeFile(decodedPath, "");
  await truncate(decodedPath, tarBytes);
  const metadataPath = join(folder, `${name}.erofs`);
  await writeFile(metadataPath, writeErofs(root, { devices: [{ bytes: offset }] }));
  return {
    layerId: idOf(`layer ${name}`),
    chainId: idOf(`chain ${name}`),
    tarPath,
    tarBytes,
    decodedPath,
    metadataPath,
    files: made,
  };
}

/** Copies a range of the stream into the decoded file, as the cache does after verification. */
export async function fillDecoded(
  layer: Pick<LayerFixture, "tarPath" | "decodedPath" | "tarBytes">,
  range: { readonly start: number; readonly end: number },
): Promise<void> {
  const from = await open(layer.tarPath, "r");
  const to = await open(layer.decodedPath, "r+");
  try {
    const length = Math.min(range.end, layer.tarBytes) - range.start;
    const buffer = Buffer.alloc(length);
    await from.read(buffer, 0, length, range.start);
    await to.write(buffer, 0, length, range.start);
  } finally {
    await from.close();
    await to.close();
  }
}

export async function readTar(
  layer: Pick<LayerFixture, "tarPath">,
  range: { readonly start: number; readonly end: number },
): Promise<Buffer> {
  const file = await open(layer.tarPath, "r");
  try {
    const buffer = Buffer.alloc(range.end - range.start);
    await file.read(buffer, 0, buffer.length, range.start);
    return buffer;
  } finally {
    await file.close();
  }
}
