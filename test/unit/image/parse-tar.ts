/** Runs the parser or the tree builder over bytes, in pieces of any size. */
import { TarParser, type TarParserLimits } from "../../../src/image/tar/parser.ts";
import type { TarEntry } from "../../../src/image/tar/entry.ts";
import { TreeBuilder } from "../../../src/image/tree/tree-builder.ts";
import type { ErofsInodeInput } from "../../../src/erofs/index.ts";

export function parseTar(
  tar: Uint8Array,
  options: { readonly pieceBytes?: number; readonly limits?: Partial<TarParserLimits> } = {},
): TarEntry[] {
  const entries: TarEntry[] = [];
  const parser = new TarParser((entry) => {
    entries.push(entry);
  }, options.limits);
  const pieceBytes = options.pieceBytes ?? tar.length;
  for (let start = 0; start < tar.length; start += pieceBytes) {
    // A copy that is wiped afterwards, as callers reuse their buffers.
    const piece = Buffer.from(tar.subarray(start, start + pieceBytes));
    parser.push(piece);
    piece.fill(0xaa);
  }
  parser.finish();
  return entries;
}

export function buildTree(tar: Uint8Array): TreeBuilder {
  const tree = new TreeBuilder();
  for (const entry of parseTar(tar)) tree.add(entry);
  return tree;
}

export function lookup(tree: TreeBuilder, path: string): ErofsInodeInput | undefined {
  let inode: ErofsInodeInput | undefined = tree.root;
  for (const name of path.split("/").filter((part) => part !== "")) {
    inode = inode?.entries?.get(name);
  }
  return inode;
}

export function modeOf(tree: TreeBuilder, path: string): string | undefined {
  return lookup(tree, path)?.attributes.mode.toString(8);
}
