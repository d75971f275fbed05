/** Manifests and configs between members: the request, the reply, and what is wrong with either. */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../../../../src/base/clock.ts";
import { DaemonError } from "../../../../src/base/errors.ts";
import { silentLogger } from "../../../../src/base/log.ts";
import { digestOf } from "../../../../src/oci/index.ts";
import { parseHead } from "../../../../src/peer/exchange/documents.ts";
import { FRAME, encodeFrame, indexPayload } from "../../../../src/peer/exchange/frames.ts";
import { ExchangeClient, ExchangeCounters, WaitBook } from "../../../../src/peer/exchange/index.ts";
import type {
  DocumentQuestion,
  SharedDocument,
  SharedDocumentProvider,
} from "../../../../src/peer/exchange/index.ts";
import { DOCUMENT_SILENCE_MS } from "../../../../src/peer/exchange/limits.ts";
import { documentResource, parseTarget, targetOf } from "../../../../src/peer/exchange/protocol.ts";
import type { PeerRef } from "../../../../src/peer/peer-ref.ts";
import { WIRE_VERSION, WIRE_VERSIONS } from "../../../../src/peer/wire-versions.ts";
import { SimNode, disposeAll, last, refOf } from "./sim-node.ts";

const BYTES = Buffer.from(`{"schemaVersion":2}`);
const DOCUMENT: SharedDocument = {
  bytes: BYTES,
  mediaType: "application/vnd.oci.image.manifest.v1+json",
  digest: digestOf(BYTES),
  ageMs: 1250,
};
const QUESTION: DocumentQuestion = {
  kind: "manifest",
  registry: "registry.example:5000",
  name: "library/app",
  reference: "v1.0",
  reach: "forward",
};

const { signal } = new AbortController();

describe("a document from a member", () => {
  let asker: SimNode;
  let server: SimNode;
  let ref: PeerRef;
  const asked: DocumentQuestion[] = [];
  let answer: SharedDocumentProvider["answer"] = async () => DOCUMENT;

  before(async () => {
    const shared: SharedDocumentProvider = {
      answer: async (question, options) => {
        asked.push(question);
        return answer(question, options);
      },
    };
    asker = new SimNode("n1");
    server = new SimNode("n0", { shared });
    ref = await server.listen();
  });

  after(async () => {
    await disposeAll([asker, server]);
  });

  it("comes with its type, its digest and its age", async () => {
    const reply = await asker.client.fetchDocument(ref, QUESTION, { signal });

    assert.deepEqual(reply, { kind: "document", document: DOCUMENT });
    assert.deepEqual(last(asked), QUESTION);
    assert.equal(asker.counters.total.bytesIn, BYTES.length);
    assert.equal(server.counters.total.bytesOut, BYTES.length);
  });

  it("may be large, or of an age that nobody knows", async () => {
    const bytes = Buffer.alloc(3_000_000, "x");
    for (const ageMs of [undefined, 1e12]) {
      answer = async () => ({ ...DOCUMENT, bytes, ageMs });

      const reply = await asker.client.fetchDocument(ref, QUESTION, { signal });

      assert.ok(reply.kind === "document" && reply.document.ageMs === undefined);
      assert.ok(bytes.equals(reply.document.bytes));
    }
  });

  it("is waited for while the member says that it lives", async () => {
    answer = async () => {
      await sleep(2 * DOCUMENT_SILENCE_MS);
      return DOCUMENT;
    };

    const reply = await asker.client.fetchDocument(ref, QUESTION, { signal });

    assert.equal(reply.kind, "document");
    assert.ok(asker.counters.total.ticksIn > 0);
  });

  it("is refused with the member's own word", async () => {
    answer = async () => {
      throw new DaemonError("not-found", "ask yourself");
    };

    const reply = await asker.client.fetchDocument(ref, QUESTION, { signal });

    assert.ok(reply.kind === "refused");
    assert.deepEqual([reply.error.code, reply.error.message], ["not-found", "n0: ask yourself"]);
  });

  it("is not to be had from a member that shares none, or of an older version", async () => {
    await using other = new SimNode("n2");
    const without = await other.listen();
    await assert.rejects(asker.client.fetchDocument(without, QUESTION, { signal }), {
      code: "not-found",
    });
  });

  it("is not to be had from whom nobody answers for", async () => {
    const nobody = refOf("n9", "127.0.0.1", 1);
    await assert.rejects(asker.client.fetchDocument(nobody, QUESTION, { signal }), {
      code: "unavailable",
    });
  });

  it("is given up with its asker", async () => {
    let onLeft: () => void = () => undefined;
    const left = new Promise<void>((resolve) => {
      onLeft = resolve;
    });
    answer = async (_question, options) =>
      new Promise((_resolve, reject) => {
        options.signal.addEventListener("abort", () => {
          onLeft();
          reject(new DaemonError("canceled", "gone"));
        });
      });
    const leaver = new AbortController();
    const asking = asker.client.fetchDocument(ref, QUESTION, {
      signal: leaver.signal,
      onSilent: () => assert.fail("it was not silent"),
    });
    setTimeout(() => {
      leaver.abort(new DaemonError("canceled", "enough"));
    }, 100);

    await assert.rejects(asking, { code: "canceled" });
    await left;
  });
});

