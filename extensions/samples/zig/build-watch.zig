// Runs builds on VMs, shows their output, and remembers how they ended.

const std = @import("std");
const c = @import("bindings");

const Allocator = std.mem.Allocator;
const String = c.build_watch_string_t;

const shown = 16 * 1024; // bytes of output that are shown: its end
const chunk = 64 * 1024; // bytes that are read at a time

// A panic ends the instance without a word: words would need an operating system.
pub const panic = std.debug.no_panic;

// ---- what goes over the border

/// As a string of C's, which has to last as long as it is used.
fn lent(words: []const u8) String {
    return .{ .ptr = @constCast(words.ptr), .len = words.len };
}

/// A copy that the bindings free.
fn given(words: []const u8) String {
    var string: String = undefined;
    c.build_watch_string_dup_n(&string, words.ptr, words.len);
    return string;
}

fn slice(string: String) []const u8 {
    return if (string.len == 0) "" else string.ptr[0..string.len];
}

/// Room that the bindings free: it has to be C's.
fn room(comptime T: type, len: usize) []T {
    const made = std.c.calloc(len, @sizeOf(T)) orelse @panic("out of memory");
    return @as([*]T, @ptrCast(@alignCast(made)))[0..len];
}

const Failure = error{ Refused, OutOfMemory };

/// One call: what it needs of memory ends with it, and why it was refused is here.
const Call = struct {
    arena: std.heap.ArenaAllocator = .init(std.heap.c_allocator),
    refused: c.vers_harness_types_error_t = undefined,

    fn allocator(call: *Call) Allocator {
        return call.arena.allocator();
    }

    fn print(call: *Call, comptime format: []const u8, arguments: anytype) ![]u8 {
        return std.fmt.allocPrint(call.allocator(), format, arguments);
    }

    /// What an import said: `refused` has its error.
    fn held(_: *Call, went: bool) Failure!void {
        if (!went) return error.Refused;
    }

    fn not_found(call: *Call, why: []const u8) Failure {
        call.refused = .{ .tag = c.VERS_HARNESS_TYPES_ERROR_NOT_FOUND, .val = .{ .not_found = given(why) } };
        return error.Refused;
    }

    fn invalid(call: *Call, why: []const u8) Failure {
        call.refused = .{ .tag = c.VERS_HARNESS_TYPES_ERROR_INVALID, .val = .{ .invalid = given(why) } };
        return error.Refused;
    }

    /// JSON of a shape that is known.
    fn read(call: *Call, comptime T: type, text: []const u8) Failure!T {
        return std.json.parseFromSliceLeaky(T, call.allocator(), text, .{ .allocate = .alloc_always }) catch |why| switch (why) {
            error.OutOfMemory => error.OutOfMemory,
            else => call.invalid("That is not what was expected here."),
        };
    }
};

// ---- what is remembered

const Builds = struct {
    ok: u64 = 0,
    failed: u64 = 0,
    last: ?[]const u8 = null,

    const key = "builds";

    /// What is stored, and what that means.
    const Stored = struct { text: ?[]const u8, builds: Builds };

    fn stored(call: *Call) Failure!Stored {
        var name = lent(key);
        var found: c.vers_system_store_option_json_t = undefined;
        try call.held(c.vers_system_store_get(&name, &found, &call.refused));
        if (!found.is_some) return .{ .text = null, .builds = .{} };
        defer c.vers_system_store_option_json_free(&found);
        const text = try call.allocator().dupe(u8, slice(found.val));
        return .{ .text = text, .builds = try call.read(Builds, text) };
    }

    fn counts(builds: Builds, call: *Call) ![]const u8 {
        return call.print("{d} ok, {d} failed", .{ builds.ok, builds.failed });
    }

    fn words(builds: Builds, call: *Call) ![]const u8 {
        const last = builds.last orelse return builds.counts(call);
        return call.print("{d} ok, {d} failed; last: {s}", .{ builds.ok, builds.failed, last });
    }

    /// Counts one more, again if somebody else did meanwhile.
    fn record(call: *Call, ok: bool, last: []const u8) Failure!void {
        var done = false;
        while (!done) {
            const before = try stored(call);
            var after = before.builds;
            if (ok) after.ok += 1 else after.failed += 1;
            after.last = last;
            var name = lent(key);
            var old = lent(before.text orelse "");
            var new = lent(try std.json.Stringify.valueAlloc(call.allocator(), after, .{}));
            try call.held(c.vers_system_store_swap(&name, if (before.text == null) null else &old, &new, &done, &call.refused));
            if (done) show_status(try call.print("builds: {s}", .{try after.counts(call)}));
        }
    }
};

