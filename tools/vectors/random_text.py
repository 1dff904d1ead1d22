"""Nasty random text: words, digits, punctuation, white space of all kinds, marks, emoji, rare planes."""
WORDS = ["the", "Hello", "don't", "I'LL", "we've", "x1y2", "camelCase", "HTTPServer", "na\u00efve", "stra\u00dfe",
         "\u0130stanbul", "\u0441\u043b\u043e\u0432\u043e", "\u4e2d\u6587\u5b57", "\u3072\u3089\u304c",
         "\uac00\ub098\ub2e4",
         "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
         "\u0645\u0631\u062d\u0628\u0627",
         "e\u0301a\u0300", "\ufb01ne", "\u01c5ep", "1234567", "12", "3.14159",
         "\u0663\u0664\u0665", "\u00bd\u2460\u216b",
         "http://a.b/c?d=e", "foo_bar(baz);", "/* x */", "'s", "'Twas", "\U0001f600",
         "\U0001f468\u200d\U0001f469", "\U00020000"]
SPACES = [" ", " ", " ", "", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "\u00a0", "\u3000", "\u2028",
          "\u0085", "\u200b"]
SIGNS = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + ["\u2026", "\u3002", "\u00ab", "\u20ac", "\u00b7", "\u2581", "..."]
RANGES = [(0x20, 0x7f), (0x20, 0x7f), (0xa0, 0x250), (0x250, 0x600), (0x600, 0x1000), (0x1000, 0x2000),
          (0x2000, 0x2c00),
          (0x2c00, 0x3400), (0x4e00, 0xa000), (0xa000, 0xac00), (0xac00, 0xd7a4), (0xe000, 0x10000), (0x10000, 0x20000),
          (0x1d400, 0x1f700), (0x20000, 0x32000), (0xe0000, 0xe01f0), (1, 0x20)]


def random_text(rng):
    parts = []
    for _ in range(rng.randrange(1, 14)):
        kind = rng.randrange(6)
        if kind < 2:
            parts.append(rng.choice(WORDS))
        elif kind == 2:
            parts.append(rng.choice(SIGNS) * rng.choice([1, 1, 2, 3]))
        elif kind == 3:
            low, high = rng.choice(RANGES)
            parts.append("".join(chr(rng.randrange(low, high)) for _ in range(rng.randrange(1, 5))))
        elif kind == 4:
            parts.append("".join(rng.choice("0123456789") for _ in range(rng.randrange(1, 9))))
        else:
            parts.append("".join(rng.choice("aAbBzZeE'sStT\u00e9\u00c9") for _ in range(rng.randrange(1, 6))))
        parts.append(rng.choice(SPACES))
    return "".join(parts)
