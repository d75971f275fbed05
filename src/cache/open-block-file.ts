/** Opens one layer's sparse file and bitmap in one of the two stores. */
import { createHash } from "node:crypto";
import type { ByteRange } from "../base/range-set.ts";
import type { BlockTable } from "../block/index.ts";
import { BlockFile } from "./block-file.ts";
import type { PlaceOf } from "./block-file.ts";
import type { CacheFiles } from "./cache-files.ts";
import { PresenceFile } from "./presence-file.ts";
import type { StoreKind } from "./presence-file.ts";

/** What it opens is added to `owned` at once, for the caller to close also after a failure. */
export async function openBlockFile(
  files: CacheFiles,
  what: {
    readonly kind: StoreKind;
    readonly table: BlockTable;
    readonly dataPath: string;
    readonly presencePath: string;
    /** The bitmap is not believed. */
    readonly isDoubtful: boolean;
  },
  owned: AsyncDisposable[],
): Promise<{ readonly file: BlockFile; readonly allocatedBytes: number }> {
  const { kind, table } = what;
  const data = await files.open(what.dataPath);
  owned.push(data);
  const bits = await files.open(what.presencePath);
  owned.push(bits);
  const presence = await PresenceFile.open(bits, {
    kind,
    blockCount: table.count,
    tableSha256: createHash("sha256").update(table.bytes).digest(),
  });
  // The blob file grows as it is written; the decoded file is read as a whole device.
  const sizeBytes = kind === "decoded" ? Math.ceil(table.tarBytes / 512) * 512 : 0;
  const stat = await data.stat();
  if (stat.sizeBytes < sizeBytes) await data.truncate(sizeBytes);
  const file = new BlockFile(
    { data, presence, placeOf: placeIn(kind, table) },
    { blockCount: table.count, isDoubtful: what.isDoubtful },
  );
  return { file, allocatedBytes: stat.allocatedBytes };
}

function placeIn(kind: StoreKind, table: BlockTable): PlaceOf {
  if (kind === "blobs") {
    return (index): ByteRange => {
      const { blobOffset, blobLength } = table.at(index);
      return { start: blobOffset, end: blobOffset + blobLength };
    };
  }
  return (index): ByteRange => ({
    start: table.tarOffsetOf(index),
    end: index + 1 < table.count ? table.tarOffsetOf(index + 1) : table.tarBytes,
  });
}
