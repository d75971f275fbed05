/**
 * WWW-Authenticate. Source: RFC 9110, sections 11.2-11.6; distribution, auth/token.md.
 *
 * The field is a comma list of challenges whose parameters are a comma list too: a name followed
 * by "=" is a parameter of the challenge before it, any other name starts a new challenge.
 */
import { CHALLENGE_CHARS_MAX, CHALLENGE_PARAMETERS_MAX, CHALLENGES_MAX } from "./limits.ts";

export interface Challenge {
  /** Lower case: `bearer`, `basic`. */
  readonly scheme: string;
  /** Names in lower case; a repeated name keeps its first value. */
  readonly parameters: ReadonlyMap<string, string>;
}

const TOKEN = /[!#$%&'*+\-.^_`|~0-9A-Za-z]+/y;
const SPACE = /[ \t]*/y;
/** Also stands for a parameter's unquoted value; registries write URLs without quotes. */
const BARE_VALUE = /[^\s",]+/y;

class Scanner {
  readonly #text: string;
  position = 0;

  constructor(text: string) {
    this.#text = text;
  }

  get isAtEnd(): boolean {
    return this.position >= this.#text.length;
  }

  take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.position;
    const found = pattern.exec(this.#text)?.[0];
    if (found !== undefined) this.position += found.length;
    return found;
  }

  takeCharacter(character: string): boolean {
    if (this.#text[this.position] !== character) return false;
    this.position += 1;
    return true;
  }

  /** After the opening quote; an unterminated string ends with the text. */
  takeQuoted(): string {
    let value = "";
    while (!this.isAtEnd) {
      const character = this.#text[this.position] ?? "";
      this.position += 1;
      if (character === '"') return value;
      if (character === "\\") {
        value += this.#text[this.position] ?? "";
        this.position += 1;
      } else value += character;
    }
    return value;
  }
}

interface OpenChallenge {
  readonly scheme: string;
  readonly parameters: Map<string, string>;
}

function takeParameterValue(scanner: Scanner): string {
  scanner.take(SPACE);
  return scanner.takeCharacter('"') ? scanner.takeQuoted() : (scanner.take(BARE_VALUE) ?? "");
}

/** Never throws: what cannot be understood is skipped, for servers are many and sloppy. */
export function parseChallenges(header: string): Challenge[] {
  const scanner = new Scanner(header.slice(0, CHALLENGE_CHARS_MAX));
  const challenges: OpenChallenge[] = [];
  while (!scanner.isAtEnd) {
    scanner.take(SPACE);
    if (scanner.takeCharacter(",")) continue;
    const name = scanner.take(TOKEN);
    if (name === undefined) {
      scanner.position += 1;
      continue;
    }
    const nameEnd = scanner.position;
    scanner.take(SPACE);
    const open = challenges.at(-1);
    if (open !== undefined && scanner.takeCharacter("=")) {
      const value = takeParameterValue(scanner);
      const key = name.toLowerCase();
      if (open.parameters.size < CHALLENGE_PARAMETERS_MAX && !open.parameters.has(key)) {
        open.parameters.set(key, value);
      }
      continue;
    }
    scanner.position = nameEnd;
    if (challenges.length >= CHALLENGES_MAX) break;
    challenges.push({ scheme: name.toLowerCase(), parameters: new Map() });
  }
  return challenges;
}

/** What a client must do to be let in. */
export type AuthScheme =
  | { readonly kind: "basic" }
  | {
      readonly kind: "bearer";
      readonly realm: string;
      readonly service: string | undefined;
      readonly scope: string | undefined;
      readonly error: string | undefined;
    };

/** Bearer before Basic, as Docker; undefined when neither is offered. */
export function chooseScheme(headers: readonly string[]): AuthScheme | undefined {
  const challenges = headers.flatMap((header) => parseChallenges(header));
  for (const { scheme, parameters } of challenges) {
    const realm = parameters.get("realm");
    if (scheme !== "bearer" || realm === undefined || realm === "") continue;
    return {
      kind: "bearer",
      realm,
      service: parameters.get("service"),
      scope: parameters.get("scope"),
      error: parameters.get("error"),
    };
  }
  return challenges.some(({ scheme }) => scheme === "basic") ? { kind: "basic" } : undefined;
}
