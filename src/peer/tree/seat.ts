/** This member's place in one image's tree, and its dealings with the tree's manager. */
import type { Destination } from "../membership/index.ts";
import type { TreeContext } from "./context.ts";
import { lateManagerMs, lostManagerMs } from "./config.ts";
import type { Position } from "./effects.ts";
import { COMPLAINTS_WAITING_MAX } from "./limits.ts";
import { compareEpochs } from "./messages.ts";
import type {
  AckMessage,
  ComplaintReason,
  Contact,
  Epoch,
  PositionMessage,
  Rank,
  Report,
  WaitMessage,
} from "./messages.ts";

/** Where a seat's reports go while it has no manager. */
export type RouteOf = (
  image: string,
  nowMs: number,
) => { readonly manager: Contact; readonly deputy?: Contact } | undefined;

/** Longest wait between two joins. */
const RETRY_MS_MAX = 2000;
/** Wait after a refusal. */
const REFUSED_MS = 5000;
/**
 * Times that a complaint is sent: there is no answer to it but a new position. One of silence is
 * made anew while it lasts.
 */
const COMPLAINT_SENDS = { silent: 4, "wrong-bytes": 12 } as const satisfies Record<
  ComplaintReason,
  number
>;
/** Of these so many soon: then the manager may be another already. */
const COMPLAINT_SENDS_SOON = 4;

interface WaitingComplaint {
  readonly about: string;
  readonly reason: ComplaintReason;
  left: number;
}

export class MemberSeat {
  readonly image: string;
  position: Position | undefined;
  manager: Contact | undefined;
  deputy: Contact | undefined;
  heldBlocks = 0;
  bytesPerSecond = 0;
  trafficMs: number;
  #fingerprint = 0;
  #ackMs: number;
  #nextReportMs: number;
  #attempt = 0;
  readonly #startAt: number;
  readonly #complaints: WaitingComplaint[] = [];
  #complainMs = Infinity;
  readonly #context: TreeContext;
  readonly #routeOf: RouteOf;
  readonly #interior: (nowMs: number) => number;

  constructor(
    context: TreeContext,
    { image, routeOf, interior }: MemberSeatOptions,
    nowMs: number,
  ) {
    this.#context = context;
    this.image = image;
    this.#routeOf = routeOf;
    this.#interior = interior;
    this.#ackMs = nowMs;
    this.trafficMs = nowMs;
    this.#nextReportMs = nowMs;
    this.#startAt = Math.floor(context.random.next() * 2 ** 16);
  }

