/** From a request to an image record: what is known, given along, or asked for. */
import assert from "node:assert/strict";
import { DaemonError } from "../../../src/base/errors.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { StoredImageResolver } from "../../../src/daemon/image-resolver.ts";
import type { ResolvePlace } from "../../../src/daemon/image-resolver.ts";
import type { ImageRecord } from "../../../src/daemon/image-store.ts";
import { parseImageConfig, parseImageManifest, planFetch } from "../../../src/oci/index.ts";
import { fakeBytes, fakeImage } from "../../support/registry/fake-image.ts";

const IMAGE = fakeImage({ layers: [fakeBytes(100)] });
const REFERENCE = "registry.example/app:1";
const { signal } = new AbortController();

/** What the place has, in order; an error is thrown. */
function places(asked: string[], ...failures: readonly DaemonError[]): ResolvePlace {
  const left = [...failures];
  return async (place) => {
    asked.push(place);
    const failure = left.shift();
    if (failure !== undefined) throw failure;
    const [manifest, config] = [parseImageManifest(IMAGE.manifest), parseImageConfig(IMAGE.config)];
    return {
      ...{ manifestDigest: IMAGE.manifestDigest, manifestBytes: IMAGE.manifest, manifest },
      ...{ configBytes: IMAGE.config, config, plan: planFetch(manifest, config) },
    };
  };
}

function resolverOf(resolvePlace: ResolvePlace, ...images: readonly ImageRecord[]) {
  const store = {
    images,
    image: (digest: string) => images.find(({ manifestDigest }) => manifestDigest === digest),
  };
  return new StoredImageResolver(store, resolvePlace, silentLogger);
}

async function recordOf(): Promise<ImageRecord> {
  const request = { reference: REFERENCE, alternatives: [] };
  return resolverOf(places([])).resolve(request, { signal });
}

describe("the image of a request", () => {
  it("is what its place says", async () => {
    const asked: string[] = [];
    const alternatives = ["mirror.example/app"];
    const away = new DaemonError("unavailable", "connection refused");
    const request = { reference: REFERENCE, manifestDigest: IMAGE.manifestDigest, alternatives };

    const record = await resolverOf(places(asked, away)).resolve(request, { signal });

    const digest = IMAGE.manifestDigest;
    assert.deepEqual(asked, [`registry.example/app@${digest}`, `mirror.example/app@${digest}`]);
    assert.deepEqual(record.sources, ["mirror.example/app", "registry.example/app"]);
    assert.equal(record.config, IMAGE.config.toString());
  });

  it("is what the client gave along, and nobody is asked", async () => {
    const asked: string[] = [];
    const request = { reference: REFERENCE, alternatives: [] };
    const given = { ...request, manifest: IMAGE.manifest, config: IMAGE.config };

    const record = await resolverOf(places(asked)).resolve(given, { signal });

    assert.equal(record.manifestDigest, IMAGE.manifestDigest);
    assert.deepEqual(asked, []);
  });

  it("is known by its digest", async () => {
    const asked: string[] = [];
    const known = await recordOf();
    const request = {
      reference: REFERENCE,
      manifestDigest: IMAGE.manifestDigest,
      alternatives: [],
    };

    await resolverOf(places(asked), known).resolve(request, { signal });

    assert.deepEqual(asked, []);
  });

  it("is the record of the tag only while its place is away", async () => {
    const known = await recordOf();
    const request = { reference: REFERENCE, alternatives: [] };
    const away = new DaemonError("unavailable", "connection refused");
    const gone = new DaemonError("not-found", "404");

    assert.equal(await resolverOf(places([], away), known).resolve(request, { signal }), known);
    await assert.rejects(resolverOf(places([], gone), known).resolve(request, { signal }), gone);
  });
});
