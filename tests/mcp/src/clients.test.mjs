// The official TypeScript clients do everything that they can do with a server, on both transports.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { HttpServer, Home, within, DEADLINE } from './lab.mjs';
import { PEERS } from './peers.mjs';

const transports = process.env.PI_VERS_TEST_TRANSPORTS?.split(',') ?? ['stdio', 'http'];

for (const [name, sdk] of Object.entries(PEERS)) {
  for (const transport of transports) describe(`${name} by ${transport}`, () => scenario(sdk, transport));
}

/** The text of a result. */
const said = result => result.content.map(block => block.text).join('\n');

/** What the form of a question offers: the constants of its one field's choices. */
const field = params => Object.entries(params.requestedSchema.properties)[0];

function scenario(sdk, transport) {
  let home, server, peer;

  before(async () => {
    home = new Home('showcase', 'conformance');
    if (transport === 'http') {
      server = await HttpServer.start(home);
      peer = await sdk.http(server.url);
    } else {
      peer = await sdk.stdio(home);
    }
  });

  after(async () => {
    await peer?.close();
    if (server) assert.equal((await server.end()).signal, null, 'it ended by itself');
    home?.end();
  });

  test('the server says who it is and what it speaks', () => {
    const { name, title, version } = peer.client.getServerVersion();
    assert.deepEqual([name, title], ['pi-vers', 'Vers']);
    assert.match(version, /^\d+\.\d+\.\d+/);
    assert.match(peer.client.getInstructions(), /vers_bash/);
    assert.ok(peer.client.getInstructions().length < 2048, 'clients cut longer instructions');
    if (peer.era === 'modern') assert.equal(peer.client.getNegotiatedProtocolVersion(), sdk.version);
  });

  test('tools are listed in an order that stays, with schemas and hints', async () => {
    const { tools } = await peer.listTools();
    const names = tools.map(tool => tool.name);
    assert.deepEqual(names, names.toSorted());
    assert.deepEqual((await peer.listTools()).tools.map(tool => tool.name), names);
    for (const tool of tools) {
      assert.equal(tool.inputSchema.type, 'object', tool.name);
      for (const hint of ['readOnlyHint', 'destructiveHint', 'idempotentHint', 'openWorldHint']) {
        assert.equal(typeof tool.annotations[hint], 'boolean', `${tool.name}: ${hint}`);
      }
    }
    const tool = name => tools.find(tool => tool.name === name);
    assert.deepEqual(tool('show_add').outputSchema.required, ['sum']);
    assert.equal(tool('show_add').annotations.readOnlyHint, true);
    assert.equal(tool('show_ask').annotations.destructiveHint, true);
    assert.equal(tool('show_ask').annotations.readOnlyHint, false);
    assert.equal(tool('noop').outputSchema, undefined);
    for (const name of ['vers_bash', 'vers_read', 'vers_edit', 'vers_write', 'vers_vms']) assert.ok(tool(name), name);
  });

  test('a call has a result, a structured one where it is declared, and details for people', async () => {
    assert.equal(said(await peer.call('noop')), 'ok');
    // The client holds it against the schema by itself.
    const sum = await peer.call('show_add', { a: 1, b: 2.5 });
    assert.deepEqual(sum.structuredContent, { sum: 3.5 });
    assert.deepEqual(JSON.parse(said(sum)), { sum: 3.5 });
    assert.deepEqual(sum._meta['pi-vers/details'], { from: [1, 2.5] });
    const picture = await peer.call('show_picture');
    const [, image] = picture.content;
    assert.deepEqual([image.type, image.mimeType], ['image', 'image/png']);
    assert.equal(Buffer.from(image.data, 'base64').subarray(1, 4).toString(), 'PNG');
    assert.equal(picture.structuredContent, undefined, 'details are not for the model');
    assert.deepEqual(picture._meta['pi-vers/details'], { pixels: 1 });
  });

  test('what goes wrong in a tool is a result that the model reads', async () => {
    const failed = await peer.call('show_fail', { text: 'no such thing' });
    assert.deepEqual([failed.isError, said(failed)], [true, 'no such thing']);
    for (const wrong of [{}, { a: 1 }, { a: 'x', b: 2 }, { a: 1, b: 2, c: 3 }]) {
      const result = await peer.call('show_add', wrong);
      assert.equal(result.isError, true, JSON.stringify(wrong));
      assert.match(said(result), /do not fit/);
    }
    const without = await peer.call('vers_bash', { command: 'id' });
    assert.equal(without.isError, true);
    assert.match(said(without), /^No VM is active/);
  });

  test('only an unknown tool is an error of the protocol', async () => {
    for (const unknown of ['no_such_tool', 'bash']) {
      await assert.rejects(peer.call(unknown), error => error.code === -32602, unknown);
    }
  });

  test('progress rises, and notices are log messages', async () => {
    const seen = [];
    const result = await peer.call('show_steps', { steps: 4 }, { onprogress: one => seen.push(one) });
    assert.equal(said(result), '4 steps');
    // The last one may be overtaken by the result in a client.
    assert.ok(seen.length >= 3, JSON.stringify(seen));
    seen.reduce((last, one) => {
      assert.ok(one.progress > last.progress, JSON.stringify(seen));
      return one;
    });
    assert.deepEqual([seen[0].total, seen[0].message], [4, 'step 1']);
    const notice = await peer.logged.find('the notice', one => JSON.stringify(one.data).includes('It begins.'));
    assert.equal(notice.level, 'info');
  });

  test('two questions of one call are asked one after the other', async () => {
    peer.answer = params => {
      const [key, schema] = field(params);
      const choice = schema.oneOf?.find(one => one.title === 'two')?.const ?? schema.enum?.[1];
      return { action: 'accept', content: { [key]: schema.type === 'boolean' ? true : choice } };
    };
    const before = peer.asked.all.length;
    const steps = [];
    const result = await peer.call('show_ask', {}, { onprogress: one => steps.push(one.message) });
    assert.equal(said(result), 'yes, two');
    const asked = peer.asked.all.slice(before);
    assert.equal(asked.length, 2);
    assert.match(asked[0].message, /^Delete the VM\?/);
    assert.equal(field(asked[0])[1].type, 'boolean');
    assert.equal(asked[1].message, 'Which VM?');
    peer.answer = () => ({ action: 'decline' });
    assert.equal(said(await peer.call('show_ask')), 'nobody answered, none');
    peer.answer = () => ({ action: 'cancel' });
    assert.equal(said(await peer.call('show_ask')), 'nobody answered, none');
  });

  test('a cancel reaches the tool while it waits', async () => {
    const cancel = new AbortController();
    // The wait says so when it has begun.
    let begun;
    const waits = new Promise(done => { begun = done; });
    const call = peer.call('show_wait', { ms: 3_600_000 }, { signal: cancel.signal, onprogress: begun });
    call.catch(() => {});
    await within(DEADLINE, 'the wait begins', waits);
    cancel.abort(new Error('enough'));
    await assert.rejects(call);
    const deadline = Date.now() + DEADLINE;
    let told;
    do {
      told = said(await peer.call('show_cancelled'));
    } while (told !== '1 cancelled, 0 waiting' && Date.now() < deadline);
    assert.equal(told, '1 cancelled, 0 waiting');
  });

  test('a resource can be watched while it changes', async () => {
    const uri = 'pi-vers://status';
    const { resources } = await peer.listResources();
    assert.ok(resources.some(one => one.uri === uri), JSON.stringify(resources));
    const listening = await peer.listen({ resources: [uri] });
    await peer.call('show_status', { text: 'all is well' });
    await peer.changed.find('the status changed', one => one.method === 'notifications/resources/updated' && one.params.uri === uri);
    // The widget is a new resource.
    await peer.changed.find('the list changed', one => one.method === 'notifications/resources/list_changed');
    const { contents } = await peer.readResource(uri);
    assert.match(contents[0].text, /all is well/);
    const widget = (await peer.listResources()).resources.find(one => one.uri === 'pi-vers://widgets/showcase/showcase');
    assert.equal((await peer.readResource(widget.uri)).contents[0].text, 'all is well');
    await listening.close();
    await assert.rejects(peer.readResource('pi-vers://nothing'), error => [-32602, -32002].includes(error.code));
  });

  test('the client hears that there are other tools and prompts', async () => {
    const listening = await peer.listen({});
    for (const list of ['tools', 'prompts']) {
      await peer.call(`test_trigger_${list.slice(0, -1)}_change`);
      await peer.changed.find(`other ${list}`, one => one.method === `notifications/${list}/list_changed`);
    }
    await listening.close();
  });

  test('a command is a prompt, with completions and a question', async () => {
    const { prompts } = await peer.listPrompts();
    const names = prompts.map(prompt => prompt.name);
    assert.deepEqual(names, names.toSorted());
    assert.deepEqual(prompts.find(prompt => prompt.name === 'greet').arguments.map(one => one.name), ['arguments']);
    assert.deepEqual((await peer.complete('greet', 'an')).completion.values, ['anna', 'anton']);
    const greeting = await peer.getPrompt('greet', { arguments: 'anna' });
    assert.match(greeting.messages[0].content.text, /Hello, anna!/);
    peer.answer = params => ({ action: 'accept', content: { [field(params)[0]]: 'berta' } });
    const asked = await peer.getPrompt('greet', {});
    assert.match(asked.messages[0].content.text, /Hello, berta!/);
    peer.answer = () => ({ action: 'decline' });
    await assert.rejects(peer.getPrompt('no_such_prompt'), error => error.code === -32602);
  });
}
