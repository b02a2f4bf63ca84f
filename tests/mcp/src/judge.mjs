// What a run of the conformance suite is worth. The suite's own exit code is not enough: it takes a scenario that it skipped for
// a passed one, does not count what is "not scored", and says nothing of checks that were not made.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Statuses as the suite writes them; what is INFO says nothing about the server. */
const KINDS = { SUCCESS: 'passed', FAILURE: 'failed', WARNING: 'warnings', SKIPPED: 'skipped' };

/** What each scenario wrote into the output directory, by its name. */
export function read(directory) {
  const scenarios = {};
  for (const name of readdirSync(directory).toSorted()) {
    const [, scenario] = /^server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z$/.exec(name) ?? [];
    if (!scenario) continue;
    const counts = { passed: 0, failed: 0, warnings: 0, skipped: 0, why: [] };
    const file = join(directory, name, 'checks.json');
    // A scenario that broke off leaves none, which is no result.
    if (!existsSync(file)) continue;
    for (const check of JSON.parse(readFileSync(file, 'utf8'))) {
      const kind = KINDS[check.status];
      if (!kind) continue;
      counts[kind] += 1;
      if (kind !== 'passed') counts.why.push(`${check.status} ${check.id}: ${check.errorMessage ?? check.description}`);
    }
    if (scenarios[scenario]) throw new Error(`two results of ${scenario} in ${directory}`);
    scenarios[scenario] = counts;
  }
  return scenarios;
}

/** The last line `Total: N passed, N failed`, if there is one. */
export function total(said) {
  const found = [...said.matchAll(/^Total: (\d+) passed, (\d+) failed/gm)].at(-1);
  return found && { passed: Number(found[1]), failed: Number(found[2]) };
}

/**
 * Holds a run against what is expected of it: for each scenario how many checks pass, or why it is allowed to be skipped.
 * Returns a sentence for all that is wrong.
 */
export function judge({ code, said, scenarios, several }, expected, warnings = {}) {
  const wrong = [];
  if (code !== 0) wrong.push(`the suite ended with ${code}`);
  const sum = { passed: 0, failed: 0 };
  for (const [scenario, counts] of Object.entries(scenarios)) {
    sum.passed += counts.passed;
    sum.failed += counts.failed;
    const wanted = expected[scenario];
    if (wanted === undefined) wrong.push(`${scenario}: nothing is expected of it; was the suite changed?`);
    const mayBeSkipped = typeof wanted === 'string';
    const [least, skipped] = mayBeSkipped ? [0, Infinity] : [wanted ?? 0, 0];
    const allowed = warnings[scenario] ?? 0;
    const found = [
      [counts.failed > 0, 'failed'],
      [counts.skipped > skipped, 'skipped'],
      [counts.warnings > allowed, 'warnings'],
    ].filter(([is]) => is).map(([, kind]) => `${counts[kind]} ${kind}`);
    if (found.length > 0) wrong.push(`${scenario}: ${found.join(', ')}\n    ${counts.why.join('\n    ')}`);
    if (counts.passed < least) wrong.push(`${scenario}: ${counts.passed} checks passed, ${least} are expected`);
  }
  for (const scenario of Object.keys(expected)) {
    if (!scenarios[scenario]) wrong.push(`${scenario}: it has no result`);
  }
  // One scenario alone is told without a total.
  const told = total(said);
  if (several && (told?.passed !== sum.passed || told?.failed !== sum.failed)) {
    wrong.push(`the files say ${sum.passed} passed and ${sum.failed} failed, the suite ${JSON.stringify(told)}`);
  }
  return { wrong, ...sum, scenarios: Object.keys(scenarios).length };
}
