// The official Python client: its scenario is in client.py; here it gets its servers.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { HttpServer, Home } from './lab.mjs';

const transports = process.env.PI_VERS_TEST_TRANSPORTS?.split(',') ?? ['stdio', 'http'];
const python = process.env.PI_VERS_TEST_PYTHON ?? assert.fail('PI_VERS_TEST_PYTHON is not set: tests/mcp/run.sh sets it');

test('the Python SDK, both eras', async t => {
  const home = new Home('showcase');
  t.after(() => home.end());
  let url;
  if (transports.includes('http')) {
    const server = await HttpServer.start(home);
    t.after(() => server.end());
    url = server.url;
  }
  const setup = join(home.path, 'setup.json');
  writeFileSync(setup, JSON.stringify({ stdio: home.stdio(), url, transports }));
  const child = spawn(python, [join(import.meta.dirname, 'client.py'), setup], { stdio: ['ignore', 'pipe', 'pipe'] });
  t.after(() => child.kill('SIGKILL'));
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => { said += chunk; });
  const code = await new Promise(done => child.once('close', done));
  assert.equal(code, 0, said);
  assert.match(said, new RegExp(`Ran ${2 * transports.length} tests[^]*\\nOK\\n`), said);
});
