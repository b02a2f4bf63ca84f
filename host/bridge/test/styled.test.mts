import assert from "node:assert/strict";
import { test } from "node:test";
import type { Theme } from "../src/pi.mjs";
import { linesComponent, linesOf, paint } from "../src/styled.mjs";

const theme: Theme = {
  fg: (color, text) => `<${color}>${text}</>`,
  bold: (text) => `<b>${text}</>`,
  strikethrough: (text) => `<s>${text}</>`,
};

test("roles are the theme's colours; without a theme the text is plain", () => {
  const line = [{ text: "a", role: "success" as const }, { text: "b" }, { text: "c", bold: true, strikethrough: true }];
  assert.equal(paint(line, theme), "<success>a</>b<b><s>c</></>");
  assert.equal(paint(line), "abc");
});

test("control characters are shown, not obeyed", () => {
  assert.equal(paint([{ text: "\u001b[2Ja\tb\u0007\u009b\u007f\n" }]), "␛[2Ja    b␇\ufffd␡␊");
});

test("details are lines only where all of them are", () => {
  assert.deepEqual(linesOf({ lines: [[{ text: "a" }]] }), [[{ text: "a" }]]);
  for (const details of [null, "x", { lines: "x" }, { lines: [["x"]] }, { lines: [[{ role: "dim" }]] }, []]) {
    assert.equal(linesOf(details), undefined);
  }
});

test("no row is wider than the screen, wide characters counted", () => {
  const text = "abc漢字😀👨‍👩‍👧é" + "x".repeat(50);
  for (const width of [2, 3, 10, 80]) {
    const rows = linesComponent([[{ text }], [], [{ text: "tail" }]], { fg: (_, t) => t, bold: (t) => t }).render(width);
    assert.equal(rows.join(""), `${text}tail`);
    for (const row of rows) {
      // Two columns for what is not of the first thousands of Unicode is what terminals give at most.
      const graphemes = [...new Intl.Segmenter().segment(row)].map(({ segment }) => segment);
      const columns = graphemes.reduce((sum, grapheme) => sum + ((grapheme.codePointAt(0) ?? 0) < 0x1100 ? 1 : 2), 0);
      assert.ok(columns <= width, `${columns} columns in ${width}: ${row}`);
    }
  }
});
