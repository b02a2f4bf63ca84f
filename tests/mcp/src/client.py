"""The official Python client, in both eras and on both transports: the scenario of clients.test.mjs.

Usage: client.py SETUP, a JSON file: {"stdio": {command, args, env, cwd}, "urls": [...]}. Runs with unittest, so that nothing that was
left out looks green.
"""

import asyncio
import json
import sys
import unittest
import warnings
from contextlib import asynccontextmanager

from mcp import Client, StdioServerParameters
from mcp.shared.exceptions import MCPError
from mcp.types import ElicitResult

# Nothing that is waited for takes so long, on a busy machine either.
DEADLINE = 60

SETUP = {}


class Seen:
    """What came in, and a way to wait for more."""

    def __init__(self):
        self.all = []
        self.news = asyncio.Event()

    def push(self, one):
        self.all.append(one)
        self.news.set()

    async def find(self, fits):
        async with asyncio.timeout(DEADLINE):
            while True:
                self.news.clear()
                for one in self.all:
                    if fits(one):
                        return one
                await self.news.wait()


class Peer:
    def __init__(self):
        self.asked, self.logged, self.messages = [], Seen(), Seen()
        self.answer = lambda params: ElicitResult(action="decline")

    @asynccontextmanager
    async def connected(self, mode, transport):
        async def elicit(_context, params):
            self.asked.append(params)
            return self.answer(params)

        async def log(params):
            self.logged.push(params)

        async def message(one):
            self.messages.push(getattr(one, "root", one))

        stdio = SETUP["stdio"]
        server = SETUP["url"] if transport == "http" else StdioServerParameters(
            command=stdio["command"], args=stdio["args"], env=stdio["env"], cwd=stdio["cwd"]
        )
        async with Client(
            server,
            mode=mode,
            elicitation_callback=elicit,
            logging_callback=log,
            message_handler=message,
            log_level=None if mode == "legacy" else "info",
            read_timeout_seconds=DEADLINE,
        ) as self.client:
            self.modern = mode != "legacy"
            if not self.modern:
                await self.client.set_logging_level("info")
            yield self


def said(result):
    return "\n".join(block.text for block in result.content)


def accept(choose):
    """Accepts with what `choose` makes of the one field's schema."""

    def answer(params):
        schema = params.requested_schema
        schema = schema if isinstance(schema, dict) else schema.model_dump(by_alias=True)
        ((key, field),) = schema["properties"].items()
        return ElicitResult(action="accept", content={key: choose(field)})

    return answer


def second(field):
    if field["type"] == "boolean":
        return True
    titled = [one["const"] for one in field.get("oneOf") or [] if one["title"] == "two"]
    return titled[0] if titled else field["enum"][1]


