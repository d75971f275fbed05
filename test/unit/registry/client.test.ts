/** The client against a registry that misbehaves: resolving, redirects, retries. */
import assert from "node:assert/strict";
import { DaemonError, errorMessage } from "../../../src/base/errors.ts";
import { MEDIA_TYPES, parsePlatform, parseReference } from "../../../src/oci/index.ts";
import { fakeBytes, fakeImage, fakeIndex } from "../../support/registry/fake-image.ts";
import { FakeRegistry } from "../../support/registry/fake-registry.ts";
import { collect, noAbort, testPool } from "../../support/registry/pool.ts";

const AMD64 = parsePlatform("linux/amd64");
const ARM64 = parsePlatform("linux/arm64");

async function rejection(promise: Promise<unknown>): Promise<DaemonError> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof DaemonError, String(error));
    return error;
  }
  return assert.fail("did not reject");
}

describe("RegistryClient", () => {
  describe("resolve", () => {
    it("returns manifest, config and plan of a tag", async () => {
      await using registry = await FakeRegistry.start();
      const image = fakeImage({ layers: [fakeBytes(1000), fakeBytes(2000, "b")] });
      registry.addImage("some/app", "v1", image);
      await using test = testPool();
      const client = test.pool.client(registry.domain);

      const reference = parseReference(`${registry.domain}/some/app:v1`);
      const found = await client.resolve(reference, { platform: AMD64, signal: noAbort() });

      assert.equal(found.manifestDigest, image.manifestDigest);
      assert.deepEqual(Buffer.from(found.manifestBytes), image.manifest);
      assert.deepEqual(Buffer.from(found.configBytes), image.config);
      assert.deepEqual(
        found.plan.layers.map(({ diffId }) => diffId),
        image.layerDigests,
      );
      assert.equal(found.plan.blobBytes, 3000);
    });

    it("chooses the platform from an index", async () => {
      await using registry = await FakeRegistry.start();
      const amd = fakeImage({ layers: [fakeBytes(10)] });
      const arm = fakeImage({
        layers: [fakeBytes(11)],
        platform: { os: "linux", architecture: "arm64", variant: "v8" },
      });
      const index = fakeIndex([amd, arm]);
      registry.addImage("app", "x", amd);
      registry.addImage("app", "y", arm);
      registry.addManifest("app", "multi", index.bytes, MEDIA_TYPES.ociIndex);
      await using test = testPool();
      const reference = parseReference(`${registry.domain}/app:multi`);

      const found = await test.pool
        .client(registry.domain)
        .resolve(reference, { platform: ARM64, signal: noAbort() });

      assert.equal(found.manifestDigest, arm.manifestDigest);
    });

    it("looks into the configs where an index does not say its platforms", async () => {
      await using registry = await FakeRegistry.start();
      const amd = fakeImage({ layers: [fakeBytes(10)] });
      const arm = fakeImage({
        layers: [fakeBytes(11)],
        platform: { os: "linux", architecture: "arm64" },
      });
      const index = fakeIndex([amd, arm], { withPlatform: false });
      registry.addImage("app", "x", amd);
      registry.addImage("app", "y", arm);
      registry.addManifest("app", "multi", index.bytes, MEDIA_TYPES.ociIndex);
      await using test = testPool();
      const reference = parseReference(`${registry.domain}/app:multi`);

      const found = await test.pool
        .client(registry.domain)
        .resolve(reference, { platform: ARM64, signal: noAbort() });

      assert.equal(found.manifestDigest, arm.manifestDigest);
    });

    it("says which platforms there are when none fits", async () => {
      await using registry = await FakeRegistry.start();
      registry.addImage("app", "x", fakeImage({ layers: [] }));
      await using test = testPool();
      const reference = parseReference(`${registry.domain}/app:x`);

      const error = await rejection(
        test.pool
          .client(registry.domain)
          .resolve(reference, { platform: ARM64, signal: noAbort() }),
      );

      assert.equal(error.code, "not-found");
      assert.match(errorMessage(error), /no image for linux\/arm64; there is linux\/amd64/);
    });

    it("refuses a manifest whose bytes are not its digest, whatever the header says", async () => {
      await using registry = await FakeRegistry.start();
      const image = fakeImage({ layers: [] });
      registry.addImage("app", "x", image);
      registry.fail(/manifests/, { kind: "flip", at: 5 }, 99);
      registry.fail(/manifests/, {
        kind: "headers",
        headers: { "docker-content-digest": image.manifestDigest },
      });
      await using test = testPool();
      const byTag = parseReference(`${registry.domain}/app:x`);
      const byDigest = parseReference(`${registry.domain}/app@${image.manifestDigest}`);

      for (const reference of [byTag, byDigest]) {
        const error = await rejection(
          test.pool
            .client(registry.domain)
            .resolve(reference, { platform: AMD64, signal: noAbort() }),
        );
        assert.equal(error.code, "data-loss");
      }
    });

    it("refuses a manifest of more than 8 MiB", async () => {
      await using registry = await FakeRegistry.start();
      const bytes = Buffer.alloc(8 * 1024 * 1024 + 1, 32);
      registry.addManifest("app", "x", bytes, MEDIA_TYPES.ociManifest);
      await using test = testPool();
      const reference = parseReference(`${registry.domain}/app:x`);

      const error = await rejection(
        test.pool
          .client(registry.domain)
          .resolve(reference, { platform: AMD64, signal: noAbort() }),
      );

      assert.equal(error.code, "data-loss");
    });

    it("answers not-found without trying again, and leaves the server's words out", async () => {
      await using registry = await FakeRegistry.start();
      await using test = testPool();
      const reference = parseReference(`${registry.domain}/nothing:x`);

      const error = await rejection(
        test.pool
          .client(registry.domain)
          .resolve(reference, { platform: AMD64, signal: noAbort() }),
      );

      assert.equal(error.code, "not-found");
      assert.match(errorMessage(error), /MANIFEST_UNKNOWN/);
      assert.doesNotMatch(errorMessage(error), /secret-looking/);
      assert.equal(registry.requests.filter((line) => line.includes("manifests")).length, 1);
    });
  });

  describe("redirects", () => {
    it("remembers a blob's final address until it is refused", async () => {
      await using store = await FakeRegistry.start();
      await using registry = await FakeRegistry.start();
      const digest = store.addBlob(fakeBytes(100));
      const location = `${store.origin}/v2/app/blobs/${digest}?signature=1`;
      registry.fail(/blobs/, { kind: "redirect", location }, 99);
      await using test = testPool();
      const client = test.pool.client(registry.domain);
      const read = async (): Promise<Buffer> =>
        collect(await client.openBlob("app", digest, { start: 0, end: 9 }, { signal: noAbort() }));

      await read();
      await read();
      const before = registry.log.length;
      store.fail(/signature/, { kind: "status", status: 403 });
      await read();

      assert.equal(before, 2, "the scheme's probe and one blob request");
      assert.equal(registry.log.length, 3);
    });

    it("forgets a blob's final address after ten minutes", async () => {
      await using store = await FakeRegistry.start();
      await using registry = await FakeRegistry.start();
      const digest = store.addBlob(fakeBytes(100));
      registry.fail(
        /blobs/,
        { kind: "redirect", location: `${store.origin}/v2/a/blobs/${digest}` },
        9,
      );
      await using test = testPool();
      const client = test.pool.client(registry.domain);

      await collect(await client.openBlob("app", digest, undefined, { signal: noAbort() }));
      test.clock.advance(10 * 60_000 + 1);
      await collect(await client.openBlob("app", digest, undefined, { signal: noAbort() }));

      assert.equal(registry.requests.filter((line) => line.includes("blobs")).length, 2);
    });

    it("refuses a circle, and does not quote the address", async () => {
      await using registry = await FakeRegistry.start();
      const digest = registry.addBlob(fakeBytes(100));
      registry.fail(/blobs/, { kind: "redirect", location: `/v2/app/blobs/${digest}?sig=abc` }, 99);
      await using test = testPool();

      const error = await rejection(
        test.pool.client(registry.domain).openBlob("app", digest, undefined, { signal: noAbort() }),
      );

      assert.equal(error.code, "failed-precondition");
      assert.doesNotMatch(errorMessage(error), /sig=abc/);
    });
  });

  describe("retries", () => {
    it("tries again after 503 with growing pauses, then gives up", async () => {
      await using registry = await FakeRegistry.start();
      const digest = registry.addBlob(fakeBytes(100));
      registry.fail(/blobs/, { kind: "status", status: 503 }, 99);
      await using test = testPool();

      const error = await rejection(
        test.pool.client(registry.domain).openBlob("app", digest, undefined, { signal: noAbort() }),
      );

      assert.equal(error.code, "unavailable");
      assert.deepEqual(test.clock.sleeps, [75, 150, 300, 600]);
    });

    it("waits as long as Retry-After asks", async () => {
      await using registry = await FakeRegistry.start();
      const digest = registry.addBlob(fakeBytes(100));
      registry.fail(/blobs/, { kind: "status", status: 429, headers: { "retry-after": "7" } });
      await using test = testPool();

      await collect(
        await test.pool
          .client(registry.domain)
          .openBlob("app", digest, undefined, { signal: noAbort() }),
      );

      const waited = test.clock.sleeps.reduce((sum, ms) => sum + ms, 0);
      assert.equal(waited, 7000);
    });

    it("holds back every request while the host wants a pause", async () => {
      await using registry = await FakeRegistry.start();
      const digest = registry.addBlob(fakeBytes(100));
      registry.fail(/blobs/, { kind: "status", status: 429, headers: { "retry-after": "9" } });
      await using test = testPool();
      const client = test.pool.client(registry.domain);
      const started = test.clock.nowMs();

      const read = async (): Promise<number> => {
        await collect(await client.openBlob("app", digest, undefined, { signal: noAbort() }));
        return test.clock.nowMs() - started;
      };
      await read();
      const before = registry.log.length;
      await Promise.all(Array.from({ length: 20 }, read));

      assert.ok((await read()) >= 9000);
      assert.equal(before, 3, "the scheme's probe, the refusal and one more");
    });

    it("reports a server that asks for more than a minute", async () => {
      await using registry = await FakeRegistry.start();
      const digest = registry.addBlob(fakeBytes(100));
      registry.fail(
        /blobs/,
        { kind: "status", status: 429, headers: { "retry-after": "3600" } },
        9,
      );
      await using test = testPool();

      const error = await rejection(
        test.pool.client(registry.domain).openBlob("app", digest, undefined, { signal: noAbort() }),
      );

      assert.equal(error.code, "resource-exhausted");
      assert.equal(error.details["retryAfterMs"], 3_600_000);
      assert.deepEqual(test.clock.sleeps, []);
    });

    it("survives a reset connection", async () => {
      await using registry = await FakeRegistry.start();
      const bytes = fakeBytes(100);
      const digest = registry.addBlob(bytes);
      registry.fail(/blobs/, { kind: "reset" });
      await using test = testPool();

      const read = await collect(
        await test.pool
          .client(registry.domain)
          .openBlob("app", digest, undefined, { signal: noAbort() }),
      );

      assert.deepEqual(read, bytes);
    });

    it("says that nobody listens", async () => {
      const registry = await FakeRegistry.start();
      const { domain } = registry;
      await registry[Symbol.asyncDispose]();
      await using test = testPool();

      const error = await rejection(test.pool.client(domain).ping({ signal: noAbort() }));

      assert.equal(error.code, "unavailable");
      assert.match(errorMessage(error), /ECONNREFUSED/);
    });

    it("ends at once when the caller leaves", async () => {
      await using registry = await FakeRegistry.start();
      const digest = registry.addBlob(fakeBytes(100));
      registry.fail(/blobs/, { kind: "stall", afterBytes: 0 }, 9);
      await using test = testPool();
      const controller = new AbortController();
      setTimeout(() => {
        controller.abort();
      }, 30);

      const error = await rejection(
        (async () =>
          collect(
            await test.pool
              .client(registry.domain)
              .openBlob("app", digest, undefined, { signal: controller.signal }),
          ))(),
      );

      assert.equal(error.code, "canceled");
    });
  });

  it("sends its User-Agent and no transfer compression", async () => {
    await using registry = await FakeRegistry.start();
    await using test = testPool();

    await test.pool.client(registry.domain).ping({ signal: noAbort() });

    const headers = registry.log[0]?.headers;
    assert.equal(headers?.["user-agent"], "test/1");
    assert.equal(headers["accept-encoding"], "identity");
  });
});
