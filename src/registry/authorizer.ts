/** One host's credentials: what to send with a request, and what to do when it is refused. */
import type { Clock } from "../base/clock.ts";
import { SingleFlight } from "../base/single-flight.ts";
import { chooseScheme } from "./challenge.ts";
import type { AuthScheme } from "./challenge.ts";
import type { CredentialSource } from "./credentials.ts";
import type { TlsSettings } from "./host-config.ts";
import { TOKEN_SLACK_MS, TOKENS_MAX } from "./limits.ts";
import { basicHeader, fetchToken } from "./token.ts";
import type { TransportPool } from "./transport.ts";

interface AuthorizerDeps {
  readonly transport: TransportPool;
  readonly credentials: CredentialSource;
  readonly clock: Clock;
}

interface CachedHeader {
  readonly header: string;
  /** Clock's milliseconds. */
  readonly fetchedAtMs: number;
  readonly expiresAtMs: number;
}

/** A fresh token that is refused with 403 is refused for good: asking again changes nothing. */
const FRESH_MS = 5_000;
const BASIC_KEY = "basic";

/** Makes room for one more entry. */
function dropOldest<K>(map: Map<K, unknown>, max: number): void {
  if (map.size < max) return;
  const oldest = map.keys().next();
  if (oldest.done !== true) map.delete(oldest.value);
}

export class Authorizer {
  readonly #deps: AuthorizerDeps;
  readonly #tls: TlsSettings;
  #scheme: AuthScheme | undefined;
  readonly #headers = new Map<string, CachedHeader>();
  readonly #scopes = new Map<string, string>();
  readonly #flights = new SingleFlight<string, string | undefined>();

  constructor(options: { readonly tls: TlsSettings }, deps: AuthorizerDeps) {
    this.#deps = deps;
    this.#tls = options.tls;
  }

  /** The Authorization to begin with: none until the host has asked for one. */
  async header(
    repository: string,
    registry: URL,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<string | undefined> {
    const scheme = this.#scheme;
    if (scheme === undefined) return undefined;
    const cached = this.#cached(this.#keyFor(scheme, repository));
    return cached?.header ?? (await this.#renew(scheme, repository, registry, { signal }));
  }

  /**
   * After 401 or 403 to a request that carried `used`: another Authorization to try, or undefined
   * when there is nothing else to try.
   */
  async afterRefusal(
    refusal: {
      readonly status: number;
      readonly challenges: readonly string[];
      readonly used: string | undefined;
      readonly repository: string;
      readonly registry: URL;
    },
    { signal }: { readonly signal: AbortSignal },
  ): Promise<string | undefined> {
    const scheme = chooseScheme(refusal.challenges) ?? this.#scheme;
    if (scheme === undefined) return undefined;
    this.#scheme = scheme;
    if (scheme.kind === "bearer" && scheme.scope !== undefined && scheme.scope !== "") {
      this.#rememberScope(refusal.repository, scheme.scope);
    }
    const key = this.#keyFor(scheme, refusal.repository);
    const cached = this.#cached(key);
    // Somebody else has renewed it since this request was sent.
    if (cached !== undefined && cached.header !== refusal.used) return cached.header;
    if (cached !== undefined && refusal.status === 403) {
      if (this.#deps.clock.nowMs() - cached.fetchedAtMs < FRESH_MS) return undefined;
    }
    this.#headers.delete(key);
    const renewed = await this.#renew(scheme, refusal.repository, refusal.registry, { signal });
    // The same password again would be refused again.
    return renewed === refusal.used ? undefined : renewed;
  }

  /** As the registry asked for this repository (a proxy may call it otherwise), else as usual. */
  #scopeFor(repository: string): string {
    return this.#scopes.get(repository) ?? `repository:${repository}:pull`;
  }

  #keyFor(scheme: AuthScheme, repository: string): string {
    return scheme.kind === "basic" ? BASIC_KEY : this.#scopeFor(repository);
  }

  #cached(key: string): CachedHeader | undefined {
    const cached = this.#headers.get(key);
    if (cached === undefined || cached.expiresAtMs > this.#deps.clock.nowMs()) return cached;
    this.#headers.delete(key);
    return undefined;
  }

  async #renew(
    scheme: AuthScheme,
    repository: string,
    registry: URL,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<string | undefined> {
    const key = this.#keyFor(scheme, repository);
    const work = async (flightSignal: AbortSignal): Promise<string | undefined> => {
      const credential = await this.#deps.credentials.lookup(registry.host, {
        signal: flightSignal,
      });
      if (credential?.kind === "bearer") {
        return this.#remember(key, `Bearer ${credential.token}`, Number.POSITIVE_INFINITY);
      }
      if (scheme.kind === "basic") {
        if (credential?.kind !== "password") return undefined;
        const header = basicHeader(credential.username, credential.password);
        return this.#remember(key, header, Number.POSITIVE_INFINITY);
      }
      const token = await fetchToken(
        {
          realm: scheme.realm,
          service: scheme.service,
          scope: this.#scopeFor(repository),
          credential,
          registry,
          tls: this.#tls,
        },
        this.#deps,
        { signal: flightSignal },
      );
      return this.#remember(key, `Bearer ${token.value}`, token.lifeMs);
    };
    return this.#flights.run(key, work, { signal });
  }

  #rememberScope(repository: string, scope: string): void {
    dropOldest(this.#scopes, TOKENS_MAX);
    this.#scopes.set(repository, scope);
  }

  #remember(key: string, header: string, lifeMs: number): string {
    const now = this.#deps.clock.nowMs();
    // A short-lived token is used for half its life at least.
    const useMs = Math.max(lifeMs - TOKEN_SLACK_MS, lifeMs / 2);
    dropOldest(this.#headers, TOKENS_MAX);
    this.#headers.set(key, { header, fetchedAtMs: now, expiresAtMs: now + useMs });
    return header;
  }
}
