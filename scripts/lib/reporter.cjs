// A mocha reporter: the "spec" output, and the counts as JSON in the file $TEST_RESULT_FILE.
"use strict";

const { writeFileSync } = require("node:fs");
const process = require("node:process");
const Mocha = require("mocha");

const { EVENT_RUN_END } = Mocha.Runner.constants;

class Reporter extends Mocha.reporters.Spec {
  constructor(runner, options) {
    super(runner, options);
    runner.once(EVENT_RUN_END, () => {
      const file = process.env.TEST_RESULT_FILE;
      const { passes, failures, pending } = this.stats;
      if (file !== undefined) {
        writeFileSync(file, JSON.stringify({ passed: passes, failed: failures, skipped: pending }));
      }
    });
  }
}

module.exports = Reporter;
