// Runs builds on VMs, shows their output, and remembers how they ended.

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "build_watch.h"

typedef build_watch_string_t string;
typedef vers_harness_types_error_t error;

#define SHOWN (16 * 1024) // bytes of output that are shown: its end
#define CHUNK (64 * 1024) // bytes that are read at a time
#define KEY "builds"      // where builds are remembered: [ok, failed, "last"]

// ---- text

typedef struct {
  uint8_t *ptr;
  size_t len, room;
} text;

static void add(text *t, const void *bytes, size_t len) {
  if (t->len + len > t->room) {
    t->room = 2 * t->room + len;
    t->ptr = realloc(t->ptr, t->room);
    if (!t->ptr) abort();
  }
  memcpy(t->ptr + t->len, bytes, len);
  t->len += len;
}

static void say(text *t, const char *words) { add(t, words, strlen(words)); }

static void say_number(text *t, uint64_t n) {
  char digits[20];
  size_t at = sizeof digits;
  do digits[--at] = (char)('0' + n % 10);
  while (n /= 10);
  add(t, digits + at, sizeof digits - at);
}

// As a string: whoever gets it frees it, or the text stays its owner.
static string give(text t) { return (string){t.ptr, t.len}; }

static string dup(const char *words) {
  string s;
  build_watch_string_dup(&s, words);
  return s;
}

static bool is(string s, const char *words) { return s.len == strlen(words) && !memcmp(s.ptr, words, s.len); }

// ---- UTF-8 out of bytes that come in pieces; what is none is replaced

typedef struct {
  uint8_t held[4], len, wanted, low, high;
} decoder;

static const char REPLACED[] = "\xef\xbf\xbd";

static void decode(decoder *d, const uint8_t *bytes, size_t len, text *out) {
  for (size_t i = 0; i < len; i++) {
    uint8_t b = bytes[i];
    if (d->wanted && b >= d->low && b <= d->high) {
      d->held[d->len++] = b;
      d->low = 0x80, d->high = 0xbf;
      if (--d->wanted == 0) add(out, d->held, d->len);
      continue;
    }
    if (d->wanted) say(out, REPLACED);
    d->len = 0, d->low = 0x80, d->high = 0xbf;
    d->wanted = b >= 0xc2 && b <= 0xdf ? 1 : b >= 0xe0 && b <= 0xef ? 2 : b >= 0xf0 && b <= 0xf4 ? 3 : 0;
    if (b == 0xe0) d->low = 0xa0;
    if (b == 0xed) d->high = 0x9f;
    if (b == 0xf0) d->low = 0x90;
    if (b == 0xf4) d->high = 0x8f;
    if (d->wanted) d->held[d->len++] = b;
    else if (b < 0x80) add(out, &b, 1);
    else say(out, REPLACED);
  }
}

// The end of a text, whole characters.
static void keep_end(text *t) {
  if (t->len <= SHOWN) return;
  size_t from = t->len - SHOWN;
  while (from < t->len && (t->ptr[from] & 0xc0) == 0x80) from++;
  t->len -= from;
  memmove(t->ptr, t->ptr + from, t->len);
}

// ---- JSON, as much as there is of it here. The host has checked what it gives.

typedef struct {
  const uint8_t *at, *end;
} reader;

static uint8_t peek(reader *r) {
  while (r->at < r->end && strchr(" \t\r\n", *r->at)) r->at++;
  return r->at < r->end ? *r->at : 0;
}

static bool take(reader *r, uint8_t c) {
  if (peek(r) != c) return false;
  r->at++;
  return true;
}

