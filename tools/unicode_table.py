#!/usr/bin/env python3
"""Prints the table of character classes at the end of tfm.h's [IMPL.TOKENIZER].

    pip install unicodedata2==15.1.0
    python3 tools/unicode_table.py

Unicode 15.1 is what the reference engine uses; another version changes which characters are
letters, and with them token ids, so the script refuses one unless --any is given.

Encoding: each row is {first character, runs}. A run is one printable byte, class * 13 + length - 1,
for lengths 1 to 12; length code 12 means that two more bytes (low digit first, base 91) hold
length - 13. Values are written as bytes from '#' (35) on, with ' ' for a backslash and '!' for a
question mark, so that a C string holds them plainly. What no run covers is of class "other".
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


def main():
    if unicodedata.unidata_version != "15.1.0" and "--any" not in sys.argv:
        sys.exit("Unicode 15.1.0 wanted, this Python has " + unicodedata.unidata_version)
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
    if text:
        rows.append((first, text))
    for first, text in rows:
        print('    {0x%05x, "%s"},' % (first, text))
    print("%d rows, %d bytes" % (len(rows), sum(len(t) for _, t in rows)), file=sys.stderr)


main()
