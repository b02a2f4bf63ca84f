// The official Inspector, from its command line, in both eras.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { HttpServer, Home, within, DEADLINE } from './lab.mjs';

const here = import.meta.dirname;
const INSPECTOR = join(here, '../node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js');
const transports = process.env.PI_VERS_TEST_TRANSPORTS?.split(',') ?? ['stdio', 'http'];

/** Runs it once and returns what it printed: one JSON object. */
async function inspect(home, ...more) {
  const child = spawn(process.execPath, [INSPECTOR, '--cli', '--config', join(home.path, 'mcp.json'), '--quiet', '--format', 'json', ...more], {
    cwd: home.work,
    // It writes into the home.
    env: { HOME: home.path, PATH: process.env.PATH, MCP_INSPECTOR_SECRET_STORE: 'memory' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [out, err] = ['', ''];
  child.stdout.on('data', chunk => { out += chunk; });
  child.stderr.on('data', chunk => { err += chunk; });
  try {
    const code = await within(DEADLINE, more.join(' '), new Promise(done => child.once('close', done)));
    return { code, out, err, result: () => (assert.equal(code, 0, `${more}: ${out}${err}`), JSON.parse(out).result) };
  } finally {
    child.kill('SIGKILL');
  }
}

for (const transport of transports) {
  describe(`the Inspector by ${transport}`, { concurrency: 2 }, () => {
    let home, server;

    before(async () => {
      home = new Home('showcase');
      const { command, args, env } = home.stdio();
      const servers = { stdio: { type: 'stdio', command, args, env } };
      if (transport === 'http') {
        server = await HttpServer.start(home, '--skills', join(here, '../skills'));
        servers.http = { type: 'streamable-http', url: server.url };
      }
      writeFileSync(join(home.path, 'mcp.json'), JSON.stringify({ mcpServers: servers }));
      // The first one compiles: those that follow are alike.
      await inspect(home, '--server', transport, '--method', 'tools/list');
    });

    after(async () => {
      await server?.end();
      home.end();
    });

    for (const era of ['legacy', 'modern']) {
      const ask = async (...more) => inspect(home, '--server', transport, '--protocol-era', era, ...more);

      test(`${era}: every tool has a schema that all clients take`, async () => {
        const { tools } = (await ask('--method', 'tools/list', '--strict')).result();
        assert.ok(tools.some(tool => tool.name === 'show_add') && tools.length > 20, `${tools.length} tools`);
      });

      test(`${era}: a tool is called`, async () => {
        const sum = (await ask('--method', 'tools/call', '--tool-name', 'show_add', '--tool-arg', 'a=1', 'b=2')).result();
        assert.deepEqual(sum.structuredContent, { sum: 3 });
        const wrong = await ask('--method', 'tools/call', '--tool-name', 'show_add', '--tool-args-json', '{"a":"x"}');
        assert.match(wrong.out, /"isError":\s*true/, wrong.out + wrong.err);
      });

      test(`${era}: a command is got as a prompt`, async () => {
        const { prompts } = (await ask('--method', 'prompts/list')).result();
        assert.ok(prompts.some(prompt => prompt.name === 'greet'));
        const greeting = (await ask('--method', 'prompts/get', '--prompt-name', 'greet', '--prompt-args', 'arguments=anna')).result();
        assert.match(greeting.messages[0].content.text, /Hello, anna!/);
      });

      test(`${era}: a resource is read`, async () => {
        const { resources } = (await ask('--method', 'resources/list')).result();
        const { uri } = resources.find(one => one.name === 'status');
        assert.equal((await ask('--method', 'resources/read', '--uri', uri)).result().contents[0].uri, uri);
      });
    }

    if (transport === 'http') {
      test('skills have the digests that they say', async () => {
        const { code, out, err } = await inspect(home, '--server', 'http', '--protocol-era', 'modern', '--method', 'skills/list', '--verify', '--require-digests');
        assert.equal(code, 0, out + err);
        for (const name of ['counting', 'greeting']) assert.match(out, new RegExp(`"${name}"`));
      });
    }
  });
}
