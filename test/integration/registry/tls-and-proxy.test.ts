/** Client certificates, and requests and tunnels through a proxy, in this process. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { Server } from "node:http";
import { connect } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { makeCertificates, readCertificate } from "../../support/registry/certificates.ts";
import type { TestCertificates } from "../../support/registry/certificates.ts";
import { fakeBytes } from "../../support/registry/fake-image.ts";
import { FakeRegistry } from "../../support/registry/fake-registry.ts";
import { collect, noAbort, testPool } from "../../support/registry/pool.ts";

const DOMAIN = "registry.example";
const BYTES = fakeBytes(300_000);

/** Tunnels every CONNECT to one port of this machine. */
async function startTunnel(
  port: number,
): Promise<{ server: Server; asked: string[]; authorizations: unknown[] }> {
  const asked: string[] = [];
  const authorizations: unknown[] = [];
  const server = createServer();
  server.on("connect", (request, socket) => {
    asked.push(request.url ?? "");
    authorizations.push(request.headers["proxy-authorization"]);
    const upstream = connect(port, "127.0.0.1", () => {
      socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
      upstream.pipe(socket);
      socket.pipe(upstream);
    });
    upstream.on("error", () => socket.destroy());
    socket.on("error", () => upstream.destroy());
    socket.on("close", () => upstream.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, asked, authorizations };
}

describe("registry client: certificates and proxies", () => {
  let root = "";
  let certificates: TestCertificates;

  before(async function () {
    try {
      await promisify(execFile)("openssl", ["version"]);
    } catch {
      console.warn("skipped: openssl is not installed");
      this.skip();
    }
    root = await mkdtemp(join(tmpdir(), "tls-"));
    certificates = await makeCertificates(root);
  });
  after(async () => {
    if (root !== "") await rm(root, { recursive: true, force: true });
  });

  async function hosts(text: string): Promise<readonly string[]> {
    const folder = await mkdtemp(join(root, "hosts-"));
    await mkdir(join(folder, DOMAIN));
    await writeFile(join(folder, DOMAIN, "hosts.toml"), text);
    return [folder];
  }

  it("shows its client certificate to the registry that it is configured for", async () => {
    const tls = await readCertificate(certificates.server);
    const ca = await readFile(certificates.ca, "utf8");
    await using registry = await FakeRegistry.start({ tls: { ...tls, ca } });
    const digest = registry.addBlob(BYTES);
    const base = `server = "${registry.origin}"\nca = "${certificates.ca}"\n`;
    const { certificate, key } = certificates.client;
    await using known = testPool({
      hostsDirs: await hosts(`${base}client = [["${certificate}", "${key}"]]\n`),
    });
    await using unknown = testPool({ hostsDirs: await hosts(base) });
    const options = { signal: noAbort() };

    const bytes = await collect(
      await known.pool.client(DOMAIN).openBlob("app", digest, undefined, options),
    );

    assert.ok(bytes.equals(BYTES));
    await assert.rejects(unknown.pool.client(DOMAIN).openBlob("app", digest, undefined, options));
  });

  it("sends plain HTTP to the proxy as a request", async () => {
    await using proxy = await FakeRegistry.start();
    const digest = proxy.addBlob(BYTES);
    await using test = testPool({
      hostsDirs: await hosts(`server = "http://${DOMAIN}"`),
      proxy: { httpProxy: proxy.origin },
    });

    const bytes = await collect(
      await test.pool
        .client(DOMAIN)
        .openBlob("app", digest, { start: 5, end: 200_000 }, { signal: noAbort() }),
    );

    assert.ok(bytes.equals(BYTES.subarray(5, 200_000)));
    assert.equal(proxy.requests[0], `GET http://${DOMAIN}/v2/app/blobs/${digest}`);
  });

  it("tunnels HTTPS through the proxy, logging in there only", async () => {
    const tls = await readCertificate(certificates.server);
    await using registry = await FakeRegistry.start({ tls });
    const digest = registry.addBlob(BYTES);
    const tunnel = await startTunnel(registry.port);
    try {
      const { port } = tunnel.server.address() as AddressInfo;
      await using test = testPool({
        hostsDirs: await hosts(`server = "https://${DOMAIN}"\nca = "${certificates.ca}"`),
        proxy: { httpsProxy: `http://ann:pw@127.0.0.1:${port}` },
      });

      const bytes = await collect(
        await test.pool.client(DOMAIN).openBlob("app", digest, undefined, { signal: noAbort() }),
      );

      assert.ok(bytes.equals(BYTES));
      assert.deepEqual(tunnel.asked, [`${DOMAIN}:443`]);
      assert.deepEqual(tunnel.authorizations, [
        `Basic ${Buffer.from("ann:pw").toString("base64")}`,
      ]);
      assert.equal(registry.log[0]?.headers["proxy-authorization"], undefined);
    } finally {
      tunnel.server.closeAllConnections();
      await new Promise((resolve) => tunnel.server.close(resolve));
    }
  });
});
