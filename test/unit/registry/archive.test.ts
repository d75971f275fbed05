/** Images in local layouts and archives. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { DaemonError, errorMessage } from "../../../src/base/errors.ts";
import { digestHex, digestOf, parsePlatform } from "../../../src/oci/index.ts";
import type { Digest } from "../../../src/oci/index.ts";
import { openImageSource, parseImageLocation } from "../../../src/registry/index.ts";
import type { ImageSource } from "../../../src/registry/index.ts";
import { indexTar } from "../../../src/registry/archive/tar-index.ts";
import { fakeBytes, fakeImage } from "../../support/registry/fake-image.ts";
import type { FakeImage } from "../../support/registry/fake-image.ts";
import { collect, noAbort, testPool } from "../../support/registry/pool.ts";
import { tarOf } from "../../support/registry/tar.ts";
import type { TarEntry } from "../../support/registry/tar.ts";

const AMD64 = parsePlatform("linux/amd64");
const LAYERS = [fakeBytes(100_000, "one"), fakeBytes(700_000, "two")] as const;

function blobPath(digest: Digest): string {
  return `blobs/sha256/${digestHex(digest)}`;
}

/** The files of an OCI layout with these images, by tag. */
function layoutEntries(images: Readonly<Record<string, FakeImage>>): TarEntry[] {
  const index = {
    schemaVersion: 2,
    manifests: Object.entries(images).map(([tag, image]) => ({
      mediaType: image.mediaType,
      digest: image.manifestDigest,
      size: image.manifest.length,
      annotations: { "org.opencontainers.image.ref.name": tag },
    })),
  };
  const blobs = new Map<Digest, Uint8Array>();
  for (const image of Object.values(images)) {
    blobs.set(image.manifestDigest, image.manifest);
    for (const [digest, bytes] of image.blobs) blobs.set(digest, bytes);
  }
  return [
    { name: "oci-layout", bytes: Buffer.from('{"imageLayoutVersion":"1.0.0"}') },
    { name: "index.json", bytes: Buffer.from(JSON.stringify(index)) },
    ...[...blobs].map(([digest, bytes]) => ({ name: blobPath(digest), bytes })),
  ];
}

