// The judge itself: a run that is bad in any one way must not look green.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { judge, read, total } from './judge.mjs';

/** A directory as the suite leaves it. */
function left(t, scenarios) {
  const directory = mkdtempSync(join(tmpdir(), 'pi-vers-judge-'));
  t.after(() => rmSync(directory, { recursive: true }));
  for (const [scenario, statuses] of Object.entries(scenarios)) {
    const path = join(directory, `server-${scenario}-2026-11-23T06-52-54-516Z`);
    mkdirSync(path);
    const checks = statuses?.map((status, at) => ({ id: `${scenario}-${at}`, status, description: 'a check' }));
    if (checks) writeFileSync(join(path, 'checks.json'), JSON.stringify(checks));
  }
  return directory;
}

const GOOD = { 'tools-list': ['SUCCESS', 'SUCCESS', 'INFO'], ping: ['SUCCESS'], 'tasks-status': ['SKIPPED'] };
const SAID = 'a line\nTotal: 3 passed, 0 failed\n';
const EXPECTED = { 'tools-list': 2, ping: 1, 'tasks-status': 'it is skipped by the suite itself' };

function verdict(t, { scenarios = GOOD, said = SAID, code = 0, expected = EXPECTED, warnings }) {
  return judge({ code, said, scenarios: read(left(t, scenarios)), several: true }, expected, warnings).wrong;
}

test('a good run is good', t => {
  assert.deepEqual(verdict(t, {}), []);
  assert.deepEqual(total(SAID), { passed: 3, failed: 0 });
});

test('whatever is wrong is told', t => {
  const cases = [
    [{ code: 1 }, /ended with 1/],
    [{ scenarios: { ...GOOD, ping: ['FAILURE'] }, said: 'Total: 2 passed, 1 failed' }, /ping: 1 failed/],
    // Not scored, so the suite's exit code is 0.
    [{ scenarios: { ...GOOD, ping: ['SUCCESS', 'FAILURE'] }, said: 'Total: 3 passed, 1 failed' }, /FAILURE ping-1/],
    [{ scenarios: { ...GOOD, ping: ['SKIPPED'] }, said: 'Total: 2 passed, 0 failed' }, /ping: 1 skipped/],
    [{ scenarios: { ...GOOD, ping: ['SUCCESS', 'WARNING'] } }, /ping: 1 warnings/],
    [{ scenarios: { ...GOOD, 'tools-list': ['SUCCESS'] }, said: 'Total: 2 passed, 0 failed' }, /1 checks passed, 2 are expected/],
    [{ scenarios: { 'tools-list': GOOD['tools-list'], 'tasks-status': ['SKIPPED'] }, said: 'Total: 2 passed, 0 failed' }, /ping: it has no result/],
    // It broke off.
    [{ scenarios: { ...GOOD, ping: undefined }, said: 'Total: 2 passed, 1 failed' }, /ping: it has no result/],
    [{ scenarios: { ...GOOD, more: ['SUCCESS'] }, said: 'Total: 4 passed, 0 failed' }, /more: nothing is expected/],
    [{ said: 'it stopped in between' }, /the suite undefined/],
    [{ said: 'Total: 4 passed, 0 failed' }, /the files say 3/],
  ];
  for (const [run, complaint] of cases) {
    const wrong = verdict(t, run);
    assert.match(wrong.join('\n'), complaint, JSON.stringify(run));
  }
});

test('a warning can be expected', t => {
  const scenarios = { ...GOOD, ping: ['SUCCESS', 'WARNING'] };
  assert.deepEqual(verdict(t, { scenarios, warnings: { ping: 1 } }), []);
});

test('the real suite against a server that has almost nothing', t => {
  // Statuses of a run of 0.2.0-alpha.12 against a server with one tool.
  const scenarios = { 'tools-list': ['FAILURE', 'FAILURE'], caching: ['FAILURE', 'SKIPPED'], 'tasks-status': ['SKIPPED'] };
  const wrong = verdict(t, { scenarios, said: 'Total: 0 passed, 3 failed', code: 1 });
  assert.equal(wrong.filter(one => one.startsWith('caching') || one.startsWith('tools-list')).length, 4, wrong.join('\n'));
});
