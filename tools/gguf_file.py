"""Writes GGUF files; needs numpy only. For the scripts in this folder."""

import os
import struct

import numpy as np

TYPES = {"float32": 0, "float16": 1, "int32": 26}           # GGUF's numbers of tensor types
ARRAYS = {"float32": 6, "int32": 5, "bool": 7}              # and of metadata values


def _string(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def _value(v):
    """type number and bytes of a metadata value"""
    if isinstance(v, bool):
        return 7, struct.pack("<?", v)
    if isinstance(v, int):
        return 4, struct.pack("<I", v)
    if isinstance(v, float):
        return 6, struct.pack("<f", v)
    if isinstance(v, str):
        return 8, _string(v)
    if isinstance(v, np.ndarray):
        return 9, struct.pack("<IQ", ARRAYS[str(v.dtype)], v.size) + v.tobytes()
    return 9, struct.pack("<IQ", 8, len(v)) + b"".join(_string(s) for s in v)


def write_gguf(path, meta, tensors):
    """meta: key -> bool, int (u32), float, str, numpy array or list of str. tensors: name -> numpy array of
    float32, float16 or int32, outermost dimension first. The file is complete or absent."""
    directory, size = b"", 0
    for name, a in tensors.items():
        directory += _string(name) + struct.pack("<I", a.ndim)
        directory += struct.pack(f"<{a.ndim}Q", *a.shape[::-1]) + struct.pack("<IQ", TYPES[str(a.dtype)], size)
        size += a.nbytes + -a.nbytes % 32
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(meta))
    for key, v in meta.items():
        number, body = _value(v)
        head += _string(key) + struct.pack("<I", number) + body
    head += directory
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "wb") as f:
            f.write(head + bytes(-len(head) % 32))
            for a in tensors.values():
                f.write(np.ascontiguousarray(a).tobytes() + bytes(-a.nbytes % 32))
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.remove(part)
