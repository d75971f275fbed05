/** The snapshots in memory: by name, with the number of children of each. */
import type { SnapshotRecord } from "../snapshot-info.ts";
import type { Operation } from "./records.ts";

export class State {
  readonly #records: Map<string, SnapshotRecord>;
  readonly #children: Map<string, number>;
  owner: string | undefined;
  nextId: number;

  constructor(from?: State) {
    this.#records = new Map(from === undefined ? [] : from.#records);
    this.#children = new Map(from === undefined ? [] : from.#children);
    this.owner = from?.owner;
    this.nextId = from?.nextId ?? 1;
  }

  get size(): number {
    return this.#records.size;
  }

  get(name: string): SnapshotRecord | undefined {
    return this.#records.get(name);
  }

  hasChildren(name: string): boolean {
    return this.#children.has(name);
  }

  records(): IterableIterator<SnapshotRecord> {
    return this.#records.values();
  }

  apply(operation: Operation): void {
    switch (operation.kind) {
      case "begin":
        this.#records.clear();
        this.#children.clear();
        this.owner = undefined;
        this.nextId = operation.nextId;
        break;
      case "owner":
        this.owner = operation.uuid;
        break;
      case "delete":
        this.#delete(operation.name);
        break;
      case "put":
        this.#delete(operation.record.name);
        this.#records.set(operation.record.name, operation.record);
        this.#countChild(operation.record.parent, 1);
        // Ids of removed snapshots count too: a folder's name is never used twice.
        this.nextId = Math.max(this.nextId, operation.record.id + 1);
        break;
    }
  }

  #delete(name: string): void {
    const record = this.#records.get(name);
    if (record === undefined) return;
    this.#records.delete(name);
    this.#countChild(record.parent, -1);
  }

  #countChild(parent: string, change: number): void {
    if (parent === "") return;
    const count = (this.#children.get(parent) ?? 0) + change;
    if (count === 0) this.#children.delete(parent);
    else this.#children.set(parent, count);
  }
}
