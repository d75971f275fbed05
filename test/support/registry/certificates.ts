/** Short-lived certificates for tests, made by openssl. */
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const exec = promisify(execFile);

export interface CertificateFiles {
  readonly certificate: string;
  readonly key: string;
}

export interface TestCertificates {
  readonly ca: string;
  /** For localhost, 127.0.0.1 and registry.example. */
  readonly server: CertificateFiles;
  readonly client: CertificateFiles;
}

const KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

async function issue(
  folder: string,
  name: string,
  ca: CertificateFiles,
  extension: string,
): Promise<CertificateFiles> {
  const files = { certificate: join(folder, `${name}.pem`), key: join(folder, `${name}.key`) };
  const request = join(folder, `${name}.csr`);
  const extensions = join(folder, `${name}.ext`);
  await writeFile(extensions, extension);
  await exec("openssl", [
    ...["req", ...KEY, "-keyout", files.key, "-out", request, "-subj", `/CN=${name}`],
  ]);
  await exec("openssl", [
    ...["x509", "-req", "-in", request, "-CA", ca.certificate, "-CAkey", ca.key],
    ...["-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", files.certificate],
  ]);
  return files;
}

export async function makeCertificates(folder: string): Promise<TestCertificates> {
  const ca = { certificate: join(folder, "ca.pem"), key: join(folder, "ca.key") };
  await exec("openssl", [
    ...["req", "-x509", ...KEY, "-days", "2", "-keyout", ca.key, "-out", ca.certificate],
    ...["-subj", "/CN=test CA", "-addext", "basicConstraints=critical,CA:TRUE"],
  ]);
  const names = "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:registry.example\n";
  return {
    ca: ca.certificate,
    server: await issue(folder, "server", ca, `${names}extendedKeyUsage=serverAuth\n`),
    client: await issue(folder, "client", ca, "extendedKeyUsage=clientAuth\n"),
  };
}

export async function readCertificate(
  files: CertificateFiles,
): Promise<{ readonly cert: string; readonly key: string }> {
  return {
    cert: await readFile(files.certificate, "utf8"),
    key: await readFile(files.key, "utf8"),
  };
}
