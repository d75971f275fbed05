/** What the image service sees of membership and trees, wherever they run. */
import { Worker } from "node:worker_threads";
import { raceAbort, throwIfAborted } from "../../base/abort.ts";
import { systemClock } from "../../base/clock.ts";
import { DaemonError } from "../../base/errors.ts";
import type { Logger, LogLevel } from "../../base/log.ts";
import type { PeerRef } from "../peer-ref.ts";
import type { PeerNodeConfig } from "./config.ts";
import type { RankedMembers } from "./member-ranking.ts";
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
import { Positions } from "./positions.ts";
import type { PositionListener } from "./positions.ts";
import type { MembersReport } from "./report.ts";
import type { Streams } from "./streams.ts";
import type { ComplaintReason, Position } from "../tree/index.ts";
import type { TreesReport } from "./tree-port.ts";

export interface PeerNode extends AsyncDisposable {
  /** This node as others know it; another boot or address after a clone. */
  readonly self: PeerRef;
  /** Takes part in the image's tree. `image`: the manifest's digest. */
  join(image: string): void;
  leave(image: string): void;
  /** How many blocks of the image are here. */
  held(image: string, blocks: number): void;
  /** How fast this node sends the image's blocks to a child while it sends. */
  serving(image: string, bytesPerSecond: number): void;
  complain(image: string, about: string, reason: ComplaintReason): void;
  /**
   * Whether this member, which is not the root, may read `bytes` from the registry. Rejects with
   * `deadline-exceeded` when nobody answers, and as the signal says.
   */
  requestToken(
    image: string,
    bytes: number,
    options: { readonly signal: AbortSignal },
  ): Promise<boolean>;
  /** Undefined before the first answer of a manager, and after leaving. */
  position(image: string): Position | undefined;
  /** Calls back at every change; the returned function stops that. */
  onPosition(listener: (image: string, position: Position | undefined) => void): () => void;
  members(): Promise<MembersReport>;
  /** Who is responsible for what the key names; see MemberRanking. */
  rank(key: string, othersMax: number): Promise<RankedMembers>;
  trees(): Promise<TreesReport>;
  /**
   * Another's view came over a stream; resolves with ours. Rejects with `data-loss` and
   * `failed-precondition` (another wire version).
   */
  onPushPull(records: Uint8Array): Promise<Uint8Array>;
}

export interface PeerNodeStart {
  readonly config: PeerNodeConfig;
  readonly streams: Streams;
  readonly log: Logger;
  readonly logLevel: LogLevel;
  /** Of the opening only. */
  readonly signal: AbortSignal;
  /** Another program than worker.js: for tests. */
  readonly program?: URL;
}

/** Questions to the worker that wait for an answer; more are refused. */
const CALLS_MAX = 4096;
/** After the node has left the cluster (half a second at most) its thread ends within this, ms. */
const STOP_MS_MAX = 5000;
/** A thread that ended by itself is started again after this, ms; twice that the next time. */
const RESTART_MS = 500;
const RESTART_MS_MAX = 30_000;
/** A thread that ran for so long, ms, is not held against the next. */
const SOUND_MS = 60_000;
const WORKER_PROGRAM = new URL("./worker.js", import.meta.url);

/**
 * A node in a worker thread of its own: a busy main thread does not make it look dead. A thread
 * that ends by itself (a defect, no memory) is started again and joins its trees anew; until then
 * `self` and questions are `unavailable`, and there are no positions.
 */
export class WorkerPeerNode implements PeerNode {
  readonly #options: PeerNodeStart;
  readonly #images = new Set<string>();
  readonly #positions = new Positions(systemClock);
  readonly #calls = new Map<number, (outcome: Outcome<Answers[keyof Answers]>) => void>();
  readonly #streamCalls = new Map<number, AbortController>();
  #worker: Worker;
  #ended: Promise<void>;
  #restartMs = RESTART_MS;
  #cancelRestart: () => void = () => undefined;
  #lastCall = 0;
  #self: PeerRef | undefined;
  #hasStarted = false;
  #isStopping = false;

