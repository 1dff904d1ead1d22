"""Makes the fixture of tests/test_types.c, tests/data/types.gguf, from vectors of quantization:

    make_types.py QUANT

QUANT: a folder with rows.f32 (rows of 256 floats) and per type TYPE.bin (the rows encoded by
llama.cpp's reference quantizers) and TYPE.f32 (those bytes decoded), TYPE in lower case. The
fixture holds some of the rows: tensor `rows`, and per type `TYPE` and `TYPE.f32`.
"""
import os
import struct
import sys

ROWS = [0, 5, 10, 20, 29, 31, 38, 40, 45, 46, 50, 59]   # of every kind: see rows.json beside them
TYPES = [("F16", 1, 512), ("BF16", 30, 512), ("Q8_0", 8, 272), ("Q4_0", 2, 144), ("Q4_1", 3, 160),
         ("Q5_0", 6, 176), ("Q5_1", 7, 192), ("Q2_K", 10, 84), ("Q3_K", 11, 110), ("Q4_K", 12, 144),
         ("Q5_K", 13, 176), ("Q6_K", 14, 210), ("IQ4_NL", 20, 144)]


def rows_of(path, row_bytes):
    with open(path, "rb") as f:
        data = f.read()
    return b"".join(data[r * row_bytes:(r + 1) * row_bytes] for r in ROWS)


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def main(quant, out):
    tensors = [("rows", 0, rows_of(os.path.join(quant, "rows.f32"), 1024))]
    for name, number, row_bytes in TYPES:
        path = os.path.join(quant, name.lower())
        tensors.append((name, number, rows_of(path + ".bin", row_bytes)))
        if number not in (1, 30):                       # halves are tested against their definition
            tensors.append((name + ".f32", 0, rows_of(path + ".f32", 1024)))
    directory, data = b"", b""
    for name, number, content in tensors:
        directory += text(name) + struct.pack("<IQQIQ", 2, 256, len(ROWS), number, len(data))
        data += content + bytes(-len(content) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 1)
    head += text("general.license") + struct.pack("<I", 8) + text("made by our own scripts; use it freely")
    head += directory
    with open(out, "wb") as f:
        f.write(head + bytes(-len(head) % 32) + data)


main(sys.argv[1], os.path.join(os.path.dirname(__file__), "..", "..", "tests", "data", "types.gguf"))
