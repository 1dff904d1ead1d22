"""GGUF metadata as a dictionary {key: (type, value)}; an array's value is (element type, list)."""
import struct

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def read_meta(path):
    """{key: (type, value)}; an array's value is (element type, list)."""
    data, at = open(path, "rb").read(), 24

    def take(code):
        nonlocal at
        value = struct.unpack_from("<" + code, data, at)[0]
        at += struct.calcsize(code)
        return value

    def string():
        nonlocal at
        n = take("Q")
        at += n
        return data[at - n:at]

    def value(kind):
        if kind == 8:
            return string()
        if kind == 9:
            element, n = take("I"), take("Q")
            return element, [value(element) for _ in range(n)]
        return take(SCALARS[kind])

    meta = {}
    for _ in range(struct.unpack_from("<Q", data, 16)[0]):
        key, kind = string().decode(), take("I")
        meta[key] = (kind, value(kind))
    return meta


def write_meta(path, meta):
    def string(s):
        return struct.pack("<Q", len(s)) + s

    def value(kind, v):
        if kind == 8:
            return string(v)
        if kind == 9:
            return struct.pack("<IQ", v[0], len(v[1])) + b"".join(value(v[0], x) for x in v[1])
        return struct.pack("<" + SCALARS[kind], v)

    with open(path, "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, 0, len(meta)))
        for key, (kind, v) in meta.items():
            f.write(string(key.encode()) + struct.pack("<I", kind) + value(kind, v))