  get nextMs(): number {
    return Math.min(this.#nextReportMs, this.#complainMs);
  }

  /** Whether its manager has answered of late. */
  isAnswered(nowMs: number): boolean {
    const { config } = this.#context;
    return this.manager !== undefined && nowMs - this.#ackMs < lostManagerMs(config);
  }

  tick(nowMs: number): void {
    if (nowMs >= this.#complainMs) this.#sendComplaints(nowMs);
    if (nowMs < this.#nextReportMs) return;
    if (this.isAnswered(nowMs)) this.#heartbeat(nowMs);
    else this.#search(nowMs);
  }

  #heartbeat(nowMs: number): void {
    const { config, reach } = this.#context;
    this.#attempt = 0;
    this.#nextReportMs = nowMs + config.heartbeatMs;
    if (this.manager !== undefined) this.#report(this.manager, "manager", nowMs);
    if (this.deputy !== undefined) this.#report(this.deputy, "deputy", nowMs);
    if (nowMs - this.#ackMs < lateManagerMs(config)) return;
    for (const contact of [this.manager, this.deputy]) {
      if (contact === undefined || contact.boot === this.#context.self.boot) continue;
      const withinMs = config.managerSilenceMs;
      reach.check(contact, { image: this.image, reason: "manager", withinMs }, nowMs);
    }
  }

  /** Without a manager: whoever should be it, then a seed or another member, in turn. */
  #search(nowMs: number): void {
    const { config, seeds, ranking, reach } = this.#context;
    const attempt = this.#attempt;
    this.#attempt += 1;
    const waitMs = config.joinRetryMs * 2 ** Math.min(attempt >> 1, 10);
    this.#nextReportMs = nowMs + Math.min(waitMs, RETRY_MS_MAX);
    const route = this.#routeOf(this.image, nowMs);
    if (route !== undefined && attempt % 2 === 0) {
      this.#report(route.manager, "manager", nowMs);
      if (route.deputy !== undefined) this.#report(route.deputy, "deputy", nowMs);
      return;
    }
    if (route !== undefined && route.manager.boot !== this.#context.self.boot) {
      // It did not answer the first time: whether it answers at all decides who manages.
      const withinMs = config.managerSilenceMs;
      reach.check(route.manager, { image: this.image, reason: "manager", withinMs }, nowMs);
    }
    const turn = this.#startAt + (route === undefined ? attempt : attempt >> 1);
    const seed = seeds[turn % Math.max(1, seeds.length)];
    const others = seed === undefined || attempt % 4 === 3 ? ranking.others() : [];
    const other = others[turn % Math.max(1, others.length)];
    const to: Destination | undefined = other ?? seed;
    if (to !== undefined) this.#report(to, "any", nowMs);
    else if (route !== undefined) this.#report(route.manager, "manager", nowMs);
  }

  #report(to: Destination, rank: Rank, nowMs: number): void {
    const { position } = this;
    const report: Report = {
      kind: "report",
      image: this.image,
      member: this.#context.self,
      hops: 0,
      rank,
      heldBlocks: this.heldBlocks,
      interior: this.#interior(nowMs),
      bytesPerSecond: this.bytesPerSecond,
    };
    if (position === undefined) {
      this.#context.send(to, report);
      return;
    }
    const { slot, depth, size, epoch } = position;
    const seat = { slot, depth, size, epoch, fingerprint: this.#fingerprint };
    this.#context.send(to, { ...report, seat });
  }

  onPosition(message: PositionMessage, sender: string, nowMs: number): void {
    if (message.manager.boot !== sender) return;
    const { position } = this;
    if (position !== undefined && compareEpochs(message.epoch, position.epoch) < 0) {
      this.#onOlder(message, nowMs);
      return;
    }
    // Another manager has not heard what was complained of.
    if (this.manager?.boot !== sender && this.#complaints.length > 0) this.#complainMs = nowMs;
    this.manager = message.manager;
    this.deputy = message.deputy;
    this.#fingerprint = message.fingerprint;
    this.#answered(nowMs);
    this.#setPosition(positionOf(message, this.#context.self.zone));
    // Shows the manager that this has come.
    this.#report(message.manager, "manager", nowMs);
    this.#nextReportMs = nowMs + this.#context.config.heartbeatMs;
    if (position !== undefined) return;
    // The deputy has to know the place too. Newcomers' heartbeats must not stay in step.
    if (message.deputy !== undefined) this.#report(message.deputy, "deputy", nowMs);
    this.#nextReportMs -= this.#context.random.next() * this.#context.config.heartbeatMs;
  }

  /** From who has not heard of the present manager, or of its end. */
  #onOlder({ manager, image }: PositionMessage, nowMs: number): void {
    const { position } = this;
    const isSame = this.manager?.boot === manager.boot;
    // A late packet, overtaken by a newer one.
    if (isSame || position === undefined) return;
    if (this.manager === undefined || !this.isAnswered(nowMs)) {
      this.#report(manager, "manager", nowMs);
      return;
    }
    const { epoch, size } = position;
    this.#context.send(manager, { kind: "rival", image, epoch, size, manager: this.manager });
  }

  onAck(ack: AckMessage, sender: string, nowMs: number): void {
    const { position } = this;
    if (position === undefined || sender !== this.manager?.boot) return;
    if (compareEpochs(ack.epoch, position.epoch) < 0) return;
    this.#answered(nowMs);
    const { epoch, size, children } = ack;
    const isSame = position.epoch.counter === epoch.counter && position.children === children;
    const next = { ...position, epoch, size, children };
    // The size alone is nothing to tell: it changes with every join.
    if (isSame) this.position = next;
    else this.#setPosition(next);
  }

  #answered(nowMs: number): void {
    this.#ackMs = nowMs;
    this.#attempt = 0;
  }

  /** There is a manager, which does not know the tree yet. */
  onWait({ forMs }: WaitMessage, nowMs: number): void {
    const { heartbeatMs, joinRetryMs } = this.#context.config;
    const waitMs = Math.min(Math.max(forMs, joinRetryMs), heartbeatMs);
    this.#nextReportMs = nowMs + waitMs;
    this.#attempt = 0;
  }

  onRefused(nowMs: number): void {
    if (this.position === undefined) this.#nextReportMs = nowMs + REFUSED_MS;
  }

  complain(about: string, reason: ComplaintReason, nowMs: number): void {
    const isWaiting = this.#complaints.some((one) => one.about === about && one.reason === reason);
    if (isWaiting) return;
    if (this.#complaints.length >= COMPLAINTS_WAITING_MAX) this.#complaints.shift();
    this.#complaints.push({ about, reason, left: COMPLAINT_SENDS[reason] });
    this.#complainMs = nowMs;
  }

  #sendComplaints(nowMs: number): void {
    const { image, manager, deputy } = this;
    const { config, self } = this.#context;
    let waitMs = Infinity;
    for (const complaint of [...this.#complaints]) {
      const { about, reason } = complaint;
      complaint.left -= 1;
      // What was complained of is over when nobody is to be asked who was complained of.
      if (complaint.left <= 0 || !this.#isNear(about)) {
        this.#complaints.splice(this.#complaints.indexOf(complaint), 1);
      } else {
        const isSoon = COMPLAINT_SENDS[reason] - complaint.left < COMPLAINT_SENDS_SOON;
        waitMs = Math.min(waitMs, isSoon ? config.pushMs : config.heartbeatMs);
      }
      // The deputy sees whether there is a manager still: both may be gone that we complain of.
      for (const to of [manager, deputy]) {
        if (to === undefined) continue;
        this.#context.send(to, { kind: "complaint", image, accuser: self.id, about, reason });
      }
    }
    this.#complainMs = nowMs + waitMs;
  }

  #isNear(id: string): boolean {
    const { position } = this;
    return [position?.parent?.id, position?.grandparent?.id, position?.root.id].includes(id);
  }

  /** This node is another from now on, and has no place yet. */
  reset(nowMs: number): void {
    this.manager = undefined;
    this.deputy = undefined;
    this.#attempt = 0;
    this.#nextReportMs = nowMs;
    if (this.position === undefined) return;
    this.position = undefined;
    this.#context.effect({ kind: "position", image: this.image, position: undefined });
  }

  leave(): void {
    const { image, manager, deputy } = this;
    const member = this.#context.contact;
    for (const to of [manager, deputy]) {
      if (to !== undefined) this.#context.send(to, { kind: "leave", image, member });
    }
  }

  #setPosition(position: Position): void {
    this.position = position;
    this.#context.effect({ kind: "position", image: this.image, position });
  }
}

export interface MemberSeatOptions {
  readonly image: string;
  readonly routeOf: RouteOf;
  /** Trees with traffic in which this member feeds others. */
  readonly interior: (nowMs: number) => number;
}

function positionOf(message: PositionMessage, zone: string): Position {
  const { image, slot, depth, parent, grandparent, root, size, children } = message;
  const epoch: Epoch = message.epoch;
  return {
    image,
    epoch,
    zone,
    slot,
    depth,
    ...(parent === undefined ? {} : { parent }),
    ...(grandparent === undefined ? {} : { grandparent }),
    root,
    isRoot: parent === undefined,
    size,
    children,
  };
}