fn show_status(words: []const u8) void {
    var key = lent("build");
    var span = std.mem.zeroInit(c.vers_harness_types_span_t, .{ .text = lent(words) });
    var line: c.vers_harness_ui_line_t = .{ .ptr = &span, .len = 1 };
    c.vers_harness_ui_set_status(&key, &line);
}

// ---- output

/// The end of what came, in bytes, and how many there were.
const Output = struct {
    bytes: [shown + 3]u8 = undefined,
    len: usize = 0,
    total: u64 = 0,

    fn add(output: *Output, more: []const u8) void {
        output.total += more.len;
        const new = more[more.len -| output.bytes.len..];
        const old = @min(output.len, output.bytes.len - new.len);
        std.mem.copyForwards(u8, output.bytes[0..old], output.bytes[output.len - old .. output.len]);
        @memcpy(output.bytes[old..][0..new.len], new);
        output.len = old + new.len;
    }

    /// As text: whole characters, and what is none is replaced. While more may come, one that has only begun is left out.
    fn text(output: *const Output, allocator: Allocator, ended: bool) ![]const u8 {
        const bytes = output.bytes[0..output.len];
        const whole = if (ended) bytes else bytes[0 .. bytes.len - begun(bytes)];
        const all = try std.fmt.allocPrint(allocator, "{f}", .{std.unicode.fmtUtf8(end(whole))});
        return end(all);
    }

    /// The end of a text, from where a character begins.
    fn end(all: []const u8) []const u8 {
        if (all.len <= shown) return all;
        var from = all.len - shown;
        while (from < all.len and all[from] & 0xc0 == 0x80) from += 1;
        return all[from..];
    }

    /// How many bytes at the end begin a character that is not whole.
    fn begun(bytes: []const u8) usize {
        for (1..@min(3, bytes.len) + 1) |back| {
            const first = bytes[bytes.len - back];
            if (first & 0xc0 == 0x80) continue;
            const whole = std.unicode.utf8ByteSequenceLength(first) catch return 0;
            return if (whole > back) back else 0;
        }
        return 0;
    }
};

/// The next bytes; none at the end. Gives way where there is nothing to wait for: who only computes is ended after a while.
fn read_some(from: c.vers_system_process_stream_u8_t, buffer: []u8) []const u8 {
    while (true) {
        var status = c.vers_system_process_stream_u8_read(from, buffer.ptr, buffer.len);
        if (status == std.math.maxInt(u32)) {
            const set = c.build_watch_waitable_set_new();
            var event: c.build_watch_event_t = undefined;
            c.build_watch_waitable_join(from, set);
            c.build_watch_waitable_set_wait(set, &event);
            c.build_watch_waitable_join(from, 0);
            c.build_watch_waitable_set_drop(set);
            status = event.code;
        } else c.build_watch_thread_yield();
        // Its low four bits say whether the other side is gone, the others how many bytes there are.
        const len = status >> 4;
        if (len > 0) return buffer[0..len];
        if (status & 0xf != c.BUILD_WATCH_WAITABLE_COMPLETED) return "";
    }
}

// ---- tools

const Tool = c.vers_harness_call_borrow_tool_call_t;
const Result = c.vers_harness_types_tool_result_t;

/// What a tool says: `details` are JSON.
fn answer(words: []const u8, details: ?[]const u8) Result {
    const blocks = room(c.vers_harness_types_content_t, 1);
    blocks[0] = .{ .tag = c.VERS_HARNESS_TYPES_CONTENT_TEXT, .val = .{ .text = given(words) } };
    var result = std.mem.zeroes(Result);
    result.content = .{ .ptr = blocks.ptr, .len = blocks.len };
    if (details) |json| result.details = .{ .is_some = true, .val = given(json) };
    return result;
}

