import assert from "node:assert/strict";
import { createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { createServer as createHttpServer } from "node:http";
import type { RequestListener } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { ReplyParser } from "../../../../src/peer/exchange/reply-parser.ts";
import { WirePool } from "../../../../src/peer/exchange/wire.ts";
import type { WireReply } from "../../../../src/peer/exchange/wire.ts";

const { signal } = new AbortController();
const NO_OP = (): void => undefined;

interface Parsed {
  status: number;
  body: string;
  ends: number;
}

/** What replies, pushed in pieces of these lengths, are read as. */
function parse(text: string, cuts: readonly number[] = []): Parsed[] {
  const replies: Parsed[] = [];
  const parser = new ReplyParser({
    onHead: ({ status }) => replies.push({ status, body: "", ends: 0 }),
    onBody: (bytes) => {
      const last = replies.at(-1);
      if (last !== undefined) last.body += bytes.toString("latin1");
    },
    onEnd: () => {
      const last = replies.at(-1);
      if (last !== undefined) last.ends += 1;
      parser.expect();
    },
  });
  parser.expect();
  const bytes = Buffer.from(text, "latin1");
  let from = 0;
  for (const cut of [...cuts, bytes.length]) {
    parser.push(bytes.subarray(from, Math.min(bytes.length, from + cut)));
    from = Math.min(bytes.length, from + cut);
  }
  return replies;
}

const REPLIES = [
  "HTTP/1.1 100 Continue\r\n\r\n",
  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nDate: now\r\n\r\n",
  "00000005\r\nhello\r\n6;name=value\r\n world\r\n0\r\ntrailer: x\r\n\r\n",
  "HTTP/1.1 404 Not Found\r\ncontent-length:  4 \r\n\r\nno\r\n",
  "HTTP/1.1 204 No Content\r\n\r\n",
  "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
].join("");

describe("the reader of HTTP replies", () => {
  it("reads the same replies however they are cut", () => {
    const expected = [
      { status: 200, body: "hello world", ends: 1 },
      { status: 404, body: "no\r\n", ends: 1 },
      { status: 204, body: "", ends: 1 },
      { status: 200, body: "", ends: 1 },
    ];
    assert.deepEqual(parse(REPLIES), expected);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 100 }), (cuts) => {
        assert.deepEqual(parse(REPLIES, cuts), expected);
      }),
    );
  });

  it("refuses what no block server sends", () => {
    const bad = [
      "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
      "HTTP/1.1 200 OK\r\n\r\n",
      "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
      "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
      "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
      "HTTP/1.1 200 OK\r\nbad header: 1\r\n\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n123456789\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
      `HTTP/1.1 200 OK\r\n${"x".repeat(40_000)}`,
      `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;${"x".repeat(2000)}`,
      `HTTP/1.1 200 OK\r\n${"a: b\r\n".repeat(200)}\r\n`,
    ];
    for (const text of bad) {
      assert.throws(() => parse(text), { code: "unavailable" }, text.slice(0, 80));
    }
  });

  it("ends with an error or not at all, whatever comes", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 300 }), (text) => {
        try {
          parse(`HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n${text}`);
        } catch (error) {
          assert.equal((error as { code?: string }).code, "unavailable");
        }
      }),
    );
  });
});

