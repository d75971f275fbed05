/** The node's worker thread: a LocalPeerNode; its streams and its log are at a port's other end. */
import { parentPort, workerData } from "node:worker_threads";
import { systemClock } from "../../base/clock.ts";
import { DaemonError, errorMessage } from "../../base/errors.ts";
import { LOG_LEVELS } from "../../base/log.ts";
import type { LogFields, Logger, LogLevel } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { LocalPeerNode } from "./local-peer-node.ts";
import { MachineReader } from "./machine.ts";
import { fromPortError, toPortError } from "./port-protocol.ts";
import type {
  Answers,
  FromWorker,
  Outcome,
  Question,
  StreamCall,
  ToWorker,
  WorkerStart,
} from "./port-protocol.ts";
import type { Streams } from "./streams.ts";
import { preferThisThread } from "./thread-priority.ts";
import { makeTree } from "./tree-port.ts";

/** Opening: names of seeds are resolved first, each for 5 s at most. */
const OPEN_MS_MAX = 30_000;

function post(message: FromWorker): void {
  parentPort?.postMessage(message);
}

/** Lines go to the main thread's logger; an error is flattened to text there and back. */
function portLogger(threshold: LogLevel, base: LogFields = {}): Logger {
  const write = (level: LogLevel, event: string, fields: LogFields): void => {
    if (LOG_LEVELS.indexOf(level) > LOG_LEVELS.indexOf(threshold)) return;
    const { err, ...rest } = { ...base, ...fields };
    const error = err === undefined ? {} : { error: errorMessage(err) };
    post({ kind: "log", level, event, fields: { ...rest, ...error } });
  };
  return {
    error: (event, fields = {}) => {
      write("error", event, fields);
    },
    warn: (event, fields = {}) => {
      write("warn", event, fields);
    },
    info: (event, fields = {}) => {
      write("info", event, fields);
    },
    debug: (event, fields = {}) => {
      write("debug", event, fields);
    },
    child: (fields) => portLogger(threshold, { ...base, ...fields }),
  };
}

class PortStreams implements Streams {
  /** Bounded by StreamCalls. */
  readonly #waiting = new Map<number, (outcome: Outcome<Uint8Array>) => void>();
  #calls = 0;

  async pushPull(
    ...[to, records, { signal }]: Parameters<Streams["pushPull"]>
  ): Promise<Uint8Array> {
    return this.#call({ kind: "push-pull", to, records }, signal);
  }

  async probe(...[to, { signal }]: Parameters<Streams["probe"]>): Promise<void> {
    await this.#call({ kind: "probe", to }, signal);
  }

  onAnswer(call: number, outcome: Outcome<Uint8Array>): void {
    this.#waiting.get(call)?.(outcome);
    this.#waiting.delete(call);
  }

  async #call(stream: StreamCall, signal: AbortSignal): Promise<Uint8Array> {
    this.#calls += 1;
    const call = this.#calls;
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.#waiting.delete(call);
        post({ kind: "stream-cancel", call });
        reject(new DaemonError("canceled", "the stream is not waited for any more"));
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#waiting.set(call, (outcome) => {
        signal.removeEventListener("abort", onAbort);
        if ("error" in outcome) reject(fromPortError(outcome.error));
        else resolve(outcome.value);
      });
      post({ kind: "stream-call", call, stream });
    });
  }
}

async function ask(
  node: LocalPeerNode,
  question: Question,
  signal: AbortSignal,
): Promise<Answers[keyof Answers]> {
  switch (question.kind) {
    case "token":
      return node.requestToken(question.image, question.bytes, { signal });
    case "members":
      return node.members();
    case "rank":
      return node.rank(question.key, question.othersMax);
    case "trees":
      return node.trees();
    case "push-pull":
      return node.onPushPull(question.records);
  }
}

class NodeWorker {
  readonly #streams: PortStreams;
  readonly #node: LocalPeerNode;
  readonly #log: Logger;
  readonly #asked = new Map<number, AbortController>();

  constructor(node: LocalPeerNode, streams: PortStreams, log: Logger) {
    this.#node = node;
    this.#log = log;
    this.#streams = streams;
  }

  /** A request that is refused (no digest, too many trees) must not end the thread. */
  on(message: ToWorker): void {
    try {
      this.#on(message);
    } catch (error) {
      this.#log.warn("peer-request", { request: message.kind, err: error });
    }
  }

  #on(message: ToWorker): void {
    switch (message.kind) {
      case "join":
        this.#node.join(message.image);
        break;
      case "leave":
        this.#node.leave(message.image);
        break;
      case "held":
        this.#node.held(message.image, message.blocks);
        break;
      case "serving":
        this.#node.serving(message.image, message.bytesPerSecond);
        break;
      case "complain":
        this.#node.complain(message.image, message.about, message.reason);
        break;
      case "ask":
        void this.#answer(message.call, message.question);
        break;
      case "cancel":
        this.#asked.get(message.call)?.abort(new DaemonError("canceled", "canceled"));
        break;
      case "stream-answer":
        this.#streams.onAnswer(message.call, message.outcome);
        break;
      case "stop":
        void this.#stop();
    }
  }

  async #answer(call: number, question: Question): Promise<void> {
    const controller = new AbortController();
    this.#asked.set(call, controller);
    try {
      const value = await ask(this.#node, question, controller.signal);
      post({ kind: "answer", call, outcome: { value } });
    } catch (error) {
      post({ kind: "answer", call, outcome: { error: toPortError(error) } });
    } finally {
      this.#asked.delete(call);
    }
  }

  async #stop(): Promise<void> {
    await this.#node[Symbol.asyncDispose]();
    post({ kind: "stopped" });
    parentPort?.close();
  }
}

async function start({ config, logLevel }: WorkerStart): Promise<void> {
  const streams = new PortStreams();
  const log = portLogger(logLevel);
  const reader = new MachineReader(systemClock);
  const node = await LocalPeerNode.open({
    ...{ config, streams, clock: systemClock, random: systemRandom, makeTree },
    log,
    machine: (host) => reader.read(host),
    signal: AbortSignal.timeout(OPEN_MS_MAX),
  });
  const worker = new NodeWorker(node, streams, log);
  node.onPosition((image, position) => {
    post({ kind: "position", image, position });
  });
  node.onSelf((self) => {
    post({ kind: "self", self });
  });
  preferThisThread();
  parentPort?.on("message", (message: ToWorker) => {
    worker.on(message);
  });
  post({ kind: "ready", self: node.self });
}

try {
  await start(workerData as WorkerStart);
} catch (error) {
  post({ kind: "failed", error: toPortError(error) });
  parentPort?.close();
}
