import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { request } from "node:https";
import { connect as connectTcp } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import fc from "fast-check";
import { systemRandom } from "../../../../src/base/random.ts";
import { Identity } from "../../../../src/peer/transport/identity.ts";
import { KeyRing } from "../../../../src/peer/transport/key-ring.ts";
import { BLOB_DIGEST, bytesOfBlock, chainOf, disposeAll, EPOCH, IMAGE, LAYER } from "./sim-node.ts";
import type { SimNode } from "./sim-node.ts";

interface Answer {
  readonly status: number;
  readonly body: string;
}

describe("a server that strangers find", () => {
  let nodes: SimNode[] = [];
  beforeEach(async () => {
    nodes = await chainOf([{}, {}]);
  });
  afterEach(async () => {
    await disposeAll(nodes);
  });

  const root = (): SimNode => {
    const [node] = nodes;
    assert.ok(node !== undefined);
    return node;
  };
  const port = (): number => root().ref?.exchangePort ?? 0;

  async function ask(
    credentials: object,
    options: {
      method?: string;
      path: string;
      body?: string | Buffer;
      headers?: Record<string, string>;
    },
  ): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const outgoing = request(
        {
          ...credentials,
          rejectUnauthorized: false,
          agent: false,
          host: "127.0.0.1",
          port: port(),
          method: options.method ?? "GET",
          path: options.path,
          headers: options.headers ?? {},
        },
        (response) => {
          let body = "";
          response.on("data", (piece: Buffer) => (body += piece.toString("latin1")));
          response.on("close", () => {
            resolve({ status: response.statusCode ?? 0, body });
          });
        },
      );
      outgoing.on("error", reject);
      outgoing.end(options.body);
    });
  }

  const asMember = (id: string): object => {
    const { tls } = Identity.fromRing(new KeyRing([Buffer.alloc(32, 7)]), {
      memberId: id,
      random: systemRandom,
    });
    return { ca: tls.ca, cert: tls.cert, key: tls.key };
  };
  const asClient = (): object => {
    const { certificate, privateKey } = root().identity.exportClient("curl");
    return { cert: certificate, key: privateKey };
  };

  async function serves(): Promise<void> {
    assert.ok((await nodes[1]?.read(1))?.equals(bytesOfBlock(1)));
  }

  it("lets nobody in without a certificate of the cluster", async () => {
    const other = Identity.fromRing(new KeyRing([Buffer.alloc(32, 8)]), {
      memberId: "n1",
      random: systemRandom,
    });
    const { certificate, privateKey } = other.material;
    for (const credentials of [{}, { cert: certificate, key: privateKey }]) {
      await assert.rejects(ask(credentials, { path: "/v2/" }));
    }
    await serves();
  });

  it("speaks nothing older than TLS 1.3", async () => {
    const { tls } = root().identity;
    const error = await new Promise<Error>((resolve) => {
      const socket = connectTls({
        port: port(),
        ca: tls.ca,
        cert: tls.cert,
        key: tls.key,
        maxVersion: "TLSv1.2",
        rejectUnauthorized: false,
      });
      socket.on("error", resolve);
    });
    assert.match(error.message, /version/i);
  });

  it("gives a client certificate /v2/ and nothing else", async () => {
    assert.equal((await ask(asClient(), { path: "/v2/" })).status, 404); // no documents here
    for (const path of ["/faasnet/1/probe", `/faasnet/1/order/${IMAGE}`, "/faasnet/1/view"]) {
      const answer = await ask(asClient(), { path });
      assert.equal(answer.status, 403, path);
    }
  });

  it("believes no child that says it is another", async () => {
    const body = JSON.stringify({
      image: IMAGE,
      epoch: EPOCH,
      path: ["n9"],
      layer: LAYER,
      blob: BLOB_DIGEST,
      priority: 0,
      blocks: [[0, 0, 5]],
    });
    const post = { method: "POST", path: "/faasnet/1/blocks", body };

    assert.equal((await ask(asMember("n1"), post)).status, 403);
    assert.equal((await ask(asMember("n9"), post)).status, 200);
  });

  it("refuses a loop, a path that is too deep, and too much of anything", async () => {
    const good = {
      image: IMAGE,
      epoch: EPOCH,
      path: ["n1"],
      layer: LAYER,
      blob: BLOB_DIGEST,
      priority: 0,
      blocks: [[0, 0, 5]],
    };
    const status = async (change: object): Promise<number> =>
      (
        await ask(asMember("n1"), {
          method: "POST",
          path: "/faasnet/1/blocks",
          body: JSON.stringify({ ...good, ...change }),
        })
      ).status;

    assert.equal(await status({}), 200);
    assert.equal(await status({ path: ["n0", "n1"] }), 409);
    const deep = [...Array.from({ length: 40 }, (_, at) => `m${at}`), "n1"];
    assert.equal(await status({ path: deep }), 409);
    assert.equal(await status({ path: [] }), 400);
    assert.equal(await status({ epoch: { counter: 0, manager: "other" } }), 409);
    assert.equal(await status({ epoch: undefined }), 400);
    assert.equal(await status({ blocks: [] }), 400);
    assert.equal(await status({ blocks: [[1, 5, 5]] }), 400);
    assert.equal(
      await status({
        blocks: [
          [1, 0, 5],
          [1, 0, 5],
        ],
      }),
      400,
    );
    assert.equal(await status({ blocks: [[0, 0, 2 ** 40]] }), 400);
    assert.equal(
      await status({ blocks: Array.from({ length: 2000 }, (_, at) => [at, 0, 1]) }),
      400,
    );
    assert.equal(await status({ layer: "../etc" }), 400);
    assert.equal(await status({ priority: 9 }), 400);
    assert.equal(await status({ filler: "x".repeat(200_000) }), 400);
    await serves();
  });

  it("answers any request with a status, and lives", async () => {
    const member = asMember("n1");
    const paths = [
      "/",
      "/faasnet/",
      "/faasnet/1/",
      "/faasnet/1/blocks/x",
      "/faasnet/1/maps/",
      "//",
      "*",
    ];
    for (const path of [...paths, `/faasnet/1/maps/${"a".repeat(64)}`, `/${"x".repeat(9000)}`]) {
      const { status } = await ask(member, { path });
      assert.ok(status >= 400 && status < 500, `${path.slice(0, 40)}: ${status}`);
    }
    await serves();
  });

  it("takes garbage instead of TLS without harm", async () => {
    for (const bytes of [Buffer.from("GET / HTTP/1.1\r\n\r\n"), Buffer.alloc(70_000, 0x16)]) {
      await new Promise<void>((resolve) => {
        const socket = connectTcp(port(), "127.0.0.1", () => socket.write(bytes));
        socket.on("error", () => undefined);
        socket.on("close", () => {
          resolve();
        });
        socket.resume();
      });
    }
    await serves();
    assert.ok(root().server.counts.strangers >= 2);
  });

  it("keeps serving while strangers hold all the handshakes they can", async () => {
    const sockets = Array.from({ length: 150 }, () => {
      const socket = connectTcp(port(), "127.0.0.1");
      socket.on("error", () => undefined);
      return socket;
    });
    for (let turn = 0; turn < 100 && root().server.counts.strangers < 80; turn += 1) {
      await sleep(10);
    }
    assert.ok(root().server.counts.strangers >= 80);
    for (const socket of sockets) socket.destroy();
    await sleep(30);
    await serves();
  });

  it("survives a thousand malformed requests", async () => {
    const { tls } = root().identity;
    const samples = [
      `POST /faasnet/1/blocks HTTP/1.1\r\nhost: x\r\ncontent-length: 12\r\n\r\n{"blocks":[]`,
      `GET /faasnet/1/maps/${"a".repeat(64)}?image=${IMAGE}&path=n1 HTTP/1.1\r\nhost: x\r\n\r\n`,
      `GET /faasnet/1/order/${IMAGE}?from=12 HTTP/1.1\r\nhost: x\r\n\r\n`,
      `POST /faasnet/1/view HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n`,
    ];
    const random = fc.sample(fc.uint8Array({ minLength: 8, maxLength: 8 }), {
      numRuns: 1000,
      seed: 5,
    });
    const open = (): ReturnType<typeof connectTls> => {
      const socket = connectTls({
        port: port(),
        ca: tls.ca,
        cert: tls.cert,
        key: tls.key,
        checkServerIdentity: () => undefined,
      });
      socket.on("error", () => undefined);
      socket.resume();
      return socket;
    };
    let sent = 0;
    while (sent < random.length) {
      const socket = open();
      await new Promise((resolve) => socket.once("secureConnect", resolve));
      // Several on a connection, until the server has had enough.
      for (let count = 0; count < 25 && !socket.destroyed && sent < random.length; count += 1) {
        const [a = 0, b = 0, c = 0, d = 0, ...rest] = random[sent] ?? [];
        sent += 1;
        const bytes = Buffer.from(samples[a % samples.length] ?? "", "latin1");
        bytes[b % bytes.length] = c;
        if (d % 3 === 0) bytes.set(rest, (d * 7) % Math.max(1, bytes.length - rest.length));
        socket.write(bytes.subarray(0, d % 5 === 0 ? c : bytes.length));
      }
      await sleep(2);
      socket.destroy();
    }
    await sleep(20);
    assert.equal(root().server.counts.streams, 0);
    await serves();
  });

  it("has certificates that name the node and nothing of its address", () => {
    const certificate = new X509Certificate(root().identity.material.certificate);
    assert.equal(certificate.subjectAltName, "URI:faasnet:member:n0");
  });
});
