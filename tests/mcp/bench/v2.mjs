// The no-op of the benchmarks on the TypeScript SDK's v2 line, which speaks both eras.

import { McpServer } from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';

await serveStdio(() => {
  const server = new McpServer({ name: 'v2', version: '0' });
  server.registerTool('noop', { description: 'Does nothing.' }, () => ({ content: [{ type: 'text', text: 'ok' }] }));
  return server;
});
