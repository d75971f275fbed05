/** Images and `/v2/` by shared documents, with a registry that counts. */
import assert from "node:assert/strict";
import { DocumentCache } from "../../../../src/daemon/peers/document-cache.ts";
import { DocumentOwner } from "../../../../src/daemon/peers/document-owner.ts";
import { registryDocument, storedDocument } from "../../../../src/daemon/peers/document-places.ts";
import { CachedDocuments } from "../../../../src/daemon/peers/document-provider.ts";
import { resolveShared } from "../../../../src/daemon/peers/shared-images.ts";
import { USER_AGENT } from "../../../../src/daemon/environment.ts";
import type { ImageRecord } from "../../../../src/daemon/image-store.ts";
import {
  MEDIA_TYPES,
  digestOf,
  parseImageConfig,
  parseImageManifest,
  parsePlatform,
  planFetch,
} from "../../../../src/oci/index.ts";
import type { Digest } from "../../../../src/oci/index.ts";
import { FakeClock } from "../../../support/block/fake-clock.ts";
import { fakeBytes, fakeImage, fakeIndex } from "../../../support/registry/fake-image.ts";
import { FakeRegistry } from "../../../support/registry/fake-registry.ts";
import { collect, memoryLogger, noAbort, testPool } from "../../../support/registry/pool.ts";
import type { TestPool } from "../../../support/registry/pool.ts";

const PLATFORM = parsePlatform("linux/amd64");
const TAG_TTL_MS = 30_000;
const IMAGE = fakeImage({ layers: [fakeBytes(100)] });
const OTHER_PLATFORM = fakeImage({
  layers: [fakeBytes(200)],
  platform: { os: "linux", architecture: "arm64" },
});
const INDEX = fakeIndex([IMAGE, OTHER_PLATFORM]);
const INDEX_DIGEST = digestOf(INDEX.bytes);

class Node {
  readonly clock = new FakeClock();
  readonly records: ImageRecord[] = [];
  readonly documents: DocumentOwner;
  readonly face: CachedDocuments;
  readonly domain: string;
  readonly #test: TestPool;