fn update(tool: Tool, words: []const u8) void {
    var block: c.vers_harness_types_content_t = .{ .tag = c.VERS_HARNESS_TYPES_CONTENT_TEXT, .val = .{ .text = lent(words) } };
    var content: c.vers_harness_call_list_content_t = .{ .ptr = &block, .len = 1 };
    c.vers_harness_call_method_tool_call_update(tool, &content, null);
}

const Ended = struct { result: Result, failed: bool };

fn build_run(call: *Call, tool: Tool) Failure!Ended {
    var arguments: String = undefined;
    c.vers_harness_call_method_tool_call_arguments(tool, &arguments);
    defer c.build_watch_string_free(&arguments);
    const wanted = try call.read(struct { vm: []const u8, command: []const []const u8 }, slice(arguments));
    const line = try std.mem.join(call.allocator(), " ", wanted.command);
    show_status(try call.print("building: {s}", .{line}));

    const argv = try call.allocator().alloc(String, wanted.command.len);
    for (argv, wanted.command) |*to, word| to.* = lent(word);
    var vm = lent(wanted.vm);
    var command = std.mem.zeroes(c.vers_platform_shell_command_t);
    command.program = .{ .tag = c.VERS_SYSTEM_PROCESS_PROGRAM_ARGV, .val = .{ .argv = .{ .ptr = argv.ptr, .len = argv.len } } };
    command.output = c.VERS_SYSTEM_PROCESS_OUTPUT_MODE_MERGED;
    var owned: c.vers_system_process_own_child_t = undefined;
    try call.held(c.vers_platform_shell_spawn(&vm, &command, null, &owned, &call.refused));
    // Stops what still runs.
    defer c.vers_system_process_child_drop_own(owned);
    const child = c.vers_system_process_borrow_child(owned);

    var out: c.vers_system_process_stream_u8_t = undefined;
    try call.held(c.vers_system_process_method_child_stdout(child, &out, &call.refused));
    const output = try call.allocator().create(Output);
    output.* = .{};
    {
        defer c.vers_system_process_stream_u8_drop_readable(out);
        const buffer = try call.allocator().alloc(u8, chunk);
        var scratch: std.heap.ArenaAllocator = .init(std.heap.c_allocator);
        defer scratch.deinit();
        while (true) {
            const some = read_some(out, buffer);
            if (some.len == 0) break;
            output.add(some);
            update(tool, try output.text(scratch.allocator(), false));
            _ = scratch.reset(.retain_capacity);
        }
    }

    var end: c.vers_system_process_exit_t = undefined;
    try call.held(c.vers_system_process_method_child_wait(child, &end, &call.refused));
    defer c.vers_system_process_exit_free(&end);
    const code: ?i32 = if (end.tag == c.VERS_SYSTEM_PROCESS_EXIT_CODE) end.val.code else null;
    const how = if (code) |number|
        try call.print("exit {d}", .{number})
    else
        try call.print("signal {s}", .{slice(end.val.signal)});
    const failed = code != 0;
    try Builds.record(call, !failed, try call.print("{s}: {s}", .{ line, how }));
    const said = try call.print("{s}, {d} bytes\n{s}", .{ how, output.total, try output.text(call.allocator(), true) });
    const details = .{ .code = code, .bytes = output.total };
    return .{ .result = answer(said, try std.json.Stringify.valueAlloc(call.allocator(), details, .{})), .failed = failed };
}

fn run(call: *Call, tool: Tool) Failure!Ended {
    var name: String = undefined;
    c.vers_harness_call_method_tool_call_tool(tool, &name);
    defer c.build_watch_string_free(&name);
    if (std.mem.eql(u8, slice(name), "build_run")) return build_run(call, tool);
    if (std.mem.eql(u8, slice(name), "build_status")) {
        const builds = (try Builds.stored(call)).builds;
        return .{ .result = answer(try builds.words(call), null), .failed = false };
    }
    return call.not_found("There is no such tool.");
}

