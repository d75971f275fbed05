/**
 * How a tree's manager changes. The highest ranked member manages and the next stands in for it,
 * by hearing the same reports. A deputy takes over when the manager is silent; a manager that is
 * ranked below its deputy hands over when that has heard everybody. Two managers (views differed,
 * or the network was cut) become one: the larger tree goes on, whose members the others then join.
 */
import type { TreeContext } from "./context.ts";
import { gatherMs, GATHERS_MAX } from "./config.ts";
import { compareEpochs } from "./messages.ts";
import type { BeatMessage, Contact, Epoch, PongMessage, RivalMessage } from "./messages.ts";
import type { Office, OfficeRole } from "./office.ts";
import type { Verdict } from "./reachability.ts";

interface Claim {
  readonly size: number;
  readonly epoch: Epoch;
}

/** A deputy that answers but does not manage is doubted so often before it is replaced. */
const DOUBTS_MAX = 2;
/** After how many heartbeats without a sign a manager is asked for one. */
const LATE_HEARTBEATS = 1.5;
/** After a join a sign of the manager's life is due within this share of the time to be silent. */
const SIGN_SHARE = 0.25;
/** Heartbeats after which nobody calls a member deputy any more, and it forgets the tree. */
const UNNAMED_HEARTBEATS = 10;
/** Heartbeats after which an empty tree's manager forgets it. */
const EMPTY_HEARTBEATS = 60;
/** Share of the members that a deputy has to have heard before it is handed the tree. */
const KNOWN_SHARE = 0.95;
/** Heartbeats after a change of the view in which a rival is looked for. */
const RIVAL_SEARCHES = 5;

export class Succession {
  readonly #context: TreeContext;

  constructor(context: TreeContext) {
    this.#context = context;
  }

  setRole(office: Office, role: OfficeRole): void {
    if (office.role === role) return;
    office.role = role;
    if (role !== "asking") this.#context.event({ kind: "managing", image: office.image, role });
  }

  /** A join or a heartbeat found no office here, and this member ranks highest: who knows more? */
  open(office: Office, nowMs: number): void {
    const { config, ranking, reach } = this.#context;
    const { image } = office;
    const predecessors = ranking.predecessors(image, nowMs);
    for (const one of predecessors) {
      const withinMs = config.managerSilenceMs;
      reach.check(one, { image, reason: "predecessor", withinMs }, nowMs);
    }
    this.setRole(office, "asking");
    office.waitUntilMs = predecessors.length > 0 ? nowMs + config.managerSilenceMs : nowMs;
    office.asked = predecessors.length;
    if (predecessors.length === 0) this.#endAsking(office, nowMs);
  }

  /** This member stands in for `principal` from now on. */
  standIn(office: Office, principal: Contact, nowMs: number): void {
    this.setRole(office, "deputy");
    if (office.principal?.boot !== principal.boot) {
      office.doubts = 0;
      office.beatMs = nowMs;
    }
    office.principal = principal;
    office.deputy = undefined;
    office.tree.setDeputy(undefined);
    office.handsTo = undefined;
    office.tookFrom = undefined;
    office.waitUntilMs = Infinity;
    office.nextBeatMs = Infinity;
    office.namedMs = nowMs;
    this.#expectBeat(office);
  }

