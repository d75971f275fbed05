/** How a blob is compressed, told from its first bytes: media types lie. */
import type { LayerCompression } from "../../oci/index.ts";

/** A skippable frame with its length. */
const SKIPPABLE_HEADER_BYTES = 8;

/** Source: containerd pkg/archive/compression, DetectCompression. */
export function detectCompression(start: Uint8Array): LayerCompression {
  const bytes = Buffer.from(start.buffer, start.byteOffset, start.byteLength);
  if (bytes.length >= 3 && bytes.readUIntBE(0, 3) === 0x1f8b08) return "gzip";
  if (bytes.length < 4) return "none";
  const magic = bytes.readUInt32LE(0);
  if (magic === 0xfd2fb528) return "zstd";
  const isSkippable = (magic & 0xfffffff0) >>> 0 === 0x184d2a50;
  return isSkippable && bytes.length >= SKIPPABLE_HEADER_BYTES ? "zstd" : "none";
}