  constructor(domain: string, test: TestPool) {
    this.domain = domain;
    this.#test = test;
    const { clock } = this;
    this.documents = new DocumentOwner({
      selfId: "n1",
      hasSeeds: false,
      rank: async () => ({ owners: [], predecessors: [], others: [] }),
      ask: async () => assert.fail("there is nobody else"),
      stored: async (wanted) => storedDocument(this.records, wanted),
      fetch: async (wanted, options) => registryDocument(this.#test.pool, wanted, options),
      isShared: () => true,
      tagTtlMs: TAG_TTL_MS,
      cache: new DocumentCache(clock),
      ...{ clock, log: memoryLogger([]) },
    });
    const none = (): never => assert.fail("no layer is asked for");
    this.face = new CachedDocuments({
      documents: this.documents,
      images: { images: this.records, sourcesOf: () => [] },
      layers: { has: () => true, openLayer: none },
      resolver: { openBlob: none } as never,
      sources: { get: none } as never,
    });
  }

  async resolve(reference: string): Promise<Digest> {
    const resolve = resolveShared(this.documents, { get: () => assert.fail("no archive") });
    const options = { platform: PLATFORM, signal: noAbort() };
    return (await resolve(`${this.domain}/${reference}`, options)).manifestDigest;
  }
}

describe("shared documents", () => {
  let registry: FakeRegistry;
  let test: TestPool;
  let node: Node;
  /** A name that is not this machine's own stands for the fake registry. */
  const repository = { registry: "registry.example", name: "app" };

  beforeEach(async () => {
    registry = await FakeRegistry.start();
    registry.addImage("app", "amd", IMAGE);
    registry.addImage("app", "arm", OTHER_PLATFORM);
    registry.addManifest("app", "multi", INDEX.bytes, MEDIA_TYPES.ociIndex);
    test = testPool();
    const { pool } = test;
    const client = pool.client.bind(pool);
    pool.client = () => client(registry.domain);
    node = new Node("registry.example", test);
  });

  afterEach(async () => {
    await test[Symbol.asyncDispose]();
    await registry[Symbol.asyncDispose]();
  });

  /** But those that find out how the registry speaks. */
  function documentRequests(): readonly string[] {
    return registry.requests.filter((line) => line !== "GET /v2/");
  }

  describe("of an image", () => {
    it("are an index, the platform's manifest and its config, each once", async () => {
      assert.equal(await node.resolve("app:multi"), IMAGE.manifestDigest);
      assert.equal(await node.resolve("app:multi"), IMAGE.manifestDigest);

      assert.deepEqual(documentRequests(), [
        "GET /v2/app/manifests/multi",
        `GET /v2/app/manifests/${IMAGE.manifestDigest}`,
        `GET /v2/app/blobs/${IMAGE.configDigest}`,
      ]);
    });

    it("are asked for again in part, and without bytes, when the tag is old", async () => {
      await node.resolve("app:multi");
      await node.clock.advance(TAG_TTL_MS);
      assert.equal(await node.resolve("app:multi"), IMAGE.manifestDigest);
      await node.resolve("app:multi");
      assert.equal(documentRequests().length, 4);

      assert.deepEqual(
        registry.log.slice(-1).map(({ url, status }) => [url, status]),
        [["/v2/app/manifests/multi", 304]],
      );
    });

    it("are others when the tag was pushed again", async () => {
      await node.resolve("app:amd");
      const pushed = fakeImage({ layers: [fakeBytes(300)] });
      registry.addImage("app", "amd", pushed);
      assert.equal(await node.resolve("app:amd"), IMAGE.manifestDigest);
      await node.clock.advance(TAG_TTL_MS);

      assert.equal(await node.resolve("app:amd"), pushed.manifestDigest);
    });

    it("are refused when the registry has none", async () => {
      await assert.rejects(node.resolve("app:none"), { code: "not-found" });
    });

    it("are refused when a config is larger than any document", async () => {
      const bytes = Buffer.alloc(9 * 1024 * 1024);
      const digest = registry.addBlob(bytes);
      const wanted = { kind: "config", ...repository, reference: digest } as const;

      await assert.rejects(node.documents.get(wanted, { signal: noAbort() }), {
        code: "data-loss",
      });
    });
  });

  describe("over /v2/", () => {
    const client = { signal: noAbort(), userAgent: "containerd/2.0.0" };

    it("are what containerd asks for, in its order: one request of each", async () => {
      for (let round = 0; round < 2; round += 1) {
        const top = await node.face.manifest(repository, "multi", client);
        assert.deepEqual([top?.digest, top?.mediaType], [INDEX_DIGEST, MEDIA_TYPES.ociIndex]);
        await node.face.manifest(repository, INDEX_DIGEST, client);
        const manifest = await node.face.manifest(repository, IMAGE.manifestDigest, client);
        assert.deepEqual(Buffer.from(manifest?.bytes ?? []), IMAGE.manifest);
        const config = await node.face.blob(repository, IMAGE.configDigest, client);
        assert.equal(config?.size, IMAGE.config.length);
        const part = await collect(config.read({ start: 1, end: 9 }, client));
        assert.deepEqual(part, IMAGE.config.subarray(1, 9));
      }

      assert.equal(documentRequests().length, 3);
    });

    it("are no layers, and no blobs that no manifest has named", async () => {
      await node.face.manifest(repository, "amd", client);
      const [layer] = IMAGE.layerDigests;
      assert.ok(layer !== undefined);

      assert.equal(await node.face.blob(repository, layer, client), undefined);
      assert.equal(
        await node.face.blob(repository, OTHER_PLATFORM.configDigest, client),
        undefined,
      );
      assert.equal(documentRequests().length, 1);
    });

    it("are the client's own matter where the registry has or gives none", async () => {
      for (const status of [401, 403, 404]) {
        registry.fail(/manifests/, { kind: "status", status }, 10);
        assert.equal(await node.face.manifest(repository, `s${status}`, client), undefined);
        registry.clearFaults();
      }
      registry.fail(/manifests/, { kind: "status", status: 503 }, 100);
      await assert.rejects(node.face.manifest(repository, "amd", client), { code: "unavailable" });
    });

    it("are those of the image records for whoever names no registry, or a local one", async () => {
      node.records.push(recordOf("registry.example/app:1"), recordOf("localhost:5000/app:2"));
      for (const registryName of [undefined, "localhost:5000", "169.254.169.254", "a b"]) {
        const local = { registry: registryName, name: "app" };
        assert.equal(await node.face.manifest(local, "amd", client), undefined);
        const byDigest = await node.face.manifest(local, IMAGE.manifestDigest, client);
        assert.equal(byDigest?.digest, IMAGE.manifestDigest);
      }
      const own = { registry: "localhost:5000", name: "app" };
      assert.ok((await node.face.manifest(own, "2", client)) !== undefined);
      assert.equal(await node.face.manifest(own, "1", client), undefined);
      assert.equal(documentRequests().length, 0);
    });

    it("are no answer to a daemon's own registry client, which would wait for itself", async () => {
      const daemon = { ...client, userAgent: USER_AGENT };
      node.records.push(recordOf("registry.example/app:1"));

      assert.equal(await node.face.manifest(repository, "1", daemon), undefined);
      assert.equal(await node.face.manifest(repository, INDEX_DIGEST, daemon), undefined);
      const known = await node.face.manifest(repository, IMAGE.manifestDigest, daemon);
      assert.equal(known?.digest, IMAGE.manifestDigest);
      const [layer] = IMAGE.layerDigests;
      assert.ok(layer !== undefined);
      assert.equal(await node.face.blob(repository, layer, daemon), undefined);
      assert.equal(
        (await node.face.blob(repository, IMAGE.configDigest, daemon))?.size,
        IMAGE.config.length,
      );
      assert.equal(documentRequests().length, 0);
    });
  });

  describe("of the image records", () => {
    it("are manifests and configs by digest, and the tag they were seen by", () => {
      const records = [recordOf("registry.example/app:1")];
      const manifest = { kind: "manifest", ...repository } as const;

      const byTag = storedDocument(records, { ...manifest, reference: "1" });
      assert.deepEqual([byTag?.digest, byTag?.ageMs], [IMAGE.manifestDigest, undefined]);
      const byDigest = storedDocument(records, { ...manifest, reference: IMAGE.manifestDigest });
      assert.deepEqual([byDigest?.digest, byDigest?.ageMs], [IMAGE.manifestDigest, 0]);
      const config = { kind: "config", ...repository, reference: IMAGE.configDigest } as const;
      assert.deepEqual(storedDocument(records, config)?.bytes, IMAGE.config);
      assert.equal(storedDocument(records, { ...manifest, reference: "2" }), undefined);
      assert.equal(storedDocument(records, { ...manifest, name: "b", reference: "1" }), undefined);
    });

    it("are none whose text has another digest than it had", () => {
      const broken = { ...recordOf("registry.example/app:1"), manifest: "{}" };
      const wanted = { kind: "manifest", ...repository, reference: "1" } as const;

      assert.equal(storedDocument([broken], wanted), undefined);
    });
  });
});

function recordOf(reference: string): ImageRecord {
  return {
    manifestDigest: IMAGE.manifestDigest,
    reference,
    sources: [],
    manifest: IMAGE.manifest.toString(),
    config: IMAGE.config.toString(),
    layers: planFetch(
      parseImageManifest(IMAGE.manifest),
      parseImageConfig(IMAGE.config),
    ).layers.map(({ descriptor: { digest, size, mediaType }, diffId }) => {
      return { diffId, blobDigest: digest, blobBytes: size, mediaType };
    }),
  };
}
