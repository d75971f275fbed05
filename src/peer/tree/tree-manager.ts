/**
 * The trees that this member manages or stands in for, and the way of a report to the member that
 * manages its tree.
 */
import type { Destination } from "../membership/index.ts";
import type { TreeContext } from "./context.ts";
import { gatherMs } from "./config.ts";
import {
  HOPS_MAX,
  JOINERS_MAX,
  JOINS_BURST,
  JOINS_PER_SECOND,
  OFFICES_MAX,
  RECORDS_MAX,
} from "./limits.ts";
import type {
  BeatMessage,
  ComplaintMessage,
  Contact,
  LeaveMessage,
  Rank,
  Report,
  RivalMessage,
  TokenMessage,
} from "./messages.ts";
import { Office } from "./office.ts";
import type { OfficeRole } from "./office.ts";
import type { TreeMember } from "./ranking.ts";
import type { Verdict } from "./reachability.ts";
import { Succession } from "./succession.ts";
import { TokenBucket } from "./token-bucket.ts";
import { isPresent } from "../membership/index.ts";

/** Whom this member itself reports to in a tree, when it has had an answer lately. */
export type ReportsTo = (
  image: string,
) => { readonly manager: Contact; readonly deputy?: Contact } | undefined;

interface Route {
  readonly manager: Contact;
  readonly deputy?: Contact;
}

/** Ticks of all offices are looked for no more often. */
const TICK_MS = 5;

export class TreeManager {
  readonly #context: TreeContext;
  readonly #succession: Succession;
  readonly #reportsTo: ReportsTo;
  readonly #offices = new Map<string, Office>();
  #joiners = new Map<string, TokenBucket>();
  #earlierJoiners: ReadonlyMap<string, TokenBucket> = new Map();
  #records = 0;
  #nextMs = Infinity;

  constructor(context: TreeContext, reportsTo: ReportsTo) {
    this.#context = context;
    this.#succession = new Succession(context);
    this.#reportsTo = reportsTo;
  }

  get nextMs(): number {
    return this.#nextMs;
  }

  get offices(): Iterable<Office> {
    return this.#offices.values();
  }

  roleOf(image: string): OfficeRole | undefined {
    return this.#offices.get(image)?.role;
  }

