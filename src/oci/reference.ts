/**
 * Image references. Source: github.com/distribution/reference, reference.go (the grammar) and
 * normalize.go (Docker Hub's short names).
 *
 * All patterns run in linear time: the text is bounded first, and no quantifier holds another
 * that can match the same characters in two ways.
 */
import { DaemonError } from "../base/errors.ts";
import { tryParseDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { NAME_CHARS_MAX, REFERENCE_CHARS_MAX } from "./limits.ts";

export const DEFAULT_DOMAIN = "docker.io";
export const DEFAULT_TAG = "latest";
/** Docker Hub's other name, written by old clients. */
const LEGACY_DEFAULT_DOMAIN = "index.docker.io";

/** A normalized reference: always a domain, and a tag or a digest or both. */
export interface Reference {
  /** Host and, if given, port: `docker.io`, `localhost:5000`, `[::1]:5000`. */
  readonly domain: string;
  /** Path below the domain: `library/debian`. */
  readonly repository: string;
  readonly tag: string | undefined;
  /** Decides which manifest it is; a tag beside it is only a name. */
  readonly digest: Digest | undefined;
}

const DOMAIN_COMPONENT = "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?";
const DOMAIN_PATTERN = new RegExp(
  `^(?:${DOMAIN_COMPONENT}(?:\\.${DOMAIN_COMPONENT})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]{1,5})?$`,
);
const PATH_COMPONENT_PATTERN = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG_PATTERN = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
/** A bare image identifier is not a name. */
const IDENTIFIER_PATTERN = /^[a-f0-9]{64}$/;

function invalid(text: string, problem: string): DaemonError {
  return new DaemonError("invalid-argument", `reference "${text.slice(0, 100)}": ${problem}`);
}

export function isDomain(text: string): boolean {
  return text.length <= NAME_CHARS_MAX && DOMAIN_PATTERN.test(text);
}

export function isRepository(text: string): boolean {
  return (
    text.length > 0 &&
    text.length <= NAME_CHARS_MAX &&
    text.split("/").every((component) => PATH_COMPONENT_PATTERN.test(component))
  );
}

export function isTag(text: string): boolean {
  return TAG_PATTERN.test(text);
}

/** Splits off the domain as Docker does; Docker Hub's names get theirs, and `library/`. */
function splitDomain(name: string): { domain: string; repository: string } {
  const slash = name.indexOf("/");
  const first = slash < 0 ? "" : name.slice(0, slash);
  const isHost = /[.:]/.test(first) || first === "localhost" || first.toLowerCase() !== first;
  const given = slash < 0 || !isHost ? DEFAULT_DOMAIN : first;
  const domain = given === LEGACY_DEFAULT_DOMAIN ? DEFAULT_DOMAIN : given;
  const repository = slash < 0 || !isHost ? name : name.slice(slash + 1);
  const isOfficial = domain === DEFAULT_DOMAIN && !repository.includes("/");
  return { domain, repository: isOfficial ? `library/${repository}` : repository };
}

/**
 * Parses and normalizes; a reference with neither tag nor digest gets the tag `latest`.
 * Throws `invalid-argument`.
 */
export function parseReference(text: string): Reference {
  if (text.length === 0 || text.length > REFERENCE_CHARS_MAX) {
    throw invalid(text, `must have 1 to ${REFERENCE_CHARS_MAX} characters`);
  }
  const at = text.indexOf("@");
  const beforeDigest = at < 0 ? text : text.slice(0, at);
  const digest = at < 0 ? undefined : tryParseDigest(text.slice(at + 1));
  if (at >= 0 && digest === undefined) throw invalid(text, "the digest is not a sha256 digest");
  const colon = beforeDigest.indexOf(":", beforeDigest.lastIndexOf("/") + 1);
  const name = colon < 0 ? beforeDigest : beforeDigest.slice(0, colon);
  const tag = colon < 0 ? undefined : beforeDigest.slice(colon + 1);
  if (tag !== undefined && !TAG_PATTERN.test(tag)) throw invalid(text, "the tag is malformed");
  if (IDENTIFIER_PATTERN.test(name)) throw invalid(text, "an image identifier is not a name");
  const { domain, repository } = splitDomain(name);
  if (!DOMAIN_PATTERN.test(domain)) throw invalid(text, "the registry host is malformed");
  if (!isRepository(repository)) {
    const problem = /[A-Z]/.test(repository) ? "must be lower case" : "is malformed";
    throw invalid(text, `the repository name ${problem}`);
  }
  if (domain.length + 1 + repository.length > NAME_CHARS_MAX) {
    throw invalid(text, `the name is longer than ${NAME_CHARS_MAX} characters`);
  }
  const isBare = tag === undefined && digest === undefined;
  return { domain, repository, tag: isBare ? DEFAULT_TAG : tag, digest };
}

export function tryParseReference(text: string): Reference | undefined {
  try {
    return parseReference(text);
  } catch (error) {
    if (error instanceof DaemonError && error.code === "invalid-argument") return undefined;
    throw error;
  }
}

/** The canonical text; `parseReference` gives the same reference back. */
export function formatReference(reference: Reference): string {
  const tag = reference.tag === undefined ? "" : `:${reference.tag}`;
  const digest = reference.digest === undefined ? "" : `@${reference.digest}`;
  return `${reference.domain}/${reference.repository}${tag}${digest}`;
}
