/**
 * Lines of the protocol as text of the harness: in the colours of its theme, or plain where there is none.
 *
 * Control characters are shown, not obeyed: the text may come from a VM, and a terminal obeys more than colours.
 */
import type { Line, Role, Span } from "./protocol.mjs";
import type { Component, Theme } from "./pi.mjs";
import { isObject } from "./wire.mjs";

/** The names that all themes of pi and punkin-pi have. `normal` is the terminal's own. */
const COLORS: Record<Exclude<Role, "normal">, string> = {
  accent: "accent",
  muted: "muted",
  dim: "dim",
  success: "success",
  warning: "warning",
  error: "error",
};

/** One line; without a theme it has no colours. */
export function paint(line: Line, theme?: Theme): string {
  return line.map((span) => paintSpan(span, visible(span.text), theme)).join("");
}

function paintSpan(span: Span, text: string, theme: Theme | undefined): string {
  if (theme === undefined || text === "") return text;
  let painted = text;
  if (span.strikethrough === true) painted = theme.strikethrough?.(painted) ?? painted;
  if (span.bold === true) painted = theme.bold(painted);
  const color = span.role === undefined || span.role === "normal" ? undefined : COLORS[span.role];
  return color === undefined ? painted : theme.fg(color, painted);
}

/** Control characters as the pictures that Unicode has for them. A tab is four spaces. */
export function visible(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, (character) => {
    const code = character.charCodeAt(0);
    if (character === "\t") return "    ";
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    return code === 0x7f ? "\u2421" : "\ufffd";
  });
}

/** The same for text of several lines. */
export function visibleText(text: string): string {
  return text.split("\n").map(visible).join("\n");
}

/** The `lines` of a tool result's or message's details, if that is what they are. */
export function linesOf(details: unknown): Line[] | undefined {
  if (!isObject(details) || !Array.isArray(details["lines"])) return undefined;
  const lines: unknown[] = details["lines"];
  const isLine = (line: unknown): line is Line =>
    Array.isArray(line) && line.every((span: unknown) => isObject(span) && typeof span["text"] === "string");
  return lines.every(isLine) ? lines : undefined;
}

/** A component that shows lines, broken where they are wider than the screen. */
export function linesComponent(lines: Line[], theme: Theme): Component {
  let made: { width: number; rows: string[] } | undefined;
  return {
    render(width: number): string[] {
      if (made?.width !== width) made = { width, rows: lines.flatMap((line) => wrap(line, width, theme)) };
      return made.rows;
    },
    invalidate() {
      made = undefined;
    },
  };
}

const graphemes = new Intl.Segmenter(undefined, { granularity: "grapheme" });

/** The rows of a line. The harness refuses a row that is too wide, so widths are rather over- than underestimated. */
function wrap(line: Line, width: number, theme: Theme): string[] {
  const rows: string[] = [];
  let row = "";
  let used = 0;
  for (const span of line) {
    let text = "";
    for (const { segment } of graphemes.segment(visible(span.text))) {
      const columns = columnsOf(segment);
      if (used > 0 && used + columns > width) {
        rows.push(row + paintSpan(span, text, theme));
        row = "";
        text = "";
        used = 0;
      }
      text += segment;
      used += columns;
    }
    row += paintSpan(span, text, theme);
  }
  rows.push(row);
  return rows;
}

/** At least the columns that a terminal gives to a grapheme. */
function columnsOf(grapheme: string): number {
  let columns = 0;
  for (const character of grapheme) {
    const code = character.codePointAt(0) ?? 0;
    if (code === 0xfe0f) return 2;
    if (/\p{Mn}|\p{Cf}/u.test(character)) continue;
    columns += code < 0x1100 ? 1 : 2;
  }
  return columns;
}
