#!/usr/bin/env python3
"""Prints what `evaluate MODEL --against ORIGINAL` finds, computed with numpy and the gguf package.

usage: python3 tools/vectors/tensor_errors.py MODEL.gguf ORIGINAL.gguf      (pip install gguf numpy)

One line per tensor, the last one for all weights: name, RMS of the errors as a part of the
original's RMS, largest error, signal-to-noise ratio in dB. tests/cli.sh holds the last line for
the shipped tiny model and its Q4_0.
"""
import sys

import numpy
from gguf import GGUFReader
from gguf.quants import dequantize


def tensors(path):
    return {t.name: dequantize(t.data, t.tensor_type).astype(numpy.float64) for t in GGUFReader(path).tensors}


def line(name, errors, squares, largest):
    relative = (errors / squares) ** 0.5
    print(f"{name} {relative:.4g} {largest:.4g} {-20 * numpy.log10(relative) if relative else numpy.inf:.2f}")


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: python3 tools/vectors/tensor_errors.py MODEL.gguf ORIGINAL.gguf")
    model, original = map(tensors, sys.argv[1:])
    sums = []
    for name, x in model.items():
        error = x - original[name]
        sums.append(((error ** 2).sum(), (original[name] ** 2).sum(), abs(error).max()))
        line(name, *sums[-1])
    errors, squares, largest = zip(*sums)
    line("all", sum(errors), sum(squares), max(largest))


main()
