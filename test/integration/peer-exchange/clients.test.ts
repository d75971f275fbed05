/** Other people's programs read a node: curl and skopeo, by TLS with an exported certificate. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { systemClock } from "../../../src/base/clock.ts";
import { DaemonError } from "../../../src/base/errors.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { systemRandom } from "../../../src/base/random.ts";
import { digestOf } from "../../../src/oci/index.ts";
import {
  BlockServer,
  clientCertificatePem,
  ExchangeCounters,
  WaitBook,
} from "../../../src/peer/exchange/index.ts";
import type { DocumentProvider, Repository } from "../../../src/peer/exchange/index.ts";
import { Identity } from "../../../src/peer/transport/identity.ts";
import { KeyRing } from "../../../src/peer/transport/key-ring.ts";

const run = promisify(execFile);

/** An image of one layer: an empty tar archive, and a megabyte behind it that gzip keeps. */
function makeImage() {
  let state = 1;
  const noise = Buffer.alloc(1_000_000, 0).map(() => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return state >>> 24;
  });
  const tar = Buffer.concat([Buffer.alloc(1024), noise]);
  const layer = gzipSync(tar);
  const config = Buffer.from(
    JSON.stringify({
      architecture: "amd64",
      os: "linux",
      config: {},
      rootfs: { type: "layers", diff_ids: [digestOf(tar)] },
    }),
  );
  const mediaType = "application/vnd.oci.image.manifest.v1+json";
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType,
      config: {
        mediaType: "application/vnd.oci.image.config.v1+json",
        digest: digestOf(config),
        size: config.length,
      },
      layers: [
        {
          mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
          digest: digestOf(layer),
          size: layer.length,
        },
      ],
    }),
  );
  const blobs = new Map([config, layer].map((bytes) => [digestOf(bytes) as string, bytes]));
  return { manifest, mediaType, blobs, layer };
}

const IMAGE = makeImage();

const DOCUMENTS: DocumentProvider = {
  manifest: async ({ name }: Repository, reference) => {
    const digest = digestOf(IMAGE.manifest);
    if (name !== "app" || (reference !== "latest" && reference !== digest)) return undefined;
    return { bytes: IMAGE.manifest, mediaType: IMAGE.mediaType, digest };
  },
  blob: async (_repository, digest) => {
    const bytes = IMAGE.blobs.get(digest);
    if (bytes === undefined) return undefined;
    return {
      size: bytes.length,
      async *read({ start, end }) {
        yield bytes.subarray(start, end);
      },
    };
  },
};

async function isInstalled(program: string): Promise<boolean> {
  return run(program, ["--version"]).then(
    () => true,
    () => false,
  );
}

describe("a node as a mirror", () => {
  let folder = "";
  let server: BlockServer;
  let tlsPort = 0;
  let clearPort = 0;
  const identity = Identity.fromRing(new KeyRing([Buffer.alloc(32, 5)]), {
    memberId: "node-1",
    hosts: ["127.0.0.1"],
    random: systemRandom,
  });

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "faasnet-mirror-"));
    const nothing = async (): Promise<never> => {
      throw new DaemonError("not-found", "nothing");
    };
    server = new BlockServer({
      selfId: "node-1",
      identity,
      positions: () => undefined,
      blocks: { open: nothing },
      maps: { open: nothing },
      orders: { async *since() {} },
      views: nothing,
      documents: DOCUMENTS,
      waits: new WaitBook(),
      counters: new ExchangeCounters(),
      clock: systemClock,
      logger: silentLogger,
    });
    ({ port: tlsPort } = await server.listen({ host: "127.0.0.1", port: 0 }));
    ({ port: clearPort } = await server.listenClear({ host: "127.0.0.1", port: 0 }));
    const client = identity.exportClient("mirror test");
    await writeFile(join(folder, "client.cert"), client.certificate);
    await writeFile(join(folder, "client.key"), client.privateKey, { mode: 0o600 });
    await writeFile(join(folder, "ca.crt"), client.authorities.join(""));
    await writeFile(join(folder, "all.pem"), clientCertificatePem(client), { mode: 0o600 });
  });
  after(async () => {
    await server[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  async function curl(...options: string[]): Promise<Buffer> {
    const { stdout } = await run("curl", ["-sSf", "--max-time", "20", ...options], {
      encoding: "buffer",
      maxBuffer: 8 * 1024 * 1024,
    });
    return stdout;
  }

  it("is read by curl with an exported certificate, in ranges too", async function () {
    if (!(await isInstalled("curl"))) this.skip();
    const url = `https://127.0.0.1:${tlsPort}/v2/app/blobs/${digestOf(IMAGE.layer)}`;
    const credentials = ["--cert", join(folder, "all.pem"), "--cacert", join(folder, "ca.crt")];

    assert.ok((await curl(...credentials, url)).equals(IMAGE.layer));
    const part = await curl(...credentials, "-r", "1000-1999", url);
    assert.ok(part.equals(IMAGE.layer.subarray(1000, 2000)));
  });

  it("fails the handshake of a curl without one", async function () {
    if (!(await isInstalled("curl"))) this.skip();
    const url = `https://127.0.0.1:${tlsPort}/v2/`;

    await assert.rejects(curl("--cacert", join(folder, "ca.crt"), url), /certificate|SSL|alert/);
  });

  for (const kind of ["TLS", "loopback"] as const) {
    it(`is copied from by skopeo over ${kind}`, async function () {
      this.timeout(60_000);
      if (!(await isInstalled("skopeo"))) this.skip();
      const target = join(folder, `copy-${kind}`);
      const options =
        kind === "TLS"
          ? ["--src-cert-dir", folder, `docker://127.0.0.1:${tlsPort}/app:latest`]
          : ["--src-tls-verify=false", `docker://127.0.0.1:${clearPort}/app:latest`];

      await run("skopeo", ["--insecure-policy", "copy", ...options, `dir:${target}`]);

      const files = await readdir(target);
      const hex = createHash("sha256").update(IMAGE.layer).digest("hex");
      assert.ok(files.includes(hex), files.join(" "));
      assert.ok((await readFile(join(target, hex))).equals(IMAGE.layer));
      assert.ok((await readFile(join(target, "manifest.json"))).equals(IMAGE.manifest));
    });
  }
});
