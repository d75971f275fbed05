import assert from "node:assert/strict";
import { DaemonError } from "../../../src/base/errors.ts";
import { encodeImageMap, parseImageMap, type ImageMap } from "../../../src/image/index.ts";
import { digestOf, parseDiffId } from "../../../src/oci/index.ts";

describe("image map", () => {
  const digest = digestOf(Buffer.from("x"));
  const map: ImageMap = {
    manifestDigest: digest,
    layers: [{ diffId: parseDiffId(digest), blobDigest: digest, blobBytes: 12, mediaType: "m" }],
  };

  it("survives encoding and parsing", () => {
    assert.deepEqual(parseImageMap(encodeImageMap(map)), map);
  });

  it("refuses malformed records", () => {
    const layer = { diffId: digest, blobDigest: digest, blobBytes: 1, mediaType: "m" };
    const record = (change: object): string =>
      JSON.stringify({ version: 1, manifestDigest: digest, layers: [layer], ...change });
    parseImageMap(Buffer.from(record({})));
    const malformed = [
      "",
      "null",
      "[]",
      record({ version: 2 }),
      record({ manifestDigest: "sha256:x" }),
      record({ layers: {} }),
      record({ layers: [null] }),
      record({ layers: Array(501).fill(layer) }),
      record({ layers: [{ ...layer, diffId: 5 }] }),
      record({ layers: [{ ...layer, blobBytes: -1 }] }),
      record({ layers: [{ ...layer, blobBytes: 1.5 }] }),
      record({ layers: [{ ...layer, mediaType: null }] }),
    ];
    for (const text of malformed) {
      assert.throws(
        () => parseImageMap(Buffer.from(text)),
        (error) => error instanceof DaemonError && error.code === "data-loss",
        text,
      );
    }
  });
});
