/**
 * Who waits for whom, by block or map: finds circles before and after they close.
 *
 * While trees change, two members may each take the other for a parent. A request names the members
 * that it passed, which stops what was sent on for another; but single flight also joins requests,
 * and two members that asked on their own account could wait for each other for ever, each telling
 * the other that it lives. So ticks name whom their sender waits for, up to the root, and whoever
 * finds itself in that list, or is asked for what it is asking the asker for, goes elsewhere.
 */
import { PATH_MEMBERS_MAX, WAITS_MAX } from "./limits.ts";

interface Wait {
  /** Whom we ask, by id, with whom they wait for, as they last said. */
  readonly upstream: Map<string, readonly string[]>;
  /** Paths of the requests that wait for us. */
  readonly downstream: Set<readonly string[]>;
}

export class WaitBook {
  readonly #waits = new Map<string, Wait>();

  static blockKey(layerId: string, block: number): string {
    return `${layerId} ${block}`;
  }

  static mapKey(diffId: string): string {
    return diffId;
  }

  get size(): number {
    return this.#waits.size;
  }

  /** A request that passed `path` waits here; the result ends it. */
  enter(key: string, path: readonly string[]): () => void {
    const wait = this.#open(key);
    wait?.downstream.add(path);
    return () => {
      wait?.downstream.delete(path);
      this.#close(key);
    };
  }

  /** We ask `peerId`; the result ends it. */
  ask(key: string, peerId: string): () => void {
    const wait = this.#open(key);
    wait?.upstream.set(peerId, []);
    return () => {
      wait?.upstream.delete(peerId);
      this.#close(key);
    };
  }

  /** The peer said whom it waits for. */
  heard(key: string, peerId: string, waitsFor: readonly string[]): void {
    const wait = this.#waits.get(key);
    if (wait?.upstream.has(peerId) === true) wait.upstream.set(peerId, waitsFor);
  }

  /**
   * Whom a wait here is for, nearest first: the shortest list where several are asked, since any of
   * them may answer.
   */
  waitsFor(key: string): readonly string[] {
    let shortest: readonly string[] | undefined;
    for (const [id, beyond] of this.#waits.get(key)?.upstream ?? []) {
      if (shortest === undefined || beyond.length + 1 < shortest.length) shortest = [id, ...beyond];
    }
    return (shortest ?? []).slice(0, PATH_MEMBERS_MAX);
  }

  /** Whether we wait, through whomever, for `peerId` and for nobody beside. */
  isWaitingFor(key: string, peerId: string): boolean {
    const upstream = this.#waits.get(key)?.upstream;
    if (upstream === undefined || upstream.size === 0) return false;
    return [...upstream].every(([id, beyond]) => id === peerId || beyond.includes(peerId));
  }

  /** The longest path of those that wait here: what a request of ours is sent on for. */
  pathOf(key: string): readonly string[] {
    let longest: readonly string[] = [];
    for (const path of this.#waits.get(key)?.downstream ?? []) {
      if (path.length > longest.length) longest = path;
    }
    return longest;
  }

  /** Whether the peer waits here, by itself or through others. */
  isWaitingHere(key: string, peerId: string): boolean {
    for (const path of this.#waits.get(key)?.downstream ?? []) {
      if (path.includes(peerId)) return true;
    }
    return false;
  }

  #open(key: string): Wait | undefined {
    let wait = this.#waits.get(key);
    if (wait === undefined) {
      // Without an entry circles through this block are found later, by the depth of the path.
      if (this.#waits.size >= WAITS_MAX) return undefined;
      wait = { upstream: new Map(), downstream: new Set() };
      this.#waits.set(key, wait);
    }
    return wait;
  }

  #close(key: string): void {
    const wait = this.#waits.get(key);
    if (wait?.upstream.size === 0 && wait.downstream.size === 0) this.#waits.delete(key);
  }
}
