/** The socket that containerd dials: open at once, before the metastore has been read. */
import { chmod, mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import type { Clock } from "../../base/clock.ts";
import { withContext } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { claimSocketPath } from "../../base/unix-socket.ts";
import { containerdService } from "../containerd/protos.ts";
import { GRPC_MESSAGE_BYTES_MAX, SHUTDOWN_GRACE_MS } from "../limits.ts";
import type { Snapshotter } from "../snapshotter.ts";
import { snapshotsService } from "./snapshots-service.ts";

export interface ServerOptions {
  /** Path of the unix socket. */
  readonly address: string;
  /** Calls wait for it. */
  readonly ready: Promise<Snapshotter>;
  readonly clock: Clock;
  readonly log: Logger;
}

export class SnapshotterServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #clock: Clock;

  private constructor(server: Server, clock: Clock) {
    this.#server = server;
    this.#clock = clock;
  }

  static async listen(options: ServerOptions): Promise<SnapshotterServer> {
    const { address, ready, clock, log } = options;
    // Every call reports it; without a call nobody is there to be told.
    ready.catch(() => undefined);
    await mkdir(dirname(address), { recursive: true, mode: 0o711 });
    await claimSocketPath(address);
    const server = new Server({
      "grpc.max_receive_message_length": GRPC_MESSAGE_BYTES_MAX,
      "grpc.max_send_message_length": GRPC_MESSAGE_BYTES_MAX,
      "grpc.enable_channelz": 0,
    });
    const definition = containerdService("containerd.services.snapshots.v1.Snapshots");
    server.addService(definition, snapshotsService(ready, log));
    await new Promise<void>((resolve, reject) => {
      server.bindAsync(`unix:${address}`, ServerCredentials.createInsecure(), (error) => {
        if (error === null) resolve();
        else reject(withContext(error, `cannot listen on ${address}`, "unavailable"));
      });
    });
    await chmod(address, 0o600);
    log.info("snapshotter-listening", { address });
    return new SnapshotterServer(server, clock);
  }

  /** Calls under way may end; those that take longer are cut off. */
  async [Symbol.asyncDispose](): Promise<void> {
    const stop = this.#clock.timer(SHUTDOWN_GRACE_MS, () => {
      this.#server.forceShutdown();
    });
    await new Promise<void>((resolve) => {
      this.#server.tryShutdown(() => {
        resolve();
      });
    });
    stop();
  }
}