  /** Throws what LocalPeerNode.open throws. */
  static async start(options: PeerNodeStart): Promise<WorkerPeerNode> {
    throwIfAborted(options.signal);
    const node = new WorkerPeerNode(options);
    try {
      await raceAbort(node.#ready(), options.signal);
    } catch (error) {
      node.#isStopping = true;
      node.#cancelRestart();
      await node.#worker.terminate();
      throw error;
    }
    return node;
  }

  private constructor(options: PeerNodeStart) {
    this.#options = options;
    this.#worker = this.#spawn();
    this.#ended = this.#whenEnded(this.#worker);
  }

  get self(): PeerRef {
    if (this.#self === undefined) throw new DaemonError("unavailable", "the node is not running");
    return this.#self;
  }

  join(image: string): void {
    this.#images.add(image);
    this.#post({ kind: "join", image });
  }

  leave(image: string): void {
    this.#images.delete(image);
    this.#post({ kind: "leave", image });
  }

  held(image: string, blocks: number): void {
    this.#post({ kind: "held", image, blocks });
  }

  serving(image: string, bytesPerSecond: number): void {
    this.#post({ kind: "serving", image, bytesPerSecond });
  }

  complain(image: string, about: string, reason: ComplaintReason): void {
    this.#post({ kind: "complain", image, about, reason });
  }

  async requestToken(
    image: string,
    bytes: number,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<boolean> {
    const answer = await this.#ask({ kind: "token", image, bytes }, signal);
    return answer === true;
  }

  position(image: string): Position | undefined {
    return this.#positions.get(image);
  }

  onPosition(listener: PositionListener): () => void {
    return this.#positions.listen(listener);
  }

  async members(): Promise<MembersReport> {
    return (await this.#ask({ kind: "members" })) as MembersReport;
  }

  async rank(key: string, othersMax: number): Promise<RankedMembers> {
    return (await this.#ask({ kind: "rank", key, othersMax })) as RankedMembers;
  }

  async trees(): Promise<TreesReport> {
    return (await this.#ask({ kind: "trees" })) as TreesReport;
  }

  async onPushPull(records: Uint8Array): Promise<Uint8Array> {
    return (await this.#ask({ kind: "push-pull", records })) as Uint8Array;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isStopping) {
      this.#isStopping = true;
      this.#cancelRestart();
      this.#post({ kind: "stop" });
    }
    const stopTimer = systemClock.timer(STOP_MS_MAX, () => {
      void this.#worker.terminate();
    });
    await this.#ended;
    stopTimer();
  }

  async #ready(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#worker.on("message", (message: FromWorker) => {
        if (message.kind === "ready") resolve();
        if (message.kind === "failed") reject(fromPortError(message.error));
      });
      this.#worker.once("error", reject);
      void this.#ended.then(() => {
        reject(new DaemonError("unavailable", "the node's thread ended"));
      });
    });
  }

  #spawn(): Worker {
    const { config, logLevel, program, log } = this.#options;
    const start: WorkerStart = { config, logLevel };
    const worker = new Worker(program ?? WORKER_PROGRAM, { workerData: start });
    worker.on("message", (message: FromWorker) => {
      this.#on(message);
    });
    worker.on("error", (error) => {
      log.error("peer-worker", { err: error });
    });
    return worker;
  }

  async #whenEnded(worker: Worker): Promise<void> {
    const startMs = systemClock.nowMs();
    await new Promise<void>((resolve) => {
      worker.once("exit", () => {
        resolve();
      });
    });
    this.#end();
    // A first start that fails is its caller's to know.
    if (this.#isStopping || !this.#hasStarted) return;
    if (systemClock.nowMs() - startMs >= SOUND_MS) this.#restartMs = RESTART_MS;
    const delayMs = this.#restartMs;
    this.#restartMs = Math.min(2 * delayMs, RESTART_MS_MAX);
    this.#options.log.error("peer-worker-ended", { restartMs: delayMs });
    this.#cancelRestart = systemClock.timer(delayMs, () => {
      this.#worker = this.#spawn();
      this.#ended = this.#whenEnded(this.#worker);
    });
  }

  #on(message: FromWorker): void {
    switch (message.kind) {
      case "ready":
        this.#self = message.self;
        this.#hasStarted = true;
        for (const image of this.#images) this.#post({ kind: "join", image });
        break;
      case "self":
        this.#self = message.self;
        break;
      case "position":
        this.#positions.set(message.image, message.position);
        break;
      case "answer":
        this.#calls.get(message.call)?.(message.outcome);
        break;
      case "stream-call":
        void this.#stream(message.call, message.stream);
        break;
      case "stream-cancel":
        this.#streamCalls.get(message.call)?.abort(new DaemonError("canceled", "canceled"));
        break;
      case "log":
        this.#options.log[message.level](message.event, message.fields);
        break;
      case "failed":
        this.#options.log.error("peer-worker-failed", { ...message.error });
        break;
      case "stopped":
        break;
    }
  }

  async #stream(call: number, stream: StreamCall): Promise<void> {
    const controller = new AbortController();
    const { signal } = controller;
    this.#streamCalls.set(call, controller);
    const { streams } = this.#options;
    let outcome: Outcome<Uint8Array>;
    try {
      if (stream.kind === "probe") await streams.probe(stream.to, { signal });
      const value =
        stream.kind === "probe"
          ? new Uint8Array()
          : await streams.pushPull(stream.to, stream.records, { signal });
      outcome = { value };
    } catch (error) {
      outcome = { error: toPortError(error) };
    } finally {
      this.#streamCalls.delete(call);
    }
    this.#post({ kind: "stream-answer", call, outcome });
  }

  async #ask(question: Question, signal?: AbortSignal): Promise<Answers[keyof Answers]> {
    if (signal !== undefined) throwIfAborted(signal);
    if (this.#self === undefined || this.#isStopping) {
      throw new DaemonError("unavailable", "the node is not running");
    }
    if (this.#calls.size >= CALLS_MAX) {
      throw new DaemonError("resource-exhausted", `${CALLS_MAX} questions wait for the node`);
    }
    this.#lastCall += 1;
    const call = this.#lastCall;
    const answer = new Promise<Answers[keyof Answers]>((resolve, reject) => {
      this.#calls.set(call, (outcome) => {
        if ("error" in outcome) reject(fromPortError(outcome.error));
        else resolve(outcome.value);
      });
    });
    this.#post({ kind: "ask", call, question });
    try {
      return await (signal === undefined ? answer : raceAbort(answer, signal));
    } finally {
      this.#calls.delete(call);
      if (signal?.aborted === true) this.#post({ kind: "cancel", call });
    }
  }

  #post(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  /** The thread is gone: nobody answers any more. */
  #end(): void {
    this.#self = undefined;
    for (const image of this.#images) this.#positions.set(image, undefined);
    const error = { code: "unavailable", message: "the node's thread ended" } as const;
    for (const answer of [...this.#calls.values()]) answer({ error });
    for (const controller of this.#streamCalls.values()) {
      controller.abort(new DaemonError("canceled", "the node's thread ended"));
    }
  }
}
