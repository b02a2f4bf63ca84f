"""Runs builds on VMs, shows their output, and remembers how they ended."""

import codecs
import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.description import Command, ExtensionInfo, Hints, Tool
from wit_world.imports import process, shell, store, types, ui

SHOWN = 16 * 1024  # bytes of output that are shown: its end
KEY = "builds"  # where builds are remembered
NONE = {"ok": 0, "failed": 0, "last": None}

BUILD = {
    "type": "object",
    "properties": {
        "vm": {"type": "string", "minLength": 1, "description": "The VM's id"},
        "command": {
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "description": "Program and arguments",
        },
    },
    "required": ["vm", "command"],
    "additionalProperties": False,
}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}


def counts(builds):
    return f"{builds['ok']} ok, {builds['failed']} failed"


def words(builds):
    return counts(builds) + (f"; last: {builds['last']}" if builds["last"] else "")


def read(stored):
    return json.loads(stored) if stored is not None else dict(NONE)


async def record(ok, last):
    """Counts one more, again if another call did meanwhile."""
    while True:
        before = await store.get(KEY)
        builds = read(before)
        builds["ok" if ok else "failed"] += 1
        builds["last"] = last
        if await store.swap(KEY, before, json.dumps(builds)):
            return builds


def show_status(text):
    ui.set_status("build", [types.Span(text, types.Role.NORMAL, False, False)])


def result(text, details=None):
    shown = json.dumps(details) if details is not None else None
    return types.ToolResult([types.Content_Text(text)], shown, None)


def end_of(text):
    """The end of a text, whole characters."""
    encoded = text.encode()
    return text if len(encoded) <= SHOWN else encoded[-SHOWN:].decode(errors="ignore")


async def build(call, arguments):
    line = " ".join(arguments["command"])
    show_status(f"building: {line}")
    command = process.Command(
        process.Program_Argv(arguments["command"]), [], None, None, process.OutputMode.MERGED
    )
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    output, length = "", 0
    # Released at any end of this block, it stops what runs.
    with await shell.spawn(arguments["vm"], command, None) as child:
        with child.stdout() as stdout:
            while not stdout.writer_dropped:
                chunk = await stdout.read(64 * 1024)
                if not chunk:
                    continue
                length += len(chunk)
                output = end_of(output + decode(chunk))
                call.update([types.Content_Text(output)], None)
        output = end_of(output + decode(b"", True))
        end = await child.wait()
    code = end.value if isinstance(end, process.Exit_Code) else None
    how = f"signal {end.value}" if code is None else f"exit {code}"
    builds = await record(code == 0, f"{line}: {how}")
    show_status(f"builds: {counts(builds)}")
    said = result(f"{how}, {length} bytes\n{output}", {"code": code, "bytes": length})
    if code != 0:
        raise Err(types.ToolError_Failed(said))
    return said


async def run(call):
    match call.tool():
        case "build_run":
            return await build(call, json.loads(call.arguments()))
        case "build_status":
            return result(words(read(await store.get(KEY))))
        case name:
            raise Err(types.Error_NotFound(f"There is no tool {name}."))


class Tools(exports.Tools):
    async def run(self, call):
        # An exception that is none of the contract would end the instance, and every other call with it.
        try:
            with call:
                return await run(call)
        except Err as why:
            match why.value:
                case types.ToolError_Failed():
                    raise
                case types.Error_Cancelled():
                    raise Err(types.ToolError_Cancelled())
                case error:
                    raise Err(types.ToolError_Capability(error))
        except Exception as why:
            raise Err(types.ToolError_Failed(result(f"{type(why).__name__}: {why}")))


class Commands(exports.Commands):
    async def run(self, name, arguments):
        match arguments.strip():
            case "":
                ui.notify(words(read(await store.get(KEY))), ui.Severity.INFO)
            case "reset":
                await store.delete(KEY)
            case _:
                raise Err(types.Error_Invalid("Say /builds, or /builds reset."))

    async def complete(self, name, prefix):
        return []


class Description(exports.Description):
    def describe(self):
        return ExtensionInfo(
            name="build-watch",
            version="0.1.0",
            summary="Runs builds on VMs and remembers how they ended",
            tools=[
                Tool(
                    name="build_run",
                    label="Run a build",
                    description="Runs a build on a VM, shows its output meanwhile, and remembers how it ended.",
                    parameters=json.dumps(BUILD),
                    output=None,
                    hints=Hints.OPEN_WORLD | Hints.LONG_RUNNING,
                    only_replaces=False,
                ),
                Tool(
                    name="build_status",
                    label="Builds so far",
                    description="Tells how many builds succeeded and failed, and how the last one ended.",
                    parameters=json.dumps(NOTHING),
                    output=None,
                    hints=Hints.READ_ONLY | Hints.IDEMPOTENT,
                    only_replaces=False,
                ),
            ],
            commands=[Command("builds", "Shows how the builds went", "[reset]")],
            shortcuts=[],
            flags=[],
            subscriptions=[],
            topics=[],
        )
