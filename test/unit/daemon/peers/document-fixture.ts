/** Members that share documents, in one process: an asked member answers in the same turn. */
import { DaemonError } from "../../../../src/base/errors.ts";
import { onAbort } from "../../../../src/base/abort.ts";
import { DocumentCache } from "../../../../src/daemon/peers/document-cache.ts";
import { DocumentOwner } from "../../../../src/daemon/peers/document-owner.ts";
import type { AskOptions } from "../../../../src/daemon/peers/document-owner.ts";
import { digestOf } from "../../../../src/oci/index.ts";
import type {
  DocumentName,
  DocumentQuestion,
  DocumentReply,
  PeerRef,
  RankedMembers,
  SharedDocument,
} from "../../../../src/peer/index.ts";
import { FakeClock } from "../../../support/block/fake-clock.ts";
import { memoryLogger } from "../../../support/registry/pool.ts";
import type { LogLine } from "../../../support/registry/pool.ts";

export const TAG_TTL_MS = 30_000;
/** As the exchange's client gives up a silent member. */
export const SILENCE_MS = 300;
const MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json";

export const CONFIG = documentOf("{}", "application/octet-stream");
export const MANIFEST = manifestOf("one");
export const NEWER = manifestOf("two");

export const TAG: DocumentName = {
  kind: "manifest",
  registry: "registry.example",
  name: "library/app",
  reference: "latest",
};
export const BY_DIGEST: DocumentName = { ...TAG, reference: MANIFEST.digest };
export const CONFIG_NAME: DocumentName = { ...TAG, kind: "config", reference: CONFIG.digest };

export const never = new AbortController().signal;

export function manifestOf(title: string, bytes = 0): SharedDocument {
  const descriptor = { mediaType: "application/vnd.oci.image.config.v1+json", size: 2 };
  const manifest = {
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    config: { ...descriptor, digest: CONFIG.digest },
    layers: [],
    annotations: { title, filler: " ".repeat(bytes) },
  };
  return documentOf(JSON.stringify(manifest), MANIFEST_TYPE);
}

function documentOf(text: string, mediaType: string): SharedDocument {
  const bytes = Buffer.from(text);
  return { bytes, mediaType, digest: digestOf(bytes), ageMs: 0 };
}

/** What the registry has, and how it is. */
export class FakeRegistry {
  readonly asked: string[] = [];
  readonly documents = new Map<string, SharedDocument>();
  failure: DaemonError | undefined;
  /** Requests wait while this is set. */
  held: Promise<void> | undefined;

  constructor() {
    this.publish(TAG, MANIFEST);
    this.publish(BY_DIGEST, MANIFEST);
    this.publish(CONFIG_NAME, CONFIG);
  }

  publish({ kind, reference }: DocumentName, document: SharedDocument): void {
    this.documents.set(`${kind} ${reference}`, document);
  }

  async fetch(by: string, { kind, reference }: DocumentName): Promise<SharedDocument> {
    this.asked.push(by);
    await this.held;
    if (this.failure !== undefined) throw this.failure;
    const found = this.documents.get(`${kind} ${reference}`);
    if (found === undefined) throw new DaemonError("not-found", "the registry answered 404");
    return found;
  }
}

export class FakeMember {
  readonly id: string;
  readonly owner: DocumentOwner;
  readonly cache: DocumentCache;
  readonly stored: { readonly name: DocumentName; readonly document: SharedDocument }[] = [];
  /** What this node thinks of who ranks how; by default the fixture's. */
  ranking: readonly string[] | undefined;
  /** What others get from it instead. */
  behaviour: "honest" | "refuses-connections" | "silent" = "honest";
  lie: ((document: SharedDocument) => SharedDocument) | undefined;
  /** The registry's answer to this node's login. */
  refusal: DaemonError | undefined;

  constructor(id: string, fixture: Fixture) {
    this.id = id;
    this.cache = new DocumentCache(fixture.clock);
    this.owner = new DocumentOwner({
      selfId: id,
      hasSeeds: true,
      rank: async (_key, othersMax) => fixture.ranked(this, othersMax),
      ask: async (peer, question, options) => fixture.carry(this, peer, question, options),
      stored: async (wanted) =>
        this.stored.find(
          ({ name }) => name.kind === wanted.kind && name.reference === wanted.reference,
        )?.document,
      fetch: async (wanted) => {
        if (this.refusal !== undefined) {
          fixture.registry.asked.push(id);
          throw this.refusal;
        }
        return fixture.registry.fetch(id, wanted);
      },
      isShared: (registry) => !registry.startsWith("localhost"),
      tagTtlMs: TAG_TTL_MS,
      cache: this.cache,
      clock: fixture.clock,
      log: memoryLogger(fixture.lines),
    });
  }

  async get(wanted: DocumentName, signal = never): Promise<SharedDocument> {
    return this.owner.get(wanted, { signal });
  }
}

/** Members of these ids rank in this order. */
export class Fixture {
  readonly clock = new FakeClock();
  readonly registry = new FakeRegistry();
  readonly lines: LogLine[] = [];
  readonly members: readonly FakeMember[];
  /** `asker>asked reach` */
  readonly carried: string[] = [];
  readonly predecessors: string[] = [];

  constructor(...ids: readonly string[]) {
    this.members = ids.map((id) => new FakeMember(id, this));
  }

  member(id: string): FakeMember {
    const found = this.members.find((member) => member.id === id);
    if (found === undefined) throw new Error(`no member ${id}`);
    return found;
  }

  events(event: string): number {
    return this.lines.filter((line) => line.event === event).length;
  }

  ranked(by: FakeMember, othersMax: number): RankedMembers {
    const ids = by.ranking ?? this.members.map(({ id }) => id);
    const others = ids.filter((id) => id !== by.id).slice(0, othersMax);
    return {
      owners: ids.slice(0, 2).map(refOf),
      predecessors: this.predecessors.map(refOf),
      others: others.map(refOf),
    };
  }

  async carry(
    from: FakeMember,
    to: PeerRef,
    question: DocumentQuestion,
    { signal, silenceMs = SILENCE_MS, onSilent }: AskOptions,
  ): Promise<DocumentReply> {
    this.carried.push(`${from.id}>${to.id} ${question.reach}`);
    const { behaviour, lie, owner } = this.member(to.id);
    if (behaviour === "refuses-connections") throw unavailable(`${to.id} cannot be reached`);
    if (behaviour === "silent") await this.#silence(signal, silenceMs, onSilent);
    try {
      const document = await owner.answer(question, { signal });
      return { kind: "document", document: lie?.(document) ?? document };
    } catch (error) {
      if (!(error instanceof DaemonError)) throw error;
      return { kind: "refused", error };
    }
  }

  async #silence(signal: AbortSignal, silenceMs: number, onSilent = () => {}): Promise<never> {
    return new Promise<never>((_resolve, reject) => {
      onAbort(signal, reject);
      this.clock.timer(SILENCE_MS, onSilent);
      this.clock.timer(silenceMs, () => {
        reject(unavailable("the peer is silent"));
      });
    });
  }
}

export function unavailable(message: string): DaemonError {
  return new DaemonError("unavailable", message);
}

function refOf(id: string): PeerRef {
  const address = { host: "10.0.0.1", port: 7411 };
  return { id, boot: "0".repeat(32), address, exchangePort: 7411, zone: "", version: 1 };
}
