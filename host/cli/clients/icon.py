#!/usr/bin/env python3
"""Draws plugin/icon.png: a line that branches, on two colours. Nothing but the standard library; the same bytes each time."""

import pathlib
import struct
import zlib

SIZE, LINE, DOT = 512, 26, 62
BACK, FRONT = (0x10, 0x18, 0x28), (0x7C, 0xE3, 0xB1)
ROOT, LEFT, RIGHT = (256, 400), (128, 128), (384, 128)
FORK = (256, 290)


def near(x, y, a, b):
    """The squared distance from the point to the line between a and b."""
    ax, ay, bx, by = *a, *b
    dx, dy = bx - ax, by - ay
    length = dx * dx + dy * dy
    at = max(0, min(length, (x - ax) * dx + (y - ay) * dy))
    return (x - ax - at * dx / length) ** 2 + (y - ay - at * dy / length) ** 2


def front(x, y):
    lines = any(near(x, y, *line) < LINE * LINE for line in ((ROOT, FORK), (FORK, LEFT), (FORK, RIGHT)))
    return lines or any((x - a) ** 2 + (y - b) ** 2 < DOT * DOT for a, b in (ROOT, LEFT, RIGHT))


def row(y):
    bits = "".join("1" if front(x + 0.5, y + 0.5) else "0" for x in range(SIZE))
    return b"\0" + int(bits, 2).to_bytes(SIZE // 8, "big")


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


PNG = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", SIZE, SIZE, 1, 3, 0, 0, 0))
    + chunk(b"PLTE", bytes(BACK + FRONT))
    + chunk(b"IDAT", zlib.compress(b"".join(map(row, range(SIZE))), 9))
    + chunk(b"IEND", b"")
)
pathlib.Path(__file__).with_name("plugin").joinpath("icon.png").write_bytes(PNG)