describe("connections to a peer", () => {
  const ends: (() => Promise<void> | void)[] = [];
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
  });

  async function listening(server: Server): Promise<WirePool> {
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const buffer = WirePool.readBuffer();
    const pool = new WirePool({ host: "127.0.0.1", port, tls: undefined, buffer });
    ends.push(async () => {
      pool.destroy();
      await new Promise((resolve) => server.close(resolve));
    });
    return pool;
  }

  async function served(
    listener: RequestListener,
  ): Promise<{ pool: WirePool; count: () => number }> {
    let connections = 0;
    const server = createHttpServer(listener);
    server.on("connection", () => (connections += 1));
    return { pool: await listening(server), count: () => connections };
  }

  async function get(pool: WirePool, more: { signal?: AbortSignal } = {}): Promise<WireReply> {
    return pool.send({ method: "GET", target: "/" }, { signal, onSent: NO_OP, ...more });
  }

  it("are used again, and tell the end of a reply that was here before anybody listened", async () => {
    const { pool, count } = await served((request, response) => {
      request.on("data", NO_OP).on("end", () => response.end(`seen ${request.url ?? ""}`));
    });
    for (let turn = 0; turn < 5; turn += 1) {
      const body = Buffer.alloc(200_000, turn);
      const request = { method: "POST", target: `/${turn}`, body, contentType: "x/y" } as const;
      const reply = await pool.send(request, { signal, onSent: NO_OP });
      await sleep(5);
      let closes = 0;
      reply.on("close", () => (closes += 1));
      assert.equal((await reply.bytes(100)).toString(), `seen /${turn}`);
      assert.equal(closes, 1);
      assert.equal(reply.complete, true);
    }
    assert.equal(count(), 1);
  });

  it("hold the sender back while the reader wants nothing", async () => {
    const total = 40_000_000;
    let isFinished = false;
    const { pool } = await served((_request, response) => {
      response.end(Buffer.alloc(total, 1));
      response.on("finish", () => (isFinished = true));
    });
    const reply = await get(pool);
    let received = 0;
    const whole = new Promise<void>((resolve, reject) => {
      reply.read({
        onBytes: (bytes) => {
          const before = received;
          received += bytes.length;
          if (before === 0) reply.pause();
        },
        onEnd: resolve,
        onLost: reject,
      });
    });
    await sleep(100);
    assert.ok(received < 2_000_000 && !isFinished);
    reply.resume();
    await whole;
    assert.equal(received, total);
  });

  it("leave a later request alone when the signal of an earlier one aborts", async () => {
    const { pool, count } = await served((_request, response) => {
      setTimeout(() => response.end("late"), 50);
    });
    const first = new AbortController();
    const early = await get(pool, { signal: first.signal });
    await sleep(5); // complete, and nobody has read it
    const later = get(pool);
    first.abort();
    assert.equal((await (await later).bytes(10)).toString(), "late");
    await assert.rejects(early.bytes(10), { code: "unavailable" });
    assert.equal(count(), 1);
  });

  it("end with the signal, before and within a reply", async () => {
    const { pool } = await served((request, response) => {
      if (request.url === "/") response.write("begun");
    });
    const silent = new AbortController();
    const request = { method: "GET", target: "/never" } as const;
    const waiting = pool.send(request, { signal: silent.signal, onSent: NO_OP });
    setTimeout(() => {
      silent.abort();
    }, 10);
    await assert.rejects(waiting, { code: "canceled" });
    const begun = new AbortController();
    const reply = await get(pool, { signal: begun.signal });
    const body = reply.bytes(100);
    begun.abort();
    await assert.rejects(body, { code: "unavailable" });
  });

  it("are made anew when the peer has closed the idle one", async () => {
    const sockets: Socket[] = [];
    const server = createServer((socket) => {
      sockets.push(socket);
      socket.on("error", NO_OP);
      socket.on("data", () => {
        // The first connection answers once, and is reset by its second request.
        if (sockets.length === 1 && socket.bytesWritten > 0) socket.resetAndDestroy();
        else socket.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
      });
    });
    const pool = await listening(server);
    for (let turn = 0; turn < 2; turn += 1) {
      assert.equal((await (await get(pool)).bytes(10)).toString(), "ok");
    }
    assert.equal(sockets.length, 2);
    ends.push(() => {
      for (const socket of sockets) socket.destroy();
    });
  });

  it("say which system error it was, and refuse odd targets", async () => {
    const server = createServer((socket) => {
      socket.on("error", NO_OP);
      socket.on("data", () => socket.destroy());
    });
    const pool = await listening(server);
    await assert.rejects(get(pool), { code: "ECONNRESET" });
    const options = { signal, onSent: NO_OP };
    const odd = pool.send({ method: "GET", target: "/a b\r\nx: y" }, options);
    await assert.rejects(odd, { code: "invalid-argument" });
  });

  it("are lost with bytes that are no reply, or that nobody asked for", async () => {
    const texts = ["SSH-2.0-x\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and more"];
    const server = createServer((socket) => {
      socket.on("error", NO_OP);
      socket.on("data", () => socket.write(texts.shift() ?? ""));
    });
    const pool = await listening(server);
    await assert.rejects(get(pool), { code: "EPROTO" });
    const reply = await get(pool);
    assert.equal((await reply.bytes(10)).toString(), "ok");
  });
});