async def scenario(test, mode, transport):
    peer = Peer()
    async with peer.connected(mode, transport):
        client = peer.client
        test.assertEqual(client.protocol_version, "2025-11-25" if mode == "legacy" else "2026-07-28")
        test.assertEqual(client.server_info.name, "pi-vers")
        test.assertIn("vers_bash", client.instructions)

        tools = (await client.list_tools()).tools
        names = [tool.name for tool in tools]
        test.assertEqual(names, sorted(names))
        test.assertEqual([tool.name for tool in (await client.list_tools()).tools], names)
        by_name = {tool.name: tool for tool in tools}
        test.assertTrue(by_name["show_add"].annotations.read_only_hint)
        test.assertTrue(by_name["show_ask"].annotations.destructive_hint)
        test.assertEqual(by_name["show_add"].output_schema["required"], ["sum"])

        test.assertEqual(said(await client.call_tool("noop", {})), "ok")
        added = await client.call_tool("show_add", {"a": 1, "b": 2.5})
        test.assertEqual(added.structured_content, {"sum": 3.5})
        test.assertEqual(added.meta["pi-vers/details"], {"from": [1, 2.5]})
        picture = await client.call_tool("show_picture", {})
        test.assertEqual([block.type for block in picture.content], ["text", "image"])
        test.assertIsNone(picture.structured_content)

        failed = await client.call_tool("show_fail", {"text": "no such thing"})
        test.assertEqual((failed.is_error, said(failed)), (True, "no such thing"))
        wrong = await client.call_tool("show_add", {"a": "x"})
        test.assertTrue(wrong.is_error)
        test.assertIn("do not fit", said(wrong))
        with test.assertRaises(MCPError) as unknown:
            await client.call_tool("no_such_tool", {})
        test.assertEqual(unknown.exception.code, -32602)

        steps = []

        async def progress(done, total, message):
            steps.append((done, total, message))

        test.assertEqual(said(await client.call_tool("show_steps", {"steps": 4}, progress_callback=progress)), "4 steps")
        test.assertGreaterEqual(len(steps), 3, steps)
        test.assertTrue(all(one[0] < two[0] for one, two in zip(steps, steps[1:])), steps)
        test.assertEqual(steps[0][1:], (4, "step 1"))
        notice = await peer.logged.find(lambda one: "It begins." in json.dumps(one.data))
        test.assertEqual(notice.level, "info")

        peer.answer = accept(second)
        test.assertEqual(said(await client.call_tool("show_ask", {})), "yes, two")
        test.assertRegex(peer.asked[0].message, r"^Delete the VM\?")
        test.assertEqual([one.message for one in peer.asked[1:]], ["Which VM?"])
        peer.answer = lambda params: ElicitResult(action="cancel")
        test.assertEqual(said(await client.call_tool("show_ask", {})), "nobody answered, none")

        begun = asyncio.Event()

        async def waits(*_):
            begun.set()

        call = asyncio.create_task(client.call_tool("show_wait", {"ms": 3_600_000}, progress_callback=waits))
        async with asyncio.timeout(DEADLINE):
            await begun.wait()
            call.cancel()
            with test.assertRaises(asyncio.CancelledError):
                await call
            told = ""
            while told != "1 cancelled, 0 waiting":
                told = said(await client.call_tool("show_cancelled", {}))

        uri = "pi-vers://status"
        test.assertIn(uri, [str(one.uri) for one in (await client.list_resources()).resources])
        if peer.modern:
            async with client.listen(resources_list_changed=True, resource_subscriptions=[uri]) as changes:
                await client.call_tool("show_status", {"text": "all is well"})
                kinds = set()
                async with asyncio.timeout(DEADLINE):
                    async for change in changes:
                        kinds.add(type(change).__name__)
                        if kinds == {"ResourceUpdated", "ResourcesListChanged"}:
                            break
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                await client.subscribe_resource(uri)
            await client.call_tool("show_status", {"text": "all is well"})
            await peer.messages.find(lambda one: type(one).__name__ == "ResourceUpdatedNotification")
            await peer.messages.find(lambda one: type(one).__name__ == "ResourceListChangedNotification")
        test.assertIn("all is well", (await client.read_resource(uri)).contents[0].text)
        with test.assertRaises(MCPError):
            await client.read_resource("pi-vers://nothing")

        prompts = [prompt.name for prompt in (await client.list_prompts()).prompts]
        test.assertIn("greet", prompts)
        greeting = await client.get_prompt("greet", {"arguments": "anna"})
        test.assertRegex(greeting.messages[0].content.text, "Hello, anna!")
        peer.answer = accept(lambda _: "berta")
        asked = await client.get_prompt("greet", {})
        test.assertRegex(asked.messages[0].content.text, "Hello, berta!")


class PythonClient(unittest.IsolatedAsyncioTestCase):
    pass


def add(mode, transport):
    async def run(self):
        await scenario(self, mode, transport)

    setattr(PythonClient, f"test_{mode}_{transport}", run)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as setup:
        SETUP.update(json.load(setup))
    for era in ("auto", "legacy"):
        for way in SETUP["transports"]:
            add(era, way)
    unittest.main(argv=sys.argv[:1], verbosity=2)
