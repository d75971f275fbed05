/** What is remembered of documents, and how much of it. */
import assert from "node:assert/strict";
import {
  DOCUMENTS_MAX,
  DOCUMENT_CACHE_BYTES_MAX,
  DocumentCache,
  TAGS_MAX,
} from "../../../../src/daemon/peers/document-cache.ts";
import { FakeClock } from "../../../support/block/fake-clock.ts";
import {
  BY_DIGEST,
  CONFIG,
  CONFIG_NAME,
  MANIFEST,
  NEWER,
  TAG,
  manifestOf,
} from "./document-fixture.ts";

describe("the cache of documents", () => {
  it("has a manifest by its digest once it was had by a tag, with the tag's age", async () => {
    const clock = new FakeClock();
    const cache = new DocumentCache(clock);
    cache.keep(TAG, { ...MANIFEST, ageMs: 100 });
    await clock.advance(50);

    assert.equal(cache.get(TAG)?.ageMs, 150);
    assert.equal(cache.get(BY_DIGEST)?.ageMs, 0);
    assert.equal(cache.get({ ...TAG, name: "library/other" }), undefined);
    assert.equal(cache.get(CONFIG_NAME), undefined);
  });

  it("knows which blobs are configs by the manifests that passed", () => {
    const cache = new DocumentCache(new FakeClock());

    assert.equal(cache.isConfig(CONFIG.digest), false);
    cache.keep(BY_DIGEST, MANIFEST);
    assert.ok(cache.isConfig(CONFIG.digest));
  });

  it("keeps the younger of two answers, and none of unknown age as a tag's", async () => {
    const clock = new FakeClock();
    const cache = new DocumentCache(clock);
    await clock.advance(10_000);
    cache.keep(TAG, { ...NEWER, ageMs: 100 });
    cache.keep(TAG, { ...MANIFEST, ageMs: 5000 });
    cache.keep({ ...TAG, reference: "v2" }, { ...MANIFEST, ageMs: undefined });

    assert.equal(cache.get(TAG)?.digest, NEWER.digest);
    assert.equal(cache.get({ ...TAG, reference: "v2" }), undefined);
    assert.ok(cache.get(BY_DIGEST) !== undefined);
  });

  it("is bounded by documents, by bytes and by tags", () => {
    const cache = new DocumentCache(new FakeClock());
    for (let index = 0; index < DOCUMENTS_MAX + 10; index += 1) {
      cache.keep({ ...TAG, reference: `v${index}` }, manifestOf(`small ${index}`));
    }
    assert.equal(cache.count, DOCUMENTS_MAX);
    assert.equal(cache.get({ ...TAG, reference: "v0" }), undefined);

    for (let index = 0; index < 20; index += 1) {
      cache.keep(TAG, manifestOf(`large ${index}`, 1024 * 1024));
      assert.ok(cache.bytes <= DOCUMENT_CACHE_BYTES_MAX, `${cache.bytes} bytes`);
    }
    for (let index = 0; index < TAGS_MAX; index += 1) {
      cache.keep({ ...TAG, reference: `t${index}` }, MANIFEST);
    }
    assert.equal(cache.get(TAG), undefined);
    assert.ok(cache.get({ ...TAG, reference: `t${TAGS_MAX - 1}` }) !== undefined);
  });
});
