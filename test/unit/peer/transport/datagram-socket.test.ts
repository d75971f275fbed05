import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { systemClock } from "../../../../src/base/clock.ts";
import { DaemonError } from "../../../../src/base/errors.ts";
import type { Address } from "../../../../src/peer/membership/member.ts";
import { DatagramSocket } from "../../../../src/peer/transport/datagram-socket.ts";

const { signal } = new AbortController();

interface Inbox {
  readonly socket: DatagramSocket;
  readonly next: () => Promise<{ readonly text: string; readonly from: Address }>;
}

async function open(host: string): Promise<Inbox> {
  const got: { text: string; from: Address }[] = [];
  let wake = (): void => undefined;
  const socket = await DatagramSocket.open({
    ...{ host, port: 0, signal },
    onPacket: (packet, from) => {
      got.push({ text: Buffer.from(packet).toString(), from });
      wake();
    },
  });
  const next = async (): Promise<{ text: string; from: Address }> => {
    if (got.length === 0) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    const first = got.shift();
    assert.ok(first !== undefined);
    return first;
  };
  return { socket, next };
}

describe("A datagram socket", () => {
  for (const [host, local] of [
    ["127.0.0.1", "127.0.0.1"],
    ["::1", "::1"],
    ["::", "127.0.0.1"],
  ] as const) {
    it(`on ${host} speaks with one on ${local}, under the address that the other has`, async () => {
      const here = await open(host);
      const there = await open(local);
      try {
        const { port } = here.socket.local;
        there.socket.send(Buffer.from("ping"), { host: local, port });
        const ping = await here.next();
        assert.deepEqual(ping, { text: "ping", from: there.socket.local });
        here.socket.send(Buffer.from("pong"), ping.from);
        assert.equal((await there.next()).text, "pong");
        assert.equal(here.socket.counters.sent, 1);
        assert.equal(here.socket.counters.receivedBytes, 4);
      } finally {
        await here.socket[Symbol.asyncDispose]();
        await there.socket[Symbol.asyncDispose]();
      }
    });
  }

  it("counts what cannot be sent, and goes on", async () => {
    const here = await open("127.0.0.1");
    const closed = createSocket("udp4").bind(0, "127.0.0.1");
    await once(closed, "listening");
    const { port } = closed.address();
    closed.close();
    await once(closed, "close");
    try {
      const { socket } = here;
      // Nobody there (ICMP), no such family, no port, longer than any datagram.
      for (let count = 0; count < 3; count += 1) {
        socket.send(Buffer.from("x"), { host: "127.0.0.1", port });
      }
      socket.send(Buffer.from("x"), { host: "fd00::1", port: 1 });
      socket.send(Buffer.from("x"), { host: "127.0.0.1", port: 0 });
      socket.send(new Uint8Array(70_000), { host: "127.0.0.1", port });
      socket.send(Buffer.from("me"), socket.local);
      assert.equal((await here.next()).text, "me");
      assert.ok(socket.counters.unsent >= 3, `${socket.counters.unsent}`);
      assert.ok(socket.counters.lastError !== undefined);
    } finally {
      await here.socket[Symbol.asyncDispose]();
    }
  });

  it("says what it cannot listen on", async () => {
    const first = await open("127.0.0.1");
    const { port } = first.socket.local;
    const onPacket = (): void => undefined;
    const code = (expected: string) => (error: unknown) =>
      error instanceof DaemonError && error.code === expected;
    try {
      await assert.rejects(
        DatagramSocket.open({ host: "127.0.0.1", port, onPacket, signal }),
        code("unavailable"),
      );
      await assert.rejects(
        DatagramSocket.open({ host: "localhost", port, onPacket, signal }),
        code("invalid-argument"),
      );
      await assert.rejects(
        DatagramSocket.open({
          ...{ host: "127.0.0.1", port: 0, onPacket },
          signal: AbortSignal.abort(),
        }),
        code("canceled"),
      );
    } finally {
      await first.socket[Symbol.asyncDispose]();
    }
  });

  it("sends nothing and closes once more after its end", async () => {
    const { socket } = await open("127.0.0.1");
    const { local } = socket;
    await socket[Symbol.asyncDispose]();
    socket.send(Buffer.from("x"), local);
    await socket[Symbol.asyncDispose]();
    await systemClock.sleep(1, { signal });
    assert.equal(socket.counters.sent, 0);
  });
});
