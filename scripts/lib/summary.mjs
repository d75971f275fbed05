// summary.mjs FILE...: adds up what the suites counted and prints the closing line. A suite without
// a result ended before mocha did: that is one failure more.
import { readFileSync } from "node:fs";
import process from "node:process";

const total = { passed: 0, failed: 0, skipped: 0 };
for (const file of process.argv.slice(2)) {
  let result;
  try {
    result = JSON.parse(readFileSync(file, "utf8"));
  } catch {
    process.stderr.write(`no result of ${file}: the suite did not come to its end\n`);
    result = { passed: 0, failed: 1, skipped: 0 };
  }
  for (const key of Object.keys(total)) total[key] += result[key];
}
const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : "";
process.stdout.write(`${total.passed} passed, ${total.failed} failed${skipped}\n`);
process.exitCode = total.failed === 0 && total.passed > 0 ? 0 : 1;
