/** Tar archives for tests, written by tar-stream. */
import { pack } from "tar-stream";

export interface TarEntry {
  readonly name: string;
  readonly bytes?: Uint8Array;
  readonly linkTo?: string;
  readonly hardLinkTo?: string;
  readonly isFolder?: boolean;
}

export async function tarOf(entries: readonly TarEntry[]): Promise<Buffer> {
  const writer = pack();
  for (const { name, bytes, linkTo, hardLinkTo, isFolder } of entries) {
    if (linkTo !== undefined) writer.entry({ name, type: "symlink", linkname: linkTo });
    else if (hardLinkTo !== undefined) writer.entry({ name, type: "link", linkname: hardLinkTo });
    else if (isFolder === true) writer.entry({ name, type: "directory" });
    else writer.entry({ name }, Buffer.from(bytes ?? ""));
  }
  writer.finalize();
  const pieces: Uint8Array[] = [];
  for await (const piece of writer as AsyncIterable<Uint8Array>) pieces.push(piece);
  return Buffer.concat(pieces);
}
