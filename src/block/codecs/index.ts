/** Codecs: from blob bytes to tar bytes. Re-exported by the module's door. */
export { decodeBlock } from "./decode-block.ts";
export { alignDeflate } from "./gzip-block.ts";
export { GZIP_HEADER_BYTES_MAX, GZIP_TRAILER_BYTES, gzipHeaderLength } from "./gzip-header.ts";
export { decodeFrame, ZSTD_WHOLE_FRAME_BYTES_MAX } from "./zstd-block.ts";
export { decodeZstdFrame, openZstdFrame, type ZstdFrameDecoder } from "./zstd-engine.ts";
export { ZstdScanner, type ZstdPart } from "./zstd-scan.ts";
