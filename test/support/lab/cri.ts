/** kubelet's side of CRI, as far as the tests go: pull, run one container in a host-network pod. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { call, loadServices, openClient, type DynamicClient, type Message } from "./grpc.ts";
import type { Lab } from "./lab.ts";
import { criProto } from "./paths.ts";

export interface CriResult {
  readonly exitCode: number;
  readonly output: string;
}

export class Cri implements AsyncDisposable {
  readonly #runtime: DynamicClient;
  readonly #image: DynamicClient;
  readonly #logs: string;
  #pods = 0;

  private constructor(runtime: DynamicClient, image: DynamicClient, logs: string) {
    this.#runtime = runtime;
    this.#image = image;
    this.#logs = logs;
  }

  static async connect(lab: Lab, socket: string): Promise<Cri> {
    const service = await loadServices([criProto], []);
    const runtime = openClient(service("runtime.v1.RuntimeService"), socket);
    const image = openClient(service("runtime.v1.ImageService"), socket);
    return lab.use(new Cri(runtime, image, await lab.makeFolder("pods")));
  }

  #sandboxConfig(): Message {
    this.#pods += 1;
    const uid = `lab-${process.pid}-${this.#pods}`;
    return {
      metadata: { name: uid, uid, namespace: "default", attempt: 0 },
      log_directory: this.#logs,
      linux: {
        cgroup_parent: "/faasnet-lab",
        security_context: { namespace_options: { network: "NODE", pid: "POD", ipc: "POD" } },
      },
    };
  }

  async pull(reference: string): Promise<string> {
    const response = await call(this.#image, "PullImage", {
      image: { image: reference },
      sandbox_config: this.#sandboxConfig(),
    });
    return String(response["image_ref"]);
  }

  async removeImage(reference: string): Promise<void> {
    await call(this.#image, "RemoveImage", { image: { image: reference } });
  }

  /** A pod with one container, from its start to its end. */
  async runPod(image: string, command: readonly string[]): Promise<CriResult> {
    const config = this.#sandboxConfig();
    const sandbox = String(
      (await call(this.#runtime, "RunPodSandbox", { config }))["pod_sandbox_id"],
    );
    try {
      return await this.#runContainer(sandbox, config, image, command);
    } finally {
      await call(this.#runtime, "StopPodSandbox", { pod_sandbox_id: sandbox });
      await call(this.#runtime, "RemovePodSandbox", { pod_sandbox_id: sandbox });
    }
  }

  async #runContainer(
    sandbox: string,
    config: Message,
    image: string,
    command: readonly string[],
  ): Promise<CriResult> {
    const log = `${sandbox.slice(0, 12)}.log`;
    const created = await call(this.#runtime, "CreateContainer", {
      pod_sandbox_id: sandbox,
      sandbox_config: config,
      config: { metadata: { name: "main" }, image: { image }, command, log_path: log },
    });
    const container = { container_id: created["container_id"] };
    await call(this.#runtime, "StartContainer", container);
    for (;;) {
      const status = (await call(this.#runtime, "ContainerStatus", container))["status"] as Message;
      if (status["state"] === "CONTAINER_EXITED") {
        return { exitCode: Number(status["exit_code"]), output: await this.#output(log) };
      }
      await sleep(50);
    }
  }

  /** Source: CRI's log format: time, stream, tag, text. */
  async #output(log: string): Promise<string> {
    const text = await readFile(join(this.#logs, log), "utf8");
    return text.replace(/^\S+ std(?:out|err) [FP] /gm, "");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#runtime.close();
    this.#image.close();
    await Promise.resolve();
  }
}