describe("local image sources", () => {
  let root = "";
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), "archive-"));
  });
  afterEach(async () => {
    await rm(root, { recursive: true });
  });

  async function put(path: string, bytes: Uint8Array): Promise<void> {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), bytes);
  }

  async function open(text: string): Promise<ImageSource> {
    await using test = testPool();
    return await openImageSource(text, { registries: test.pool }, { baseDir: root });
  }

  const resolve = async (source: ImageSource): ReturnType<ImageSource["resolve"]> =>
    source.resolve({ platform: AMD64, signal: noAbort() });

  async function rejects(work: Promise<unknown>, code: string, pattern: RegExp): Promise<void> {
    await assert.rejects(work, (error) => {
      assert.ok(error instanceof DaemonError, String(error));
      assert.equal(error.code, code);
      assert.match(errorMessage(error), pattern);
      return true;
    });
  }

  async function checkImage(source: ImageSource, image: FakeImage): Promise<void> {
    const found = await resolve(source);
    assert.equal(found.manifestDigest, image.manifestDigest);
    for (const { descriptor } of found.plan.layers) {
      const bytes = image.blobs.get(descriptor.digest) ?? Buffer.alloc(0);
      const options = { signal: noAbort(), size: descriptor.size };
      const all = await collect(await source.open(descriptor.digest, undefined, options));
      const range = { start: 1000, end: 90_001 };
      const part = await collect(await source.open(descriptor.digest, range, options));
      assert.ok(all.equals(bytes));
      assert.ok(part.equals(bytes.subarray(range.start, range.end)));
    }
  }

  const image = fakeImage({ layers: LAYERS });
  const other = fakeImage({ layers: [fakeBytes(10)] });

  describe("oci", () => {
    beforeEach(async () => {
      for (const entry of layoutEntries({ v1: image, other })) {
        await put(`my:dir/${entry.name}`, entry.bytes ?? Buffer.alloc(0));
      }
    });

    it("reads an image by tag and by digest, from a folder with a colon in its name", async () => {
      await checkImage(await open("oci:my:dir:v1"), image);
      await checkImage(await open(`oci:${root}/my:dir@${image.manifestDigest}`), image);
    });

    it("wants a name where there are several, and says which there are", async () => {
      await rejects(resolve(await open("oci:my:dir")), "invalid-argument", /v1, other/);
      await rejects(
        resolve(await open("oci:my:dir:v9")),
        "not-found",
        /no image "v9"; there is v1/,
      );
    });

    it("refuses blobs with wrong bytes, and missing ones", async () => {
      const [first, second] = image.layerDigests;
      assert.ok(first !== undefined && second !== undefined);
      await put(`my:dir/${blobPath(first)}`, fakeBytes(100_000, "wrong"));
      await rm(join(root, "my:dir", blobPath(second)));
      const source = await open("oci:my:dir:v1");
      const signal = noAbort();
      const whole = async (digest: Digest): Promise<Buffer> =>
        collect(await source.open(digest, undefined, { signal }));

      await rejects(whole(first), "data-loss", /hashes to/);
      await rejects(whole(second), "not-found", /has no sha256:/);
      await rejects(
        source.open(first, undefined, { signal, size: 5 }),
        "data-loss",
        /has 100000 bytes/,
      );
      await rejects(
        source.open(first, { start: 0, end: 100_001 }, { signal }),
        "out-of-range",
        /./,
      );
    });

    it("refuses a manifest with wrong bytes", async () => {
      await put(`my:dir/${blobPath(image.manifestDigest)}`, Buffer.from(other.manifest));
      await rejects(resolve(await open("oci:my:dir:v1")), "data-loss", /./);
    });

    it("does not wait for a fifo in a blob's place", async () => {
      const [digest] = image.layerDigests;
      assert.ok(digest !== undefined);
      await rm(join(root, "my:dir", blobPath(digest)));
      await symlink("/dev/zero", join(root, "my:dir", blobPath(digest)));
      const source = await open("oci:my:dir:v1");
      await rejects(
        source.open(digest, undefined, { signal: noAbort() }),
        "failed-precondition",
        /regular/,
      );
    });
  });

  it("says which path is missing", async () => {
    await rejects(open("oci:nowhere:v1"), "not-found", /nowhere/);
    await rejects(open("docker-archive:nowhere.tar"), "not-found", /nowhere\.tar/);
    assert.throws(() => parseImageLocation("oci:"), /names no path/);
  });

  describe("oci-archive", () => {
    it("reads an image by ranges of the file", async () => {
      const entries = layoutEntries({ v1: image, other });
      await put("a.tar", await tarOf([{ name: "blobs/", isFolder: true }, ...entries]));
      await checkImage(await open("oci-archive:a.tar:v1"), image);
    });

    it("reads names with a leading ./ and the last of two entries", async () => {
      const entries = layoutEntries({ v1: image });
      const stale = entries.map(({ name }) => ({ name: `./${name}`, bytes: Buffer.from("stale") }));
      await put("a.tar", await tarOf([...stale, ...entries]));
      await checkImage(await open("oci-archive:a.tar"), image);
    });

    it("refuses what is cut off, compressed, or no archive", async () => {
      const tar = await tarOf(layoutEntries({ v1: image }));
      await put("cut.tar", tar.subarray(0, tar.length - 600_000));
      await put("gz.tar", gzipSync(tar));
      await put("text.tar", fakeBytes(2000));
      await rejects(resolve(await open("oci-archive:cut.tar")), "data-loss", /cut off/);
      await rejects(resolve(await open("oci-archive:gz.tar")), "invalid-argument", /compressed/);
      await rejects(resolve(await open("oci-archive:text.tar")), "data-loss", /not a tar/);
    });
  });

  describe("docker-archive", () => {
    const configName = `${digestHex(image.configDigest)}.json`;
    const saved = (layers: readonly string[], tags = ["app:v1"]): TarEntry => ({
      name: "manifest.json",
      bytes: Buffer.from(JSON.stringify([{ Config: configName, RepoTags: tags, Layers: layers }])),
    });
    const config = { name: configName, bytes: image.config };

    it("makes the same OCI image of the same archive", async () => {
      const entries: TarEntry[] = [
        config,
        { name: "1/layer.tar", bytes: LAYERS[0] },
        { name: "2/layer.tar", bytes: LAYERS[1] },
        saved(["1/layer.tar", "2/layer.tar"]),
      ];
      await put("d.tar", await tarOf(entries));

      await checkImage(await open("docker-archive:d.tar"), image);
      await checkImage(await open("docker-archive:d.tar:app:v1"), image);
      await checkImage(await open("docker-archive:d.tar:docker.io/library/app:v1"), image);
      await rejects(
        resolve(await open("docker-archive:d.tar:app:v2")),
        "not-found",
        /there is app:v1/,
      );
    });

    it("follows links to layers, and none out of the archive", async () => {
      const entries: TarEntry[] = [
        config,
        { name: "1/layer.tar", linkTo: "../real/layer.tar" },
        { name: "real/layer.tar", bytes: LAYERS[0] },
        { name: "2/layer.tar", hardLinkTo: "two.tar" },
        { name: "two.tar", bytes: LAYERS[1] },
      ];
      await put("d.tar", await tarOf([...entries, saved(["1/layer.tar", "2/layer.tar"])]));
      await checkImage(await open("docker-archive:d.tar"), image);

      for (const target of ["/etc/passwd", "../../etc/passwd", "layer.tar"]) {
        const evil = entries.map((entry) =>
          entry.linkTo === undefined ? entry : { ...entry, linkTo: target },
        );
        await put("e.tar", await tarOf([...evil, saved(["1/layer.tar", "2/layer.tar"])]));
        await rejects(resolve(await open("docker-archive:e.tar")), "data-loss", /has no 1\/layer/);
      }
    });

    it("reads compressed layers under their own digest", async () => {
      const zipped = gzipSync(LAYERS[0]);
      const entries: TarEntry[] = [
        config,
        { name: blobPath(digestOf(zipped)), bytes: zipped },
        { name: "two.tar", bytes: LAYERS[1] },
        saved([blobPath(digestOf(zipped)), "two.tar"]),
      ];
      await put("d.tar", await tarOf(entries));

      const { plan } = await resolve(await open("docker-archive:d.tar"));

      assert.equal(plan.layers[0]?.descriptor.digest, digestOf(zipped));
      assert.deepEqual(plan.layers[0].kind, { isClaimable: true, compression: "gzip" });
      assert.equal(plan.layers[0].diffId, image.layerDigests[0]);
    });

    it("refuses layers and configs that are not there or do not fit", async () => {
      await put("a.tar", await tarOf([config, saved(["1/layer.tar"])]));
      await rejects(resolve(await open("docker-archive:a.tar")), "data-loss", /has no 1\/layer/);
      await put("b.tar", await tarOf([config, saved([])]));
      await rejects(resolve(await open("docker-archive:b.tar")), "data-loss", /diff IDs/);
      await put("c.tar", await tarOf([{ name: "manifest.json", bytes: Buffer.from("[{}]") }]));
      await rejects(resolve(await open("docker-archive:c.tar")), "data-loss", /malformed/);
    });

    it("is not spoiled by a caller who left", async () => {
      const entries = [config, { name: "1", bytes: LAYERS[0] }, { name: "2", bytes: LAYERS[1] }];
      await put("d.tar", await tarOf([...entries, saved(["1", "2"])]));
      const source = await open("docker-archive:d.tar");
      const controller = new AbortController();
      const left = source.resolve({ platform: AMD64, signal: controller.signal });
      controller.abort();

      await assert.rejects(left);
      await checkImage(source, image);
    });
  });

  it("does not read the bodies of an archive to index it", async () => {
    const big = Buffer.alloc(64 * 1024 * 1024);
    const tar = await tarOf([
      { name: "big", bytes: big },
      { name: "after", bytes: Buffer.from("x") },
    ]);
    await put("big.tar", tar);

    const index = await indexTar(join(root, "big.tar"), { signal: noAbort() });

    const after = index.find("after");
    assert.ok(after !== undefined);
    assert.equal(tar.subarray(after.start, after.end).toString(), "x");
  });
});
