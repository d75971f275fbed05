/** Names of this machine's loopback interface, as addresses and as clients write them. */

const LOOPBACK_HOST = /^(127\.\d{1,3}\.\d{1,3}\.\d{1,3}|::1|localhost)$/i;
/** The Host field: `uri-host [ ":" port ]` (RFC 9110 7.2), IPv6 in brackets. */
const LOOPBACK_NAME = /^(127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\]|localhost)(:\d{0,5})?$/i;

export function isLoopbackHost(host: string): boolean {
  return LOOPBACK_HOST.test(host);
}

/** Whether a request's Host field names loopback; one without it (HTTP/1.0) does not. */
export function isLoopbackName(host: string | undefined): boolean {
  return host !== undefined && LOOPBACK_NAME.test(host);
}
