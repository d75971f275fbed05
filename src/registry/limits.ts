/** Bounds of the registry client; times in milliseconds, sizes in bytes. */

/** Requests under way to one registry host at once; each holds a connection. */
export const HOST_REQUESTS_MAX = 16;
/** Of these, how many may be for bulk work, so that a blocked reader always finds one free. */
export const HOST_BULK_REQUESTS_MAX = 12;
/** Requests that may wait for one host. */
export const HOST_QUEUE_MAX = 4096;
/** Registries (domains) with a client at once. */
export const CLIENTS_MAX = 256;
/** Connection pools (TLS and proxy settings) at once. */
export const TRANSPORTS_MAX = 64;

/** Go's default too; a redirect to a redirect to a CDN is the most that is seen. */
export const REDIRECTS_MAX = 5;
export const URL_CHARS_MAX = 16 * 1024;
/** A redirected blob's final address is remembered this long, unless refused earlier. */
export const BLOB_URL_TTL_MS = 10 * 60_000;
export const BLOB_URLS_MAX = 2048;

/** Rounds over all hosts of a registry before an operation gives up. */
export const ATTEMPTS_MAX = 5;
export const BACKOFF_BASE_MS = 100;
export const BACKOFF_MAX_MS = 5_000;
/** A server that asks for more patience than this is reported instead of obeyed. */
export const RETRY_AFTER_MAX_MS = 60_000;
/** A host that refused connections or broke is tried after the others for this long. */
export const HOST_COOLDOWN_MS = 10_000;

/** A resumed body must have brought this much, else the resume counts as a failed attempt. */
export const RESUME_PROGRESS_BYTES = 64 * 1024;
/** A body that brings less than this in a window of waiting is dropped and resumed. */
export const SLOW_BYTES_MIN = 16 * 1024;
export const SLOW_WINDOW_MS = 30_000;
/** A document (manifest, token) must be whole by then, however it trickles. */
export const DOCUMENT_TIMEOUT_MS = 60_000;
/** A body that nobody reads for this long gives its connection back and is resumed later. */
export const IDLE_READER_MS = 30_000;
/** How much of an unwanted body is read to keep the connection rather than close it. */
export const DISCARD_BYTES_MAX = 64 * 1024;
/** An error document. */
export const ERROR_BODY_BYTES_MAX = 64 * 1024;

export const TOKEN_BODY_BYTES_MAX = 256 * 1024;
export const TOKEN_CHARS_MAX = 64 * 1024;
/** Without `expires_in` a token lives this long. Source: distribution, auth/token.md. */
export const TOKEN_LIFE_DEFAULT_MS = 60_000;
export const TOKEN_LIFE_MAX_MS = 24 * 3600_000;
/** A token is renewed this long before its end. */
export const TOKEN_SLACK_MS = 10_000;
export const TOKENS_MAX = 512;

export const CHALLENGE_CHARS_MAX = 16 * 1024;
export const CHALLENGES_MAX = 16;
export const CHALLENGE_PARAMETERS_MAX = 32;

export const DOCKER_CONFIG_BYTES_MAX = 1024 * 1024;
export const HELPER_OUTPUT_BYTES_MAX = 64 * 1024;
export const HELPER_TIMEOUT_MS = 15_000;

export const HOSTS_TOML_BYTES_MAX = 256 * 1024;
export const HOSTS_MAX = 32;
/** CA files, client certificates and keys. */
export const PEM_BYTES_MAX = 4 * 1024 * 1024;
export const CERTIFICATE_FILES_MAX = 64;
/** hosts.toml is read again when it is older than this. */
export const HOST_CONFIG_TTL_MS = 30_000;

/** Entries of an image archive. */
export const ARCHIVE_ENTRIES_MAX = 100_000;
/** A pax or GNU long name record inside an archive. */
export const ARCHIVE_READ_BYTES = 256 * 1024;
/** Links from link to link inside an archive. */
export const ARCHIVE_LINKS_MAX = 16;
/** Pieces in which a local blob is read. */
export const FILE_PIECE_BYTES = 256 * 1024;
/** Manifests opened to learn their platform, when their descriptors do not say it. */
export const PLATFORM_GUESSES_MAX = 16;