static uint32_t hex4(reader *r) {
  uint32_t n = 0;
  for (int i = 0; i < 4 && r->at < r->end; i++) {
    uint8_t c = *r->at++;
    n = n << 4 | (c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
  }
  return n;
}

static text read_text(reader *r) {
  text t = {0};
  take(r, '"');
  while (r->at < r->end && *r->at != '"') {
    uint8_t c = *r->at++;
    if (c == '\\' && r->at < r->end) {
      c = *r->at++;
      uint32_t n = c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c == 'b' ? '\b' : c == 'f' ? '\f' : c == 'u' ? hex4(r) : c;
      if (n >= 0xd800 && n < 0xdc00 && r->end - r->at >= 6) {
        r->at += 2;
        n = 0x10000 + ((n - 0xd800) << 10) + (hex4(r) - 0xdc00);
      }
      uint8_t bytes[4] = {0};
      int len = n < 0x80 ? 1 : n < 0x800 ? 2 : n < 0x10000 ? 3 : 4;
      for (int i = len - 1; i > 0; i--, n >>= 6) bytes[i] = 0x80 | (n & 0x3f);
      bytes[0] = (uint8_t)(n | (const uint8_t[]){0, 0, 0xc0, 0xe0, 0xf0}[len]);
      add(&t, bytes, (size_t)len);
    } else add(&t, &c, 1);
  }
  take(r, '"');
  return t;
}

static uint64_t read_number(reader *r) {
  uint64_t n = 0;
  peek(r);
  while (r->at < r->end && *r->at >= '0' && *r->at <= '9') n = 10 * n + (*r->at++ - '0');
  return n;
}

static void write_text(text *out, string s) {
  say(out, "\"");
  for (size_t i = 0; i < s.len; i++) {
    uint8_t c = s.ptr[i];
    if (c == '"' || c == '\\') say(out, "\\");
    if (c >= 0x20) add(out, &c, 1);
    else {
      say(out, c < 0x10 ? "\\u000" : "\\u001");
      add(out, &"0123456789abcdef"[c & 15], 1);
    }
  }
  say(out, "\"");
}

// ---- what is remembered

typedef struct {
  uint64_t ok, failed;
  text last;
} builds;

static bool read_builds(builds *b, vers_system_store_option_json_t *stored, error *err) {
  string key = {(uint8_t *)KEY, strlen(KEY)};
  *b = (builds){0};
  if (!vers_system_store_get(&key, stored, err)) return false;
  if (!stored->is_some) return true;
  reader r = {stored->val.ptr, stored->val.ptr + stored->val.len};
  take(&r, '[');
  b->ok = read_number(&r);
  take(&r, ',');
  b->failed = read_number(&r);
  take(&r, ',');
  b->last = read_text(&r);
  return true;
}

static void counts(text *out, const builds *b) {
  say_number(out, b->ok);
  say(out, " ok, ");
  say_number(out, b->failed);
  say(out, " failed");
}

static bool words(text *out, error *err) {
  builds b;
  vers_system_store_option_json_t stored;
  if (!read_builds(&b, &stored, err)) return false;
  counts(out, &b);
  if (stored.is_some) {
    say(out, "; last: ");
    add(out, b.last.ptr, b.last.len);
  }
  free(b.last.ptr);
  vers_system_store_option_json_free(&stored);
  return true;
}

static void show_status(text *shown) {
  string key = {(uint8_t *)"build", 5};
  vers_harness_types_span_t span = {.text = give(*shown), .role = VERS_HARNESS_TYPES_ROLE_NORMAL};
  vers_harness_ui_line_t line = {&span, 1};
  vers_harness_ui_set_status(&key, &line);
}

// Counts one more, again if somebody else did meanwhile.
static bool record(bool ok, string last, error *err) {
  string key = {(uint8_t *)KEY, strlen(KEY)};
  for (bool done = false; !done;) {
    builds b;
    vers_system_store_option_json_t stored;
    if (!read_builds(&b, &stored, err)) return false;
    if (ok) b.ok++;
    else b.failed++;
    text after = {0};
    say(&after, "[");
    say_number(&after, b.ok);
    say(&after, ",");
    say_number(&after, b.failed);
    say(&after, ",");
    write_text(&after, last);
    say(&after, "]");
    string new = give(after);
    bool held = vers_system_store_swap(&key, stored.is_some ? &stored.val : NULL, &new, &done, err);
    if (held && done) {
      text shown = {0};
      say(&shown, "builds: ");
      counts(&shown, &b);
      show_status(&shown);
      free(shown.ptr);
    }
    free(after.ptr);
    free(b.last.ptr);
    vers_system_store_option_json_free(&stored);
    if (!held) return false;
  }
  return true;
}

// ---- tools

static void answer(vers_harness_types_tool_result_t *result, text said) {
  *result = (vers_harness_types_tool_result_t){0};
  result->content.ptr = malloc(sizeof *result->content.ptr);
  result->content.len = 1;
  result->content.ptr[0].tag = VERS_HARNESS_TYPES_CONTENT_TEXT;
  result->content.ptr[0].val.text = give(said);
}

// The next bytes; none at the end. Gives way where there is nothing to wait for: who only computes is ended after a while.
static size_t read_some(vers_system_process_stream_u8_t from, uint8_t *buffer) {
  for (;;) {
    build_watch_waitable_status_t status = vers_system_process_stream_u8_read(from, buffer, CHUNK);
    if (status == BUILD_WATCH_WAITABLE_STATUS_BLOCKED) {
      build_watch_waitable_set_t set = build_watch_waitable_set_new();
      build_watch_event_t event;
      build_watch_waitable_join(from, set);
      build_watch_waitable_set_wait(set, &event);
      build_watch_waitable_join(from, 0);
      build_watch_waitable_set_drop(set);
      status = event.code;
    } else build_watch_thread_yield();
    if (BUILD_WATCH_WAITABLE_COUNT(status)) return BUILD_WATCH_WAITABLE_COUNT(status);
    if (BUILD_WATCH_WAITABLE_STATE(status) != BUILD_WATCH_WAITABLE_COMPLETED) return 0;
  }
}

static void show(vers_harness_call_borrow_tool_call_t call, text *output) {
  vers_harness_types_content_t block = {.tag = VERS_HARNESS_TYPES_CONTENT_TEXT, .val.text = give(*output)};
  vers_harness_call_list_content_t content = {&block, 1};
  vers_harness_call_method_tool_call_update(call, &content, NULL);
}

// Runs it; says how it ended and whether it failed.
static bool build(vers_harness_call_borrow_tool_call_t call, string vm, build_watch_list_string_t command, vers_harness_types_tool_result_t *result,
                  bool *failed, error *err) {
  text line = {0}, shown = {0};
  for (size_t i = 0; i < command.len; i++) {
    if (i) say(&line, " ");
    add(&line, command.ptr[i].ptr, command.ptr[i].len);
  }
  say(&shown, "building: ");
  add(&shown, line.ptr, line.len);
  show_status(&shown);
  free(shown.ptr);

  vers_platform_shell_command_t wanted = {0};
  wanted.program.tag = VERS_SYSTEM_PROCESS_PROGRAM_ARGV;
  wanted.program.val.argv = command;
  wanted.output = VERS_SYSTEM_PROCESS_OUTPUT_MODE_MERGED;
  vers_system_process_own_child_t owned;
  vers_system_process_stream_u8_t out;
  vers_system_process_exit_t end;
  text output = {0};
  uint64_t bytes = 0;
  bool ran = vers_platform_shell_spawn(&vm, &wanted, NULL, &owned, err);
  if (ran) {
    vers_system_process_borrow_child_t child = vers_system_process_borrow_child(owned);
    ran = vers_system_process_method_child_stdout(child, &out, err);
    if (ran) {
      uint8_t *buffer = malloc(CHUNK);
      decoder d = {0};
      for (size_t len; (len = read_some(out, buffer));) {
        bytes += len;
        decode(&d, buffer, len, &output);
        keep_end(&output);
        show(call, &output);
      }
      if (d.wanted) say(&output, REPLACED);
      keep_end(&output);
      free(buffer);
      vers_system_process_stream_u8_drop_readable(out);
      ran = vers_system_process_method_child_wait(child, &end, err);
    }
    // Stops what still runs.
    vers_system_process_child_drop_own(owned);
  }
  if (ran) {
    bool exited = end.tag == VERS_SYSTEM_PROCESS_EXIT_CODE;
    *failed = !exited || end.val.code != 0;
    text how = {0}, said = {0}, details = {0};
    say(&how, exited ? "exit " : "signal ");
    if (exited) say_number(&how, (uint64_t)end.val.code);
    else add(&how, end.val.signal.ptr, end.val.signal.len);
    add(&said, how.ptr, how.len);
    say(&said, ", ");
    say_number(&said, bytes);
    say(&said, " bytes\n");
    add(&said, output.ptr, output.len);
    say(&details, "{\"code\":");
    if (exited) say_number(&details, (uint64_t)end.val.code);
    else say(&details, "null");
    say(&details, ",\"bytes\":");
    say_number(&details, bytes);
    say(&details, "}");
    say(&line, ": ");
    add(&line, how.ptr, how.len);
    free(how.ptr);
    vers_system_process_exit_free(&end);
    answer(result, said);
    result->details.is_some = true;
    result->details.val = give(details);
    ran = record(!*failed, give(line), err);
    if (!ran) vers_harness_types_tool_result_free(result);
  }
  free(line.ptr);
  free(output.ptr);
  return ran;
}

// Reads {"vm": …, "command": […]}.
static bool build_run(vers_harness_call_borrow_tool_call_t call, vers_harness_types_tool_result_t *result, bool *failed, error *err) {
  string arguments;
  vers_harness_call_method_tool_call_arguments(call, &arguments);
  reader r = {arguments.ptr, arguments.ptr + arguments.len};
  text vm = {0};
  build_watch_list_string_t command = {0};
  take(&r, '{');
  do {
    text name = read_text(&r);
    bool is_vm = is(give(name), "vm");
    free(name.ptr);
    take(&r, ':');
    if (is_vm) vm = read_text(&r);
    else {
      take(&r, '[');
      do {
        command.ptr = realloc(command.ptr, (command.len + 1) * sizeof *command.ptr);
        command.ptr[command.len++] = give(read_text(&r));
      } while (take(&r, ','));
      take(&r, ']');
    }
  } while (take(&r, ','));
  build_watch_string_free(&arguments);
  bool ran = build(call, give(vm), command, result, failed, err);
  free(vm.ptr);
  build_watch_list_string_free(&command);
  return ran;
}

bool exports_vers_harness_tools_run(vers_harness_call_own_tool_call_t owned, vers_harness_types_tool_result_t *result,
                                    vers_harness_types_tool_error_t *end) {
  vers_harness_call_borrow_tool_call_t call = vers_harness_call_borrow_tool_call(owned);
  string name;
  vers_harness_call_method_tool_call_tool(call, &name);
  error err;
  bool ran, failed = false;
  if (is(name, "build_run")) ran = build_run(call, result, &failed, &err);
  else if (is(name, "build_status")) {
    text said = {0};
    ran = words(&said, &err);
    if (ran) answer(result, said);
  } else {
    ran = false;
    err.tag = VERS_HARNESS_TYPES_ERROR_NOT_FOUND;
    err.val.not_found = dup("There is no such tool.");
  }
  build_watch_string_free(&name);
  vers_harness_call_tool_call_drop_own(owned);
  if (!ran && err.tag == VERS_HARNESS_TYPES_ERROR_CANCELLED) end->tag = VERS_HARNESS_TYPES_TOOL_ERROR_CANCELLED;
  else if (!ran) {
    end->tag = VERS_HARNESS_TYPES_TOOL_ERROR_CAPABILITY;
    end->val.capability = err;
  } else if (failed) {
    end->tag = VERS_HARNESS_TYPES_TOOL_ERROR_FAILED;
    end->val.failed = *result;
  }
  return ran && !failed;
}

// ---- the command

bool exports_vers_harness_commands_run(string *name, string *arguments, error *err) {
  bool ran = true;
  if (arguments->len == 0) {
    text said = {0};
    ran = words(&said, err);
    string message = give(said);
    if (ran) vers_harness_ui_notify(&message, VERS_HARNESS_UI_SEVERITY_INFO);
    free(said.ptr);
  } else if (is(*arguments, "reset")) {
    string key = {(uint8_t *)KEY, strlen(KEY)};
    ran = vers_system_store_delete(&key, err);
  } else {
    ran = false;
    err->tag = VERS_HARNESS_TYPES_ERROR_INVALID;
    err->val.invalid = dup("Say /builds, or /builds reset.");
  }
  build_watch_string_free(name);
  build_watch_string_free(arguments);
  return ran;
}

void exports_vers_harness_commands_complete(string *name, string *prefix, exports_vers_harness_commands_list_completion_t *ret) {
  build_watch_string_free(name);
  build_watch_string_free(prefix);
  *ret = (exports_vers_harness_commands_list_completion_t){0};
}

// ---- what it offers

void exports_vers_harness_description_describe(exports_vers_harness_description_extension_info_t *info) {
  *info = (exports_vers_harness_description_extension_info_t){0};
  info->name = dup("build-watch");
  info->version = dup("0.1.0");
  info->summary = dup("Runs builds on VMs and remembers how they ended");

  exports_vers_harness_description_tool_t *tools = calloc(2, sizeof *tools);
  tools[0].name = dup("build_run");
  tools[0].label = dup("Run a build");
  tools[0].description = dup("Runs a build on a VM, shows its output meanwhile, and remembers how it ended.");
  tools[0].parameters = dup("{\"type\":\"object\",\"properties\":{"
                            "\"vm\":{\"type\":\"string\",\"minLength\":1,\"description\":\"The VM's id\"},"
                            "\"command\":{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"minItems\":1,\"description\":\"Program and arguments\"}},"
                            "\"required\":[\"vm\",\"command\"],\"additionalProperties\":false}");
  tools[0].hints = EXPORTS_VERS_HARNESS_DESCRIPTION_HINTS_OPEN_WORLD | EXPORTS_VERS_HARNESS_DESCRIPTION_HINTS_LONG_RUNNING;
  tools[1].name = dup("build_status");
  tools[1].label = dup("Builds so far");
  tools[1].description = dup("Tells how many builds succeeded and failed, and how the last one ended.");
  tools[1].parameters = dup("{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}");
  tools[1].hints = EXPORTS_VERS_HARNESS_DESCRIPTION_HINTS_READ_ONLY | EXPORTS_VERS_HARNESS_DESCRIPTION_HINTS_IDEMPOTENT;
  info->tools.ptr = tools;
  info->tools.len = 2;

  info->commands.ptr = calloc(1, sizeof *info->commands.ptr);
  info->commands.len = 1;
  info->commands.ptr[0].name = dup("builds");
  info->commands.ptr[0].description = dup("Shows how the builds went");
  info->commands.ptr[0].arguments.is_some = true;
  info->commands.ptr[0].arguments.val = dup("[reset]");
}