describe("a member that breaks the rules", () => {
  let server: Server;
  let ref: PeerRef;
  let reply: Buffer | undefined;
  let client: ExchangeClient;

  before(async () => {
    server = createServer((_request, response) => {
      if (reply === undefined) return; // silent
      response.writeHead(200).end(reply);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    ref = refOf("liar", "127.0.0.1", port);
    client = new ExchangeClient({
      ...{ selfId: "n1", identity: undefined, positions: () => undefined },
      ...{ clock: systemClock, logger: silentLogger },
      ...{ waits: new WaitBook(), counters: new ExchangeCounters() },
    });
  });

  after(() => {
    client[Symbol.dispose]();
    server.closeAllConnections();
    server.close();
  });

  function headOf(change: object = {}): Buffer {
    const { mediaType, digest } = DOCUMENT;
    const head = { mediaType, digest, size: BYTES.length, ageMs: 0, ...change };
    return encodeFrame(FRAME.document, Buffer.from(JSON.stringify(head)));
  }

  const data = encodeFrame(FRAME.data, BYTES);
  const done = encodeFrame(FRAME.done, Buffer.alloc(0));

  it("is found out, whatever it sends", async () => {
    const wrong: Record<string, Buffer[]> = {
      "no head": [data, done],
      "two heads": [headOf(), headOf(), data, done],
      "too little": [headOf(), done],
      "too much": [headOf(), data, data, done],
      "another frame": [encodeFrame(FRAME.size, Buffer.alloc(8)), done],
      "no JSON": [encodeFrame(FRAME.document, Buffer.from("{")), done],
      "a block": [encodeFrame(FRAME.block, indexPayload(0, 1)), done],
      "an impossible size": [headOf({ size: 1e9 }), done],
      "a type that breaks headers": [headOf({ mediaType: "a/b\r\nset-cookie: x" }), data, done],
      "no digest": [headOf({ digest: "sha256:1" }), data, done],
      "a negative age": [headOf({ ageMs: -1 }), data, done],
    };
    for (const [what, frames] of Object.entries(wrong)) {
      reply = Buffer.concat(frames);
      await assert.rejects(
        client.fetchDocument(ref, QUESTION, { signal }),
        { code: "data-loss" },
        what,
      );
    }
  });

  it("is no liar when its reply is cut", async () => {
    reply = Buffer.concat([headOf(), data.subarray(0, 9)]);
    await assert.rejects(client.fetchDocument(ref, QUESTION, { signal }), { code: "unavailable" });
  });

  it("is left when it is silent", async () => {
    reply = undefined;
    const startedMs = performance.now();

    await assert.rejects(client.fetchDocument(ref, QUESTION, { signal }), { code: "unavailable" });

    assert.ok(performance.now() - startedMs >= DOCUMENT_SILENCE_MS - 1);
  });

  it("is waited for longer when that is wanted, and its silence told", async () => {
    let silentMs = 0;
    const startedMs = performance.now();
    const options = {
      silenceMs: 3 * DOCUMENT_SILENCE_MS,
      onSilent: () => {
        silentMs = performance.now() - startedMs;
      },
    };

    await assert.rejects(client.fetchDocument(ref, QUESTION, { signal, ...options }));

    assert.ok(silentMs >= DOCUMENT_SILENCE_MS - 1, `${silentMs} ms`);
    assert.ok(performance.now() - startedMs >= 3 * DOCUMENT_SILENCE_MS - 1);
  });

  it("cannot say an age that is none", () => {
    const { mediaType, digest } = DOCUMENT;
    const head = { mediaType, digest, size: 0, ageMs: "1" };
    assert.throws(() => parseHead(Buffer.from(JSON.stringify(head))), { code: "data-loss" });
  });
});

describe("a request for a document", () => {
  const parse = (method: string, resource: string) =>
    parseTarget(method, targetOf(WIRE_VERSION, resource), WIRE_VERSIONS);

  it("is what was asked", () => {
    for (const question of [
      QUESTION,
      { ...QUESTION, kind: "config", reference: DOCUMENT.digest, reach: "store" },
      { ...QUESTION, registry: "[fd00::1]:5000", reference: DOCUMENT.digest, reach: "fetch" },
    ] as const) {
      const target = parse("GET", documentResource(question));
      assert.deepEqual(target, { kind: "document", question });
    }
  });

  it("is refused when it is none", () => {
    for (const change of [
      { kind: "layer" },
      { kind: "config" },
      { registry: "" },
      { registry: "a/b" },
      { registry: "x".repeat(300) },
      { name: "" },
      { name: "../etc" },
      { name: "Library/app" },
      { reference: "" },
      { reference: "../v1" },
      { reference: "sha256:12" },
      { reach: "everywhere" },
      { reach: "" },
    ]) {
      const target = documentResource({ ...QUESTION, ...change } as DocumentQuestion);
      assert.throws(() => parse("GET", target), { code: "invalid-argument" }, target);
    }
    assert.throws(() => parse("POST", documentResource(QUESTION)), { code: "unimplemented" });
    assert.throws(() => parse("GET", "document/x"), { code: "not-found" });
  });
});
