/** Manifests, indexes, configs, media types and the fetch plan: sound ones and hostile ones. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { DaemonError } from "../../../src/base/errors.ts";
import {
  digestOf,
  layerKindOf,
  MEDIA_TYPES,
  parseImageConfig,
  parseImageIndex,
  parseImageManifest,
  parseManifestDocument,
  planFetch,
  verifyContent,
} from "../../../src/oci/index.ts";
import { fakeImage, fakeIndex } from "../../support/registry/fake-image.ts";

const DIGEST = digestOf(Buffer.from("x"));

function bytesOf(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

function throwsCode(work: () => unknown, code: string): void {
  assert.throws(work, (error) => {
    assert.ok(error instanceof DaemonError, String(error));
    assert.equal(error.code, code, error.message);
    return true;
  });
}

function manifest(changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.ociManifest,
    config: { mediaType: MEDIA_TYPES.ociConfig, digest: DIGEST, size: 1 },
    layers: [],
    ...changes,
  };
}

describe("parseManifestDocument", () => {
  it("reads OCI and Docker manifests and their layers in order", () => {
    for (const mediaType of [MEDIA_TYPES.ociManifest, MEDIA_TYPES.dockerManifest]) {
      const image = fakeImage({
        layers: [Buffer.from("a"), Buffer.from("bb")],
        manifestMediaType: mediaType,
      });
      const parsed = parseImageManifest(image.manifest);
      assert.equal(parsed.mediaType, mediaType);
      assert.deepEqual(
        parsed.layers.map(({ digest, size }) => [digest, size]),
        [
          [image.layerDigests[0], 1],
          [image.layerDigests[1], 2],
        ],
      );
    }
  });

  it("reads an index with platforms", () => {
    const index = fakeIndex([
      fakeImage({ layers: [], platform: { os: "linux", architecture: "arm64", variant: "v8" } }),
    ]);
    const parsed = parseImageIndex(index.bytes);
    assert.deepEqual(parsed.manifests[0]?.platform?.variant, "");
  });

  it("takes the kind from the server or the shape where the document does not say it", () => {
    const plain = manifest({ mediaType: undefined });
    assert.equal(parseManifestDocument(bytesOf(plain)).kind, "manifest");
    assert.equal(parseManifestDocument(bytesOf({ manifests: [] })).kind, "index");
    const served = parseManifestDocument(bytesOf(plain), {
      mediaType: `${MEDIA_TYPES.dockerManifest}; charset=utf-8`,
    });
    assert.ok(served.kind === "manifest");
    assert.equal(served.manifest.mediaType, MEDIA_TYPES.dockerManifest);
  });

  it("refuses a document that is index and manifest at once, or calls itself the other", () => {
    throwsCode(() => parseManifestDocument(bytesOf(manifest({ manifests: [] }))), "data-loss");
    throwsCode(
      () => parseManifestDocument(bytesOf(manifest({ mediaType: MEDIA_TYPES.ociIndex }))),
      "data-loss",
    );
    throwsCode(() => parseImageIndex(bytesOf(manifest())), "data-loss");
  });

  it("says that schema 1 and other digests are not supported", () => {
    throwsCode(() => parseManifestDocument(bytesOf({ schemaVersion: 1 })), "unimplemented");
    const config = { mediaType: "x", digest: `sha512:${"0".repeat(128)}`, size: 1 };
    throwsCode(() => parseManifestDocument(bytesOf(manifest({ config }))), "unimplemented");
  });

  const layer = { mediaType: MEDIA_TYPES.ociLayer, digest: DIGEST, size: 1 };
  const hostile: readonly (readonly [string, unknown])[] = [
    ["no JSON", undefined],
    ["an array", []],
    ["null", null],
    ["no config", manifest({ config: undefined })],
    ["layers that are no list", manifest({ layers: {} })],
    ["a negative size", manifest({ layers: [{ ...layer, size: -1 }] })],
    ["a fractional size", manifest({ layers: [{ ...layer, size: 0.5 }] })],
    ["a size over 4 TiB", manifest({ layers: [{ ...layer, size: 2 ** 43 }] })],
    ["a digest that is a path", manifest({ layers: [{ ...layer, digest: "../../etc/passwd" }] })],
    ["upper-case hex", manifest({ layers: [{ ...layer, digest: DIGEST.toUpperCase() }] })],
    ["1025 layers", manifest({ layers: Array(1025).fill(layer) })],
    ["annotations that are no strings", manifest({ annotations: { a: 1 } })],
    [
      "a media type of 300 characters",
      manifest({ layers: [{ ...layer, mediaType: "x".repeat(300) }] }),
    ],
  ];
  for (const [what, value] of hostile) {
    it(`refuses ${what}`, () => {
      const bytes = value === undefined ? Buffer.from("{") : bytesOf(value);
      throwsCode(() => parseManifestDocument(bytes), "data-loss");
    });
  }

  it("refuses more than 8 MiB and bytes that are not UTF-8", () => {
    throwsCode(() => parseManifestDocument(Buffer.alloc(8 * 1024 ** 2 + 1, 32)), "data-loss");
    throwsCode(() => parseManifestDocument(Buffer.from([0x7b, 0xff, 0x7d])), "data-loss");
  });

  it("answers any JSON with a document or one of its errors", () => {
    const key = fc.constantFrom(
      ..."config layers manifests mediaType digest size annotations platform __proto__".split(" "),
    );
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof(
        { depthSize: "small" },
        fc.constantFrom<unknown>(DIGEST, MEDIA_TYPES.ociManifest, null, -1, 5, "", true),
        fc.array(tie("tree"), { maxLength: 3 }),
        fc.dictionary(key, tie("tree"), { maxKeys: 5 }),
      ),
    }));
    fc.assert(
      fc.property(tree, (value) => {
        try {
          parseManifestDocument(bytesOf(value));
          parseImageConfig(bytesOf(value));
        } catch (error) {
          assert.ok(error instanceof DaemonError, String(error));
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("parseImageConfig", () => {
  it("reads diff IDs and platform", () => {
    const config = parseImageConfig(
      bytesOf({
        os: "linux",
        architecture: "arm64",
        variant: "v8",
        rootfs: { type: "layers", diff_ids: [DIGEST] },
      }),
    );
    assert.deepEqual(config.diffIds, [DIGEST]);
    assert.equal(config.platform?.architecture, "arm64");
  });

  it("refuses a rootfs that is not layers, and diff IDs that are not digests", () => {
    throwsCode(() => parseImageConfig(bytesOf({ rootfs: { type: "x" } })), "data-loss");
    throwsCode(
      () => parseImageConfig(bytesOf({ rootfs: { type: "layers", diff_ids: ["sha256:0"] } })),
      "data-loss",
    );
  });
});

describe("layerKindOf", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["application/vnd.oci.image.layer.v1.tar", "none"],
    ["application/vnd.oci.image.layer.v1.tar+gzip", "gzip"],
    ["application/vnd.oci.image.layer.v1.tar+zstd", "zstd"],
    ["application/vnd.docker.image.rootfs.diff.tar", "none"],
    ["application/vnd.docker.image.rootfs.diff.tar.gzip", "gzip"],
    ["application/vnd.docker.image.rootfs.diff.tar.zstd", "zstd"],
    ["application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "encrypted"],
    ["application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "foreign"],
    ["application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "foreign"],
    ["application/vnd.oci.image.layer.v1.tar+xz", "unknown-media-type"],
    ["application/vnd.in-toto+json", "unknown-media-type"],
  ];
  for (const [mediaType, expected] of cases) {
    it(`calls ${mediaType} ${expected}`, () => {
      const kind = layerKindOf(mediaType);
      assert.equal(kind.isClaimable ? kind.compression : kind.reason, expected);
    });
  }
});

describe("planFetch", () => {
  it("joins layers, diff IDs and chain IDs", () => {
    const image = fakeImage({ layers: [Buffer.from("a"), Buffer.from("b")] });
    const plan = planFetch(parseImageManifest(image.manifest), parseImageConfig(image.config));
    const [first, second] = plan.layers;
    assert.equal(first?.chainId, image.layerDigests[0]);
    assert.equal(
      second?.chainId,
      digestOf(Buffer.from(`${image.layerDigests[0] ?? ""} ${image.layerDigests[1] ?? ""}`)),
    );
    assert.deepEqual(plan.obstacles, []);
  });

  it("names the layers that cannot be lazy", () => {
    const layerMediaType = "application/vnd.oci.image.layer.v1.tar+encrypted";
    const image = fakeImage({ layers: [Buffer.from("a")], layerMediaType });
    const plan = planFetch(parseImageManifest(image.manifest), parseImageConfig(image.config));
    assert.deepEqual(plan.obstacles, [{ position: 0, reason: "encrypted" }]);
  });

  it("refuses a config with another number of layers", () => {
    const one = fakeImage({ layers: [Buffer.from("a")] });
    const none = fakeImage({ layers: [] });
    throwsCode(
      () => planFetch(parseImageManifest(one.manifest), parseImageConfig(none.config)),
      "data-loss",
    );
  });
});

describe("verifyContent", () => {
  it("accepts only the bytes of the digest and size", () => {
    const bytes = Buffer.from("x");
    verifyContent(bytes, { digest: DIGEST, size: 1 });
    throwsCode(() => {
      verifyContent(bytes, { digest: DIGEST, size: 2 });
    }, "data-loss");
    throwsCode(() => {
      verifyContent(Buffer.from("y"), { digest: DIGEST });
    }, "data-loss");
  });
});
