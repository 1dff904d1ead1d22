#!/usr/bin/env python3
"""Prints the tables of characters at the end of tfm.h's [IMPL.TOKENIZER]: classes, small letters, bare letters.

    pip install unicodedata2==15.1.0
    python3 tools/unicode_table.py

Unicode 15.1 is what the reference engine uses; another version changes which characters are
letters, and with them token ids, so the script refuses one unless --any is given.

Encoding: each row is {first character, runs}. A run is one printable byte, class * 13 + length - 1,
for lengths 1 to 12; length code 12 means that two more bytes (low digit first, base 91) hold
length - 13. Values are written as bytes from '#' (35) on, with ' ' for a backslash and '!' for a
question mark, so that a C string holds them plainly. What no run covers is of class "other".

The two maps (to the small letter; to the first character of the canonical decomposition) have rows
of the same form. A run is three numbers: how many characters to skip from the end of the run before;
(count - 1) * 6 + (step - 1) * 3 + rise, for `count` characters that lie `step` apart and whose targets
lie `rise` apart; and how far the first target is from the last one of the run before (from `first`
in a row's first run), doubled, and less than 0 as the odd number below. Numbers are in base 45, low
digits first, 45 added to each that another follows. Small letters are those of Python's own tables,
where nothing changed from Unicode 14 to 15.1.
"""
import sys

try:
    import unicodedata2 as unicodedata
except ImportError:
    import unicodedata

SPACES = {*range(0x9, 0xE), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
CLASSES = "CLNMPS"                      # general category's first letter; white space is class 6
ROW = 96                                # bytes of runs per row, about


def char_class(c):
    if c in SPACES:
        return 6
    return CLASSES.find(unicodedata.category(chr(c))[0]) if unicodedata.category(chr(c))[0] in CLASSES else 0


def runs():
    """(first, length, class) of all characters, in order."""
    first, kind = 0, char_class(0)
    for c in range(1, 0x110001):
        k = char_class(c) if c < 0x110000 else -1
        if k != kind:
            yield first, c - first, kind
            first, kind = c, k


def digit(v):
    return {"\\": " ", "?": "!"}.get(chr(v + 35), chr(v + 35))


def encode(length, kind):
    out = ""
    while length:
        n = min(length, 13 + 91 * 91 - 1)
        if n <= 12:
            out += digit(kind * 13 + n - 1)
        else:
            out += digit(kind * 13 + 12) + digit((n - 13) % 91) + digit((n - 13) // 91)
        length -= n
    return out


def map_runs(pairs):
    """(first, count, step, first target, step of targets) of pairs in order."""
    i = 0
    while i < len(pairs):
        best = (0, 1, 0)
        for step in 1, 2:
            for rise in 0, 1, 2:
                n = 1
                while i + n < len(pairs) and pairs[i + n] == (pairs[i][0] + n * step, pairs[i][1] + n * rise):
                    n += 1
                best = max(best, (n, step, rise), key=lambda b: b[0])
        yield pairs[i][0], best[0], best[1], pairs[i][1], best[2]
        i += best[0]


def number(v):
    out = ""
    while v >= 45:
        out += digit(45 + v % 45)
        v //= 45
    return out + digit(v)


def map_rows(pairs):
    rows, first, text, at, to = [], 0, "", 0, 0
    for source, count, step, target, rise in map_runs(pairs):
        if len(text) > ROW or not text:
            if text:
                rows.append((first, text))
            first = at = to = source
            text = ""
        move = target - to
        text += number(source - at) + number((count - 1) * 6 + (step - 1) * 3 + rise)
        text += number(2 * move if move >= 0 else -2 * move - 1)
        at, to = source + (count - 1) * step + 1, target + (count - 1) * rise
    return rows + [(first, text)]


def class_rows():
    rows, first, text = [], 0, ""
    for at, length, kind in runs():
        if len(text) > ROW or kind == 0 and length > 200:
            if text:
                rows.append((first, text))
            first, text = at, ""
        if kind == 0 and not text and at:       # what no run covers is "other" anyway
            first = at + length
        else:
            text += encode(length, kind)
    return rows + [(first, text)] if text else rows


def show(name, rows):
    print("static const tfm__unicode_row %s[] = {" % name)
    print(",\n".join('    {0x%05x, "%s"}' % row for row in rows) + "\n};")
    print("%s: %d rows, %d bytes" % (name, len(rows), sum(len(t) for _, t in rows)), file=sys.stderr)


def main():
    if unicodedata.unidata_version != "15.1.0" and "--any" not in sys.argv:
        sys.exit("Unicode 15.1.0 wanted, this Python has " + unicodedata.unidata_version)
    characters = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    lower = {c: ord(chr(c).lower()[0]) for c in characters}
    bare = {c: ord(unicodedata.normalize("NFD", chr(c))[0]) for c in characters}
    size = lambda c: len(chr(c).encode())
    assert all(2 * size(to) <= 3 * size(c) for c in characters for to in (lower[c], bare[c], lower[bare[c]]))
    show("tfm__unicode", class_rows())
    show("tfm__unicode_lower", map_rows([(c, to) for c, to in lower.items() if c != to]))
    show("tfm__unicode_bare", map_rows([(c, to) for c, to in bare.items() if c != to]))


main()
