import assert from "node:assert/strict";
import { test } from "node:test";
import { LineReader, decode, encode } from "../src/wire.mjs";

test("lines are whole however the chunks are cut, characters too", () => {
  const text = '{"a":"é€😀"}\n\n{"b":"\u2028"}\n';
  const bytes = Buffer.from(text);
  for (let size = 1; size <= bytes.length; size++) {
    const reader = new LineReader();
    const lines: string[] = [];
    for (let at = 0; at < bytes.length; at += size) lines.push(...reader.push(bytes.subarray(at, at + size)));
    assert.deepEqual(lines, ['{"a":"é€😀"}', "", '{"b":"\u2028"}'], `chunks of ${size}`);
  }
});

test("a line that is too long is an error, whether its end has come or not", () => {
  assert.throws(() => new LineReader(4).push(Buffer.from("12345")), { code: "limit" });
  assert.throws(() => new LineReader(4).push(Buffer.from("12345\n")), { code: "limit" });
  assert.deepEqual(new LineReader(4).push(Buffer.from("1234\n1234\n")), ["1234", "1234"]);
});

test("what is no frame is an error", () => {
  for (const line of ["nonsense", "[]", "null", "1", "{}", '{"t":1}']) assert.throws(() => decode(line), { code: "invalid" });
  assert.equal(decode("  "), undefined);
  assert.deepEqual(decode('{"t":"unheard-of"}'), { t: "unheard-of" });
});

test("half a surrogate pair goes as U+FFFD, and what only looks like one stays", () => {
  const said = (text: string) => (JSON.parse(encode({ text }).toString()) as { text: string }).text;
  assert.equal(said("a\ud800\ud801b\udc00"), "a\ufffd\ufffdb\ufffd");
  assert.equal(said("\\ud800 \\\\udfff 😀"), "\\ud800 \\\\udfff 😀");
  assert.ok(!encode({ text: "\ud800" }).toString().includes("\\ud"));
});

test("a frame that is too long is refused before it is sent", () => {
  assert.throws(() => encode({ text: "12345" }, 10), { code: "limit" });
  assert.equal(encode({ a: 1 }, 7).toString(), '{"a":1}\n');
});