  #expectBeat(office: Office): void {
    office.beatDueMs = office.beatMs + LATE_HEARTBEATS * this.#context.config.heartbeatMs;
  }

  /** A deputy heard of a join, or a complaint: the manager should be heard of too. */
  expectSign(office: Office, nowMs: number): void {
    const dueMs = nowMs + SIGN_SHARE * this.#context.config.managerSilenceMs;
    office.beatDueMs = Math.min(office.beatDueMs, dueMs);
  }

  onBeat(office: Office, beat: BeatMessage, nowMs: number): void {
    const { manager, image } = beat;
    if (office.role === "manager") {
      this.#onRivalBeat(office, beat, nowMs);
      return;
    }
    const { principal } = office;
    const isOther = principal !== undefined && principal.boot !== manager.boot;
    const freshMs = nowMs - 2 * this.#context.config.heartbeatMs;
    const isRival = isOther && office.role === "deputy" && office.beatMs > freshMs;
    if (isRival && office.claim !== undefined && !wins(beat, office.claim)) {
      // Two managers that both take this member for their deputy: the smaller hears of the larger.
      const { claim } = office;
      this.#context.send(manager, { kind: "rival", image, manager: principal, ...claim });
      return;
    }
    if (isRival) {
      const { size, epoch } = beat;
      this.#context.send(principal, { kind: "rival", image, manager, size, epoch });
    }
    this.standIn(office, manager, nowMs);
    office.beatMs = nowMs;
    office.namedBy = manager.boot;
    office.doubts = 0;
    office.claim = { size: beat.size, epoch: beat.epoch };
    this.#expectBeat(office);
    this.#context.send(manager, { kind: "beat-ack", image, known: office.tree.size });
    if (beat.handover) {
      office.tookFrom = manager;
      this.#act(office, beat.epoch.counter, nowMs);
    }
  }

  /** Both manage this tree. */
  #onRivalBeat(office: Office, beat: BeatMessage, nowMs: number): void {
    const { manager, epoch } = beat;
    if (office.handsTo === manager.boot && compareEpochs(epoch, office.tree.epoch) > 0) {
      this.#retire(office, manager, nowMs);
      return;
    }
    if (office.tookFrom?.boot === manager.boot && compareEpochs(epoch, office.tree.epoch) < 0) {
      this.#beat(office, manager, nowMs);
      return;
    }
    if (wins(beat, { size: office.tree.size, epoch: office.tree.epoch })) {
      this.#retire(office, manager, nowMs);
      return;
    }
    if (epoch.counter >= office.tree.epoch.counter) office.tree.raiseEpoch(epoch.counter);
    this.#sendRival(office, manager);
  }

  #sendRival(office: Office, to: Contact): void {
    const { image, tree } = office;
    const { size, epoch } = tree;
    const manager = this.#context.contact;
    this.#context.send(to, { kind: "rival", image, epoch, size, manager });
  }

  /** "Somebody else manages this tree": perhaps the sender itself. */
  onRival(office: Office, rival: RivalMessage, sender: string, nowMs: number): void {
    const { manager } = rival;
    if (office.role !== "manager" || manager.boot === this.#context.self.boot) return;
    const isTold = manager.boot === sender;
    if (isTold && wins(rival, { size: office.tree.size, epoch: office.tree.epoch })) {
      this.#retire(office, manager, nowMs);
      return;
    }
    // Whoever goes on raises its epoch when the two have spoken; hearsay raises none.
    this.#beat(office, manager, nowMs);
  }

  /** From now on what is reported here is passed on to `manager`, whose tree it is. */
  #retire(office: Office, manager: Contact, nowMs: number): void {
    const { image } = office;
    if (office.handsTo !== manager.boot) {
      this.#context.event({ kind: "merged", image, into: manager.id });
    }
    this.standIn(office, manager, nowMs);
    office.claim = undefined;
  }

  onBeatAck(office: Office, known: number, sender: string, nowMs: number): void {
    if (office.role !== "manager" || office.deputy?.boot !== sender) return;
    office.deputyAckMs = nowMs;
    office.deputyKnown = known;
  }

  onVerdict(office: Office, { contact, reason, pong }: Verdict, nowMs: number): void {
    switch (reason) {
      case "predecessor":
        this.#onPredecessor(office, contact, pong, nowMs);
        break;
      case "manager":
        if (office.role === "deputy" && office.principal?.boot === contact.boot) {
          this.#onPrincipal(office, pong, nowMs);
        }
        break;
      case "deputy":
        if (office.role === "manager" && office.deputy?.boot === contact.boot) {
          if (pong === undefined) this.chooseDeputy(office, nowMs);
          else office.deputyAckMs = nowMs;
        }
        break;
      case "rival":
        this.#onSearched(office, contact, pong, nowMs);
        break;
      case "member":
        this.#onMember(office, contact, pong, nowMs);
        break;
      case "root":
        if (pong === undefined && office.role === "manager") office.onRootSilent(contact, nowMs);
    }
  }

  #onPredecessor(
    office: Office,
    contact: Contact,
    pong: PongMessage | undefined,
    nowMs: number,
  ): void {
    if (office.role !== "asking") return;
    office.asked -= 1;
    const manager = pong?.isManager === true ? contact : pong?.manager;
    if (manager !== undefined && manager.boot !== this.#context.self.boot) {
      const isUsable = !this.#context.reach.isSilent(manager.boot);
      if (isUsable && this.#context.isPresent(manager)) {
        this.standIn(office, manager, nowMs);
        return;
      }
      office.gatherUntilMs = nowMs + gatherMs(this.#context.config);
    }
    if (office.asked <= 0) this.#endAsking(office, nowMs);
  }

  #endAsking(office: Office, nowMs: number): void {
    if (!this.#gather(office, nowMs)) this.#act(office, 0, nowMs);
  }

  /** When there may be a tree already whose members have not all been heard: true. */
  #gather(office: Office, nowMs: number): boolean {
    const enoughMs = office.openedMs + gatherMs(this.#context.config);
    if (nowMs < enoughMs && office.tree.hasSeats()) {
      office.gatherUntilMs = Math.max(office.gatherUntilMs, enoughMs);
    }
    if (nowMs >= office.gatherUntilMs) return false;
    this.setRole(office, "gathering");
    office.waitUntilMs = office.gatherUntilMs;
    return true;
  }

  /** Waits longer when many have not been heard: each would get another place. */
  #endGathering(office: Office, nowMs: number): void {
    const waitMs = gatherMs(this.#context.config);
    let expected = 0;
    for (const { seat } of office.tree.records()) expected = Math.max(expected, seat?.size ?? 0);
    // Two are gone for certain, and were members most likely: the manager and its deputy.
    const isMissing = office.tree.size < KNOWN_SHARE * expected - 2;
    if (isMissing && nowMs < office.gatherUntilMs + (GATHERS_MAX - 1) * waitMs) {
      office.waitUntilMs = nowMs + waitMs / 4;
      return;
    }
    this.#act(office, 0, nowMs);
  }

  #onPrincipal(office: Office, pong: PongMessage | undefined, nowMs: number): void {
    office.doubts = pong?.isManager === true ? 0 : office.doubts + 1;
    if (pong !== undefined && office.doubts < DOUBTS_MAX) {
      office.beatMs = nowMs;
      this.#expectBeat(office);
      return;
    }
    const { principal } = office;
    if (pong === undefined && principal !== undefined) {
      this.#context.vanish(principal.id, nowMs);
      const record = office.tree.get(principal.id);
      if (record?.ref.boot === principal.boot) office.suspect = principal.id;
    }
    this.#takeOver(office, nowMs);
  }

  /** The manager does not answer: its deputy goes on with the tree. */
  #takeOver(office: Office, nowMs: number): void {
    const { principal } = office;
    const { first } = this.#context.ranked(office.image, nowMs);
    // Made a deputy by others' belief alone: the next in rank may be somebody else.
    const isNamed = principal !== undefined && office.namedBy === principal.boot;
    if (!isNamed && first !== undefined && first.id !== this.#context.self.id) {
      if (first.boot !== principal?.boot) this.standIn(office, first, nowMs);
      else this.#expectBeat(office);
      return;
    }
    office.principal = undefined;
    office.beatDueMs = Infinity;
    if (this.#gather(office, nowMs)) return;
    this.#act(office, office.claim?.epoch.counter ?? 0, nowMs);
  }

  /**
   * Views that were apart see each other again: whoever ranks highest of all that are present,
   * settled or not, is asked whether it manages this tree too, or knows who does.
   */
  #searchRival(office: Office, nowMs: number): void {
    const { ranking, reach, self, config } = this.#context;
    if (office.searchedAt !== ranking.generation) {
      office.searchedAt = ranking.generation;
      office.searchesLeft = RIVAL_SEARCHES;
    }
    if (office.searchesLeft <= 0) return;
    office.searchesLeft -= 1;
    const { first, second } = ranking.topOfPresent(office.image);
    const other = first?.id === self.id ? second : first;
    if (other === undefined || other.boot === office.deputy?.boot) return;
    const withinMs = config.managerSilenceMs;
    reach.check(other, { image: office.image, reason: "rival", withinMs }, nowMs);
  }

  #onSearched(
    office: Office,
    contact: Contact,
    pong: PongMessage | undefined,
    nowMs: number,
  ): void {
    const manager = pong?.isManager === true ? contact : pong?.manager;
    if (office.role !== "manager" || manager === undefined) return;
    if (manager.boot !== this.#context.self.boot) this.#beat(office, manager, nowMs);
  }

  #onMember(office: Office, contact: Contact, pong: PongMessage | undefined, nowMs: number): void {
    const record = office.tree.get(contact.id);
    if (office.role !== "manager" || record?.ref.boot !== contact.boot) return;
    if (pong === undefined) {
      office.remove(contact.id, "silent", nowMs);
      return;
    }
    const { heartbeatMs, memberTimeoutMs } = this.#context.config;
    // A heartbeat may be under way still.
    const isStale = nowMs - record.seenMs >= memberTimeoutMs;
    if (!isStale) return;
    if (!pong.isMember) {
      office.remove(contact.id, "moved-on", nowMs);
      return;
    }
    record.seenMs = nowMs - memberTimeoutMs + 2 * heartbeatMs;
    const { manager } = pong;
    if (manager !== undefined && manager.boot !== this.#context.self.boot) {
      this.#beat(office, manager, nowMs);
    }
  }

  /** Becomes manager with the members that were heard. */
  #act(office: Office, counter: number, nowMs: number): void {
    office.tree.raiseEpoch(counter);
    office.tree.rebuild();
    this.setRole(office, "manager");
    office.waitUntilMs = Infinity;
    office.beatDueMs = Infinity;
    office.principal = undefined;
    office.handsTo = undefined;
    office.emptySinceMs = nowMs;
    this.chooseDeputy(office, nowMs);
    if (office.tookFrom !== undefined) this.#beat(office, office.tookFrom, nowMs);
    // Those without a place have waited for one.
    const waiting = Array.from(office.tree.records()).filter(({ seat }) => seat === undefined);
    office.push(
      waiting.map(({ ref }) => ref.id),
      nowMs,
    );
    const suspect = office.tree.get(office.suspect ?? "");
    office.suspect = undefined;
    if (suspect !== undefined) office.verify(suspect, nowMs);
  }

  /** The highest ranked other member; ranked above this one it is the successor. */
  chooseDeputy(office: Office, nowMs: number): void {
    const { self } = this.#context;
    const { first, second } = this.#context.ranked(office.image, nowMs);
    const chosen = first?.id === self.id ? second : first;
    const { deputy } = office;
    if (chosen?.boot === deputy?.boot) return;
    // Nobody is settled: then any will do, and the one that has heard everybody is best.
    const keeps = deputy !== undefined && this.#context.isPresent(deputy);
    const isChosenSettled = chosen !== undefined && this.#context.ranking.isSettled(chosen, nowMs);
    if (keeps && !isChosenSettled && !this.#context.reach.isSilent(deputy.boot)) return;
    office.deputy =
      chosen === undefined
        ? undefined
        : { id: chosen.id, boot: chosen.boot, address: chosen.address };
    office.tree.setDeputy(office.deputy);
    office.deputySinceMs = nowMs;
    office.deputyAckMs = nowMs;
    office.deputyKnown = 0;
    office.nextBeatMs = office.deputy === undefined ? Infinity : nowMs;
  }

  /** False: the office is of no use any more. */
  tick(office: Office, nowMs: number): boolean {
    const { config } = this.#context;
    switch (office.role) {
      case "asking":
        if (nowMs >= office.waitUntilMs) this.#endAsking(office, nowMs);
        return true;
      case "gathering":
        if (nowMs >= office.waitUntilMs) this.#endGathering(office, nowMs);
        return true;
      case "deputy":
        if (nowMs >= office.beatDueMs) this.#askPrincipal(office, nowMs);
        return nowMs - office.namedMs < UNNAMED_HEARTBEATS * config.heartbeatMs;
      case "manager":
        if (nowMs >= office.nextBeatMs) this.#beatDeputy(office, nowMs);
        if (office.tree.size > 0) office.emptySinceMs = nowMs;
        if (nowMs >= office.nextSearchMs) {
          office.nextSearchMs = nowMs + config.heartbeatMs;
          this.#searchRival(office, nowMs);
        }
        return nowMs - office.emptySinceMs < EMPTY_HEARTBEATS * config.heartbeatMs;
    }
  }

  #askPrincipal(office: Office, nowMs: number): void {
    const { principal, image } = office;
    const { managerSilenceMs, heartbeatMs } = this.#context.config;
    office.beatDueMs = nowMs + heartbeatMs;
    if (principal === undefined) return;
    const withinMs = (1 - SIGN_SHARE) * managerSilenceMs;
    this.#context.reach.check(principal, { image, reason: "manager", withinMs }, nowMs);
  }

  #beatDeputy(office: Office, nowMs: number): void {
    const { heartbeatMs, managerSilenceMs } = this.#context.config;
    this.chooseDeputy(office, nowMs);
    const { deputy, image } = office;
    office.nextBeatMs = deputy === undefined ? Infinity : nowMs + heartbeatMs;
    if (deputy === undefined) return;
    if (nowMs - office.deputyAckMs > 3 * heartbeatMs) {
      const withinMs = managerSilenceMs;
      this.#context.reach.check(deputy, { image, reason: "deputy", withinMs }, nowMs);
    }
    office.handsTo = this.#isReadyToTakeOver(office, deputy, nowMs) ? deputy.boot : undefined;
    this.#beat(office, deputy, nowMs);
  }

  /** Whether the deputy outranks this member and has heard (nearly) everybody. */
  #isReadyToTakeOver(office: Office, deputy: Contact, nowMs: number): boolean {
    const { ranking, config, self } = this.#context;
    const { image } = office;
    if (ranking.score(image, deputy.id) <= ranking.score(image, self.id)) return false;
    const member = ranking.get(deputy.id);
    if (member === undefined || !ranking.isSettled(member, nowMs)) return false;
    if (nowMs - office.deputySinceMs < gatherMs(config)) return false;
    return office.deputyKnown >= Math.floor(KNOWN_SHARE * office.tree.size);
  }

  #beat(office: Office, to: Contact, nowMs: number): void {
    const { image, tree } = office;
    const { size, epoch } = tree;
    const manager = this.#context.contact;
    const handover = office.handsTo !== undefined && office.handsTo === to.boot;
    this.#context.send(to, { kind: "beat", image, epoch, size, manager, handover });
    if (to.boot === office.deputy?.boot) {
      office.nextBeatMs = nowMs + this.#context.config.heartbeatMs;
    }
  }
}

/** The larger tree wins a merge, then the newer epoch. */
function wins(one: Claim, other: Claim): boolean {
  if (one.size !== other.size) return one.size > other.size;
  return compareEpochs(one.epoch, other.epoch) > 0;
}