  /** After any input that may have moved a deadline. */
  #wake(office: Office): void {
    this.#nextMs = Math.min(this.#nextMs, office.nextMs);
  }

  onReport(report: Report, sender: string, nowMs: number): void {
    const { member, seat } = report;
    // Who asks for itself has to be itself; others are vouched for by who passes them on.
    if (report.hops === 0 && member.boot !== sender) return;
    if (seat === undefined && !this.#mayJoin(member.boot, nowMs)) return;
    const known = this.#offices.get(report.image);
    if (seat !== undefined && this.#isOutdated(member, known)) return;
    const office = known ?? this.#open(report, nowMs);
    if (office !== undefined) this.#take(office, report, nowMs);
  }

  /**
   * A late heartbeat of an earlier boot. A start that membership has not told yet comes as a
   * join.
   */
  #isOutdated({ id, boot }: Contact, office: Office | undefined): boolean {
    const known = this.#context.ranking.get(id);
    if (known === undefined || !isPresent(known) || known.boot === boot) return false;
    return office?.tree.get(id)?.ref.boot !== boot;
  }

  #mayJoin(boot: string, nowMs: number): boolean {
    let bucket = this.#joiners.get(boot);
    if (bucket === undefined) {
      if (this.#joiners.size >= JOINERS_MAX / 2) {
        // Two generations: to forget one by one costs a walk over all that were forgotten.
        this.#earlierJoiners = this.#joiners;
        this.#joiners = new Map();
      }
      bucket =
        this.#earlierJoiners.get(boot) ??
        new TokenBucket({ perSecond: JOINS_PER_SECOND, burst: JOINS_BURST, nowMs });
      this.#joiners.set(boot, bucket);
    }
    return bucket.take(1, nowMs) === 0;
  }

  /** The office that a report brings about here; undefined: it was passed on, or dropped. */
  #open(report: Report, nowMs: number): Office | undefined {
    const { image, rank } = report;
    const route = this.#route(image, rank === "manager", nowMs);
    if (route === undefined) return undefined;
    const isMine = route.manager.boot === this.#context.self.boot;
    if (!isMine && rank !== "deputy") {
      this.#forward(report, route, nowMs);
      return undefined;
    }
    if (this.#offices.size >= OFFICES_MAX) {
      this.#context.send(report.member, { kind: "refused", image, reason: "trees" });
      this.#context.event({ kind: "refused", image, reason: "trees" });
      return undefined;
    }
    const office = this.#add(image, nowMs);
    if (isMine) this.#succession.open(office, nowMs);
    else this.#succession.standIn(office, route.manager, nowMs);
    return office;
  }

  #add(image: string, nowMs: number): Office {
    const office = new Office(this.#context, image, nowMs);
    const mustGather = this.#context.mustGather(image, nowMs);
    if (mustGather) office.gatherUntilMs = nowMs + gatherMs(this.#context.config);
    this.#offices.set(image, office);
    return office;
  }

  #take(office: Office, report: Report, nowMs: number): void {
    const isNew = office.tree.get(report.member.id) === undefined;
    if (isNew && this.#records >= RECORDS_MAX) {
      const { image } = office;
      this.#context.send(report.member, { kind: "refused", image, reason: "members" });
      this.#context.event({ kind: "refused", image, reason: "members" });
      return;
    }
    const sizeBefore = office.tree.size;
    switch (office.role) {
      case "manager":
        office.answer(report, nowMs);
        break;
      case "asking":
      case "gathering":
        office.tree.note(report, nowMs);
        office.wait(report, nowMs);
        break;
      case "deputy":
        office.tree.note(report, nowMs);
        this.#takeAsDeputy(office, report, nowMs);
    }
    this.#records += office.tree.size - sizeBefore;
    this.#wake(office);
  }

  #takeAsDeputy(office: Office, report: Report, nowMs: number): void {
    const { principal } = office;
    if (report.seat === undefined) this.#succession.expectSign(office, nowMs);
    if (report.rank === "deputy" || principal === undefined) return;
    office.namedMs = nowMs;
    this.#forward(report, { manager: principal }, nowMs);
  }

  /** To the manager, and to the deputy that is to know too. */
  #forward(report: Report, { manager, deputy }: Route, nowMs: number): void {
    if (report.hops >= HOPS_MAX) return;
    const { self } = this.#context;
    const pass = (to: Contact, rank: Rank): void => {
      this.#context.send(to, { ...report, hops: report.hops + 1, rank });
    };
    pass(manager, "manager");
    if (deputy === undefined || deputy.boot === manager.boot) return;
    if (deputy.boot !== self.boot) pass(deputy, "deputy");
    else this.onReport({ ...report, hops: report.hops + 1, rank: "deputy" }, self.boot, nowMs);
  }

  /** The best manager that this member knows, perhaps itself; undefined: none. */
  #route(image: string, isTakenForManager: boolean, nowMs: number): Route | undefined {
    const { self, ranking, reach } = this.#context;
    const own = this.#reportsTo(image);
    const isOther = own !== undefined && own.manager.boot !== self.boot;
    if (isOther && !reach.isSilent(own.manager.boot) && this.#context.isPresent(own.manager)) {
      return own;
    }
    const { first, second } = this.#context.ranked(image, nowMs);
    if (first === undefined) {
      return this.#context.isAlone(nowMs) ? { manager: this.#context.contact } : undefined;
    }
    const isAbove = ranking.score(image, self.id) > ranking.score(image, first.id);
    if (isTakenForManager && isAbove && first.id !== self.id) {
      // Another view has this member settled already.
      return { manager: this.#context.contact, deputy: first };
    }
    return second === undefined ? { manager: first } : { manager: first, deputy: second };
  }

  /** Whom a member of this node asks first. */
  routeOf(image: string, nowMs: number): Route | undefined {
    const { first, second } = this.#context.ranked(image, nowMs);
    if (first !== undefined) {
      return second === undefined ? { manager: first } : { manager: first, deputy: second };
    }
    return this.#context.isAlone(nowMs) ? { manager: this.#context.contact } : undefined;
  }

  onLeave({ image, member }: LeaveMessage, sender: string, nowMs: number): void {
    const office = this.#offices.get(image);
    if (member.boot !== sender) return;
    if (office?.tree.get(member.id)?.ref.boot === member.boot) {
      this.#remove(office, member.id, "left", nowMs);
    }
    if (office?.role !== "deputy") this.#context.send(member, { kind: "gone", image });
  }

  #remove(office: Office, id: string, reason: "left" | "dead", nowMs: number): void {
    const sizeBefore = office.tree.size;
    office.remove(id, reason, nowMs);
    this.#records += office.tree.size - sizeBefore;
    this.#wake(office);
  }

  onComplaint(message: ComplaintMessage, sender: string, nowMs: number): void {
    const office = this.#offices.get(message.image);
    if (office?.tree.get(message.accuser)?.ref.boot !== sender) return;
    if (office.role === "deputy") this.#succession.expectSign(office, nowMs);
    else office.complain(message, nowMs);
    this.#wake(office);
  }

  onToken(message: TokenMessage, sender: string, from: Destination, nowMs: number): void {
    const office = this.#offices.get(message.image);
    if (office?.role !== "manager") return;
    office.token(message, { boot: sender, address: from.address }, nowMs);
  }

  onBeat(beat: BeatMessage, sender: string, nowMs: number): void {
    if (beat.manager.boot !== sender) return;
    let office = this.#offices.get(beat.image);
    if (office === undefined) {
      if (this.#offices.size >= OFFICES_MAX) return;
      office = this.#add(beat.image, nowMs);
    }
    this.#succession.onBeat(office, beat, nowMs);
    this.#wake(office);
  }

  onBeatAck(image: string, known: number, sender: string, nowMs: number): void {
    const office = this.#offices.get(image);
    if (office !== undefined) this.#succession.onBeatAck(office, known, sender, nowMs);
  }

  onRival(rival: RivalMessage, sender: string, nowMs: number): void {
    const office = this.#offices.get(rival.image);
    if (office === undefined) return;
    this.#succession.onRival(office, rival, sender, nowMs);
    this.#wake(office);
  }

  onVerdict(verdict: Verdict, nowMs: number): void {
    const office = this.#offices.get(verdict.image);
    if (office === undefined) return;
    const sizeBefore = office.tree.size;
    this.#succession.onVerdict(office, verdict, nowMs);
    this.#records += office.tree.size - sizeBefore;
    this.#wake(office);
  }

  /** Members that membership calls dead or gone; the ranks may be others. */
  onMembers(gone: readonly TreeMember[], nowMs: number): void {
    for (const office of this.#offices.values()) {
      for (const { id, boot, state } of gone) {
        if (office.tree.get(id)?.ref.boot !== boot) continue;
        const now = this.#context.ranking.get(id);
        // Another boot: it reports itself again, and keeps its place.
        if (now !== undefined && isPresent(now)) continue;
        this.#remove(office, id, (now?.state ?? state) === "left" ? "left" : "dead", nowMs);
      }
      if (office.role === "manager") {
        this.#succession.chooseDeputy(office, nowMs);
        this.#wake(office);
      }
    }
  }

  /** This node is another from now on: a copy of it manages what it has managed. */
  clear(): void {
    for (const image of this.#offices.keys()) {
      this.#context.event({ kind: "managing", image, role: "none" });
    }
    this.#offices.clear();
    this.#records = 0;
  }

  tick(nowMs: number): void {
    if (nowMs < this.#nextMs) return;
    let next = Infinity;
    for (const [image, office] of this.#offices) {
      if (office.nextMs <= nowMs) {
        const sizeBefore = office.tree.size;
        office.tick(nowMs);
        const isUsed = this.#succession.tick(office, nowMs);
        this.#records += office.tree.size - sizeBefore;
        if (!isUsed) {
          this.#records -= office.tree.size;
          this.#offices.delete(image);
          this.#context.event({ kind: "managing", image, role: "none" });
          continue;
        }
      }
      next = Math.min(next, Math.max(office.nextMs, nowMs + TICK_MS));
    }
    this.#nextMs = next;
  }
}
