/** What names tell: those of claimed snapshots, and containerd's keys. */
import { digestHex, digestOf } from "../oci/index.ts";
import type { ChainId } from "../oci/index.ts";

/**
 * One name for each pair of parent and chain. A name by the chain alone would be taken when a
 * second namespace, whose copy of the parent has another name, prepares the same layer: containerd
 * then finds no snapshot with that label *and* that parent, and its pull fails.
 * containerd's own keys are `namespace/number/…`; no number is a digest.
 */
export function claimedName(chainId: ChainId, parent: string): string {
  const base = parent === "" ? "base" : digestHex(digestOf(Buffer.from(parent))).slice(0, 16);
  return `claimed/${digestHex(chainId)}/${base}`;
}

/** Source: containerd pkg/identifiers; core/metadata, createKey: `namespace/number/key`. */
const CONTAINERD_KEY = /^([A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*)\/\d+\//;

/**
 * The namespace of a request: its header's, else what containerd wrote into the key (1.6 and
 * others send no header to a proxy plugin), else empty.
 */
export function requestNamespace(header: string, key: string): string {
  return header === "" ? (CONTAINERD_KEY.exec(key)?.[1] ?? "") : header;
}
