/** The Snapshots service of a daemon, called directly: the answer's gRPC code is what counts. */
import { Metadata, status } from "@grpc/grpc-js";
import { join } from "node:path";
import { call, loadServices, openClient, type DynamicClient, type Message } from "./grpc.ts";
import type { Lab } from "./lab.ts";
import { containerdProtoFolder } from "./paths.ts";

const PROTO = "github.com/containerd/containerd/api/services/snapshots/v1/snapshots.proto";

export interface SnapshotAnswer {
  /** `OK`, `RESOURCE_EXHAUSTED`, … */
  readonly code: string;
  readonly message: string;
}

export class SnapshotsClient {
  readonly #client: DynamicClient;
  readonly #metadata = new Metadata();

  private constructor(client: DynamicClient) {
    this.#client = client;
    this.#metadata.set("containerd-namespace", "default");
  }

  static async open(lab: Lab, socket: string): Promise<SnapshotsClient> {
    const service = await loadServices(
      [join(containerdProtoFolder, PROTO)],
      [containerdProtoFolder],
    );
    const client = openClient(service("containerd.services.snapshots.v1.Snapshots"), socket);
    lab.defer(() => {
      client.close();
    });
    return new SnapshotsClient(client);
  }

  async call(method: string, request: Message): Promise<SnapshotAnswer> {
    try {
      const all = { snapshotter: "", ...request };
      await call(this.#client, method, all, { metadata: this.#metadata });
      return { code: "OK", message: "" };
    } catch (error) {
      const cause = error instanceof Error ? error.cause : undefined;
      if (!(cause instanceof Error && "code" in cause)) throw error;
      return { code: status[Number(cause.code)] ?? String(cause.code), message: cause.message };
    }
  }

  /** `ACTIVE`, `COMMITTED`, … and the labels; undefined where there is no such snapshot. */
  async stat(
    key: string,
  ): Promise<
    { readonly kind: string; readonly labels: Readonly<Record<string, string>> } | undefined
  > {
    try {
      const request = { snapshotter: "", key };
      const answer = await call(this.#client, "Stat", request, { metadata: this.#metadata });
      return answer["info"] as { kind: string; labels: Record<string, string> };
    } catch (error) {
      const cause = error instanceof Error ? error.cause : undefined;
      if (cause instanceof Error && "code" in cause && cause.code === status.NOT_FOUND) {
        return undefined;
      }
      throw error;
    }
  }
}
