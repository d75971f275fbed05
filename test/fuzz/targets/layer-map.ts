/** Layer maps and image maps: files that another machine may have made. */
import { createHash } from "node:crypto";
import { rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { threadId } from "node:worker_threads";
import { crc32, deflateRawSync } from "node:zlib";
import { BlockTableBuilder } from "../../../src/block/block-table.ts";
import { encodeImageMap, openLayerMap, parseImageMap } from "../../../src/image/index.ts";
import {
  encodeHead,
  LAYER_MAP_HEAD_BYTES,
  sectionPadding,
  type Section,
} from "../../../src/image/layer-map/format.ts";
import { encodeInfo } from "../../../src/image/layer-map/info.ts";
import { parseDiffId, parseDigest } from "../../../src/oci/index.ts";
import { tolerateAsync } from "../target.ts";
import type { FuzzTarget } from "../target.ts";
import { erofsSamples } from "./erofs.ts";

const DIGEST = parseDigest(`sha256:${"5a".repeat(32)}`);
const DIFF_ID = parseDiffId(`sha256:${"a5".repeat(32)}`);
const NO_DIGEST = new Uint8Array(32);

function sha256(bytes: Uint8Array): Buffer {
  return createHash("sha256").update(bytes).digest();
}

function storedWindow(): Buffer {
  const window = Buffer.from("window ".repeat(400));
  const crc = Buffer.alloc(4);
  crc.writeUInt32LE(crc32(window));
  return Buffer.concat([deflateRawSync(window), crc]);
}

function mapSample(): Buffer {
  const window = storedWindow();
  const table = new BlockTableBuilder();
  for (const index of [0, 1]) {
    table.add({
      tarOffset: 1024 * index,
      tarLength: 1024,
      blobOffset: 300 * index,
      blobLength: 300,
      codec: "gzip",
      startBits: index * 3,
      atMemberStart: index === 0,
      windowOffset: 0,
      windowLength: index === 0 ? 0 : window.length,
      blobSha256: NO_DIGEST,
      tarSha256: NO_DIGEST,
    });
  }
  const counts = { files: 1, directories: 1, symlinks: 0, hardLinks: 0, specials: 0, whiteouts: 0 };
  const info = encodeInfo({
    diffId: DIFF_ID,
    blobDigest: DIGEST,
    blobBytes: 600,
    tarBytes: 2048,
    mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
    compression: "gzip",
    entries: 2,
    fileBytes: 10,
    ...counts,
  });
  const body: Buffer[] = [];
  let position = LAYER_MAP_HEAD_BYTES;
  const append = (bytes: Buffer): Section => {
    const padding = Buffer.alloc(sectionPadding(position));
    const offset = position + padding.length;
    body.push(padding, bytes);
    position = offset + bytes.length;
    return { offset, length: bytes.length, sha256: sha256(bytes) };
  };
  const sections = {
    windows: append(window),
    blocks: append(table.finish()),
    meta: append(erofsSamples()[0] ?? Buffer.alloc(0)),
    info: append(info),
  };
  return Buffer.concat([encodeHead(sections, position), ...body]);
}

/** File size, digests of the sections where the table puts them, digest of the table. */
function repairMap(bytes: Buffer): Buffer {
  if (bytes.length < LAYER_MAP_HEAD_BYTES) return bytes;
  bytes.writeBigUInt64LE(BigInt(bytes.length), 16);
  for (let base = 64; base < LAYER_MAP_HEAD_BYTES; base += 64) {
    const start = Number(bytes.readBigUInt64LE(base + 8));
    const end = start + Number(bytes.readBigUInt64LE(base + 16));
    if (start <= end && end <= bytes.length) {
      bytes.set(sha256(bytes.subarray(start, end)), base + 32);
    }
  }
  bytes.set(sha256(bytes.subarray(64, LAYER_MAP_HEAD_BYTES)), 32);
  return bytes;
}

const LAYER_MAP: FuzzTarget = {
  name: "layer-map",
  seeds: () => [mapSample()],
  repair: repairMap,
  run: async (bytes) => {
    const path = join(tmpdir(), `faasnet-fuzz-${process.pid}-${threadId}.map`);
    writeFileSync(path, bytes);
    try {
      await using map = await openLayerMap(path);
      await tolerateAsync(() => map.verify());
      await tolerateAsync(() => map.readMetadata());
      for (let index = 0; index < map.blockTable.count; index += 1) {
        await tolerateAsync(() => map.readWindow(map.blockTable.at(index)));
      }
    } finally {
      rmSync(path, { force: true });
    }
  },
};

const IMAGE_MAP: FuzzTarget = {
  name: "image-map",
  seeds: () => {
    const layer = { diffId: DIFF_ID, blobDigest: DIGEST, blobBytes: 12, mediaType: "layer" };
    return [encodeImageMap({ manifestDigest: DIGEST, layers: [layer, layer] })];
  },
  run: (bytes) => {
    parseImageMap(encodeImageMap(parseImageMap(bytes)));
  },
};

export const MAP_TARGETS: readonly FuzzTarget[] = [LAYER_MAP, IMAGE_MAP];
