// The official conformance suites against `pi-vers mcp --http` with the fixture component, judged by judge.mjs.
//
//   node conformance.mjs [--write]      --write: what passed becomes what is expected

import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { HttpServer, Home, within } from './lab.mjs';
import { judge, read } from './judge.mjs';

const here = import.meta.dirname;
const suite = name => join(here, '../node_modules', name, 'dist/index.js');
const V1 = suite('@modelcontextprotocol/conformance');
const NEXT = suite('conformance-next');
const SKILLS = ['directory', 'enumeration', 'manifest'];

/** Each with a server of its own: what one run leaves behind is not there for the next. */
const RUNS = {
  '0.1.16, all': { runs: [[V1, '--suite', 'all']] },
  '0.2.0-alpha.12, 2025-11-25': { runs: [[NEXT, '--requirements', '2025-11-25']] },
  '0.2.0-alpha.12, 2026-07-28': { runs: [[NEXT, '--requirements', '2026-07-28']] },
  '0.2.0-alpha.12, skills': { runs: SKILLS.map(name => [NEXT, '--scenario', `sep-2640-skills-${name}`]), alone: true },
};
/** No suite takes so long. */
const LIMIT = 120_000;

async function run(program, url, out) {
  const [script, ...options] = program;
  const child = spawn(process.execPath, [script, 'server', '--url', url, '-o', out, ...options], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => { said += chunk; });
  try {
    const code = await within(LIMIT, options.join(' '), new Promise(done => child.once('close', done)));
    return { code, said };
  } finally {
    child.kill('SIGKILL');
  }
}

async function main() {
  const file = join(here, '../expected.json');
  const expected = JSON.parse(readFileSync(file, 'utf8'));
  const found = {};
  let [good, bad] = [0, 0];
  for (const [name, { runs, alone }] of Object.entries(RUNS)) {
    const home = new Home('conformance');
    const began = Date.now();
    let verdict;
    try {
      const server = await HttpServer.start(home, '--skills', join(here, '../skills'));
      const out = join(home.path, 'out');
      mkdirSync(out);
      let [code, said] = [0, ''];
      for (const program of runs) {
        const one = await run(program, server.url, out);
        code ||= one.code;
        said += one.said;
      }
      const scenarios = read(out);
      found[name] = Object.fromEntries(Object.entries(scenarios).map(([scenario, counts]) => [scenario, counts.passed]));
      verdict = judge({ code, said, scenarios, several: !alone }, expected.passed[name] ?? {}, expected.warnings);
      const { signal } = await server.end();
      if (signal) verdict.wrong.push(`the server was ended by ${signal}`);
      if (verdict.wrong.length > 0 && process.env.PI_VERS_TEST_KEEP) writeFileSync(process.env.PI_VERS_TEST_KEEP, said, { flag: 'a' });
    } finally {
      home.end();
    }
    const { wrong, passed, failed, scenarios } = verdict;
    const seconds = ((Date.now() - began) / 1000).toFixed(1);
    console.log(`${wrong.length ? 'FAIL' : 'ok  '} ${name.padEnd(28)} ${String(scenarios).padStart(3)} scenarios  ${String(passed).padStart(4)} passed  ${String(failed).padStart(3)} failed  ${seconds} s`);
    for (const one of wrong) console.log(`  ${one}`);
    if (wrong.length) bad += 1;
    else good += 1;
  }
  if (process.argv.includes('--write')) {
    for (const [name, passed] of Object.entries(found)) {
      const reasons = Object.entries(expected.passed[name] ?? {}).filter(([, wanted]) => typeof wanted === 'string');
      expected.passed[name] = { ...passed, ...Object.fromEntries(reasons) };
    }
    writeFileSync(file, `${JSON.stringify(expected, null, 2)}\n`);
  }
  console.log(`conformance: ${good} passed, ${bad} failed`);
  process.exitCode = bad === 0 ? 0 : 1;
}

await main();
