// The no-op of the benchmarks on the TypeScript SDK's v1 line, without its comforts: the fast way to write it.

import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import { CallToolRequestSchema, ListToolsRequestSchema } from '@modelcontextprotocol/sdk/types.js';

const server = new Server({ name: 'v1', version: '0' }, { capabilities: { tools: {} } });
const tools = [{ name: 'noop', description: 'Does nothing.', inputSchema: { type: 'object', properties: {} } }];
server.setRequestHandler(ListToolsRequestSchema, () => ({ tools }));
server.setRequestHandler(CallToolRequestSchema, () => ({ content: [{ type: 'text', text: 'ok' }] }));
await server.connect(new StdioServerTransport());