export fn exports_vers_harness_tools_run(owned: c.vers_harness_call_own_tool_call_t, result: *Result, end: *c.vers_harness_types_tool_error_t) bool {
    var call: Call = .{};
    defer call.arena.deinit();
    defer c.vers_harness_call_tool_call_drop_own(owned);
    const ended = run(&call, c.vers_harness_call_borrow_tool_call(owned)) catch |why| {
        if (why == error.OutOfMemory) @panic("out of memory");
        if (call.refused.tag == c.VERS_HARNESS_TYPES_ERROR_CANCELLED)
            end.* = .{ .tag = c.VERS_HARNESS_TYPES_TOOL_ERROR_CANCELLED, .val = undefined }
        else
            end.* = .{ .tag = c.VERS_HARNESS_TYPES_TOOL_ERROR_CAPABILITY, .val = .{ .capability = call.refused } };
        return false;
    };
    if (ended.failed) {
        end.* = .{ .tag = c.VERS_HARNESS_TYPES_TOOL_ERROR_FAILED, .val = .{ .failed = ended.result } };
        return false;
    }
    result.* = ended.result;
    return true;
}

// ---- the command

fn builds_command(call: *Call, arguments: []const u8) Failure!void {
    if (arguments.len == 0) {
        var message = lent(try (try Builds.stored(call)).builds.words(call));
        return c.vers_harness_ui_notify(&message, c.VERS_HARNESS_UI_SEVERITY_INFO);
    }
    if (!std.mem.eql(u8, arguments, "reset")) return call.invalid("Say /builds, or /builds reset.");
    var key = lent(Builds.key);
    try call.held(c.vers_system_store_delete(&key, &call.refused));
}

export fn exports_vers_harness_commands_run(name: *String, arguments: *String, end: *c.vers_harness_types_error_t) bool {
    var call: Call = .{};
    defer call.arena.deinit();
    defer c.build_watch_string_free(name);
    defer c.build_watch_string_free(arguments);
    builds_command(&call, slice(arguments.*)) catch |why| {
        if (why == error.OutOfMemory) @panic("out of memory");
        end.* = call.refused;
        return false;
    };
    return true;
}

export fn exports_vers_harness_commands_complete(name: *String, prefix: *String, completions: *c.exports_vers_harness_commands_list_completion_t) void {
    c.build_watch_string_free(name);
    c.build_watch_string_free(prefix);
    completions.* = std.mem.zeroes(c.exports_vers_harness_commands_list_completion_t);
}

// ---- what it offers

export fn exports_vers_harness_description_describe(info: *c.exports_vers_harness_description_extension_info_t) void {
    const Described = c.exports_vers_harness_description_tool_t;
    const tools = room(Described, 2);
    tools[0] = std.mem.zeroInit(Described, .{
        .name = given("build_run"),
        .label = given("Run a build"),
        .description = given("Runs a build on a VM, shows its output meanwhile, and remembers how it ended."),
        .parameters = given(
            \\{"type":"object","properties":{"vm":{"type":"string","minLength":1,"description":"The VM's id"},
            \\"command":{"type":"array","items":{"type":"string"},"minItems":1,"description":"Program and arguments"}},
            \\"required":["vm","command"],"additionalProperties":false}
        ),
        .hints = c.EXPORTS_VERS_HARNESS_DESCRIPTION_HINTS_OPEN_WORLD | c.EXPORTS_VERS_HARNESS_DESCRIPTION_HINTS_LONG_RUNNING,
    });
    tools[1] = std.mem.zeroInit(Described, .{
        .name = given("build_status"),
        .label = given("Builds so far"),
        .description = given("Tells how many builds succeeded and failed, and how the last one ended."),
        .parameters = given(
            \\{"type":"object","properties":{},"additionalProperties":false}
        ),
        .hints = c.EXPORTS_VERS_HARNESS_DESCRIPTION_HINTS_READ_ONLY | c.EXPORTS_VERS_HARNESS_DESCRIPTION_HINTS_IDEMPOTENT,
    });
    const commands = room(c.exports_vers_harness_description_command_t, 1);
    commands[0] = .{
        .name = given("builds"),
        .description = given("Shows how the builds went"),
        .arguments = .{ .is_some = true, .val = given("[reset]") },
    };
    info.* = std.mem.zeroInit(c.exports_vers_harness_description_extension_info_t, .{
        .name = given("build-watch"),
        .version = given("0.1.0"),
        .summary = given("Runs builds on VMs and remembers how they ended"),
    });
    info.tools = .{ .ptr = tools.ptr, .len = tools.len };
    info.commands = .{ .ptr = commands.ptr, .len = commands.len };
}
