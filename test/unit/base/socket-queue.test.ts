import assert from "node:assert/strict";
import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { SocketQueues } from "../../../src/base/socket-queue.ts";

describe("what the kernel holds of a connection", () => {
  it("is told until the other side has it, and can be limited", async () => {
    const queues = await SocketQueues.open();
    assert.ok(queues !== undefined);
    const server = createServer().listen(0, "127.0.0.1");
    const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address() as AddressInfo;
    const receiver = connect({ port, host: "127.0.0.1" }).pause();
    const sender = await accepted;
    try {
      assert.equal(queues.unackedBytes(sender), 0);
      queues.limitUnsent(sender, 128 * 1024);
      sender.write(Buffer.alloc(20_000_000));
      await sleep(50);
      const held = queues.unackedBytes(sender);
      assert.ok(held > 0 && held < 20_000_000, `${held}`);
      receiver.resume();
      await new Promise<void>((resolve) => {
        sender.end(resolve);
      });
      while (queues.unackedBytes(sender) > 0) await sleep(1);
    } finally {
      receiver.destroy();
      sender.destroy();
      server.close();
    }
    await sleep(0);
    assert.equal(queues.unackedBytes(sender), 0);
  });
});
