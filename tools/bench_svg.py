#!/usr/bin/env python3
"""Draws what bench measured as bars.

usage: python3 tools/bench_svg.py OUT.svg FILE.json...

Each FILE holds what `bench --json` or `bench --save` wrote, for models or for ops.
"""
import json
import os
import sys
from xml.sax.saxutils import escape

LABEL, BAR, VALUE, ROW, MARGIN = 330, 380, 190, 20, 12
STYLE = ("text{font:13px sans-serif;fill:#222;stroke:#fff;stroke-width:3px;paint-order:stroke}"
         ".h{font-weight:bold}.b{fill:#3a7ca5}.g{stroke:#bbb}")


def threads(row):
    return f"{row['threads']:.0f} thread{'s' if row['threads'] > 1 else ''}"


def model_bars(rows, test, key):
    return [(f"{r['model']} {r['type']}, {threads(r)}"
             + (f", {r['tokens']:.0f} tokens" if test == "prompt" else "")
             + (f", depth {r['depth']:.0f}" if r["depth"] else ""),
             r[key], f"{r[key]:.0f} %, {r['tokens_s']:.1f} tokens/s")
            for r in rows if r.get("test") == test and r.get(key) is not None]


def op_bars(rows, key):
    return [(f"{r['op']}, {threads(r)}", r[key], f"{r[key]:.2f}, {r['us']:.0f} \u00b5s")
            for r in rows if r.get(key) is not None]


def sections(rows):
    """Title, the value where a line is drawn, and bars: label, value, text."""
    return [
        ("Decoding: weights read, as % of a plain read of memory", 100, model_bars(rows, "decode", "read_percent")),
        ("Prompts: arithmetic, as % of the CPU's peak", 100, model_bars(rows, "prompt", "peak_percent")),
        ("Ops: times as fast as PyTorch", 1, op_bars(rows, "pytorch_ratio")),
        ("Ops: times as fast as OpenBLAS", 1, op_bars(rows, "openblas_ratio")),
    ]


def draw(rows):
    out, y = [], MARGIN + ROW
    cpus = sorted({r["cpu"] for r in rows if r.get("cpu")})
    for title, line, bars in sections(rows):
        if not bars:
            continue
        scale = BAR / max(line, max(value for _, value, _ in bars))
        out.append(f'<text class="h" x="{MARGIN}" y="{y}">{escape(title)}</text>')
        y += ROW / 2
        out.append(f'<path class="g" d="M{LABEL + line * scale:.1f} {y}v{ROW * len(bars)}"/>')
        for label, value, text in bars:
            out.append(f'<text x="{LABEL - 6}" y="{y + 14}" text-anchor="end">{escape(label)}</text>')
            out.append(f'<rect class="b" x="{LABEL}" y="{y + 3}" width="{max(value * scale, 0.5):.1f}" height="14"/>')
            out.append(f'<text x="{LABEL + value * scale + 6:.1f}" y="{y + 14}">{escape(text)}</text>')
            y += ROW
        y += 2 * ROW
    out.append(f'<text x="{MARGIN}" y="{y}">{escape("; ".join(cpus))}</text>')
    width, height = LABEL + BAR + VALUE, y + MARGIN
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:.0f}">',
                      f"<style>{STYLE}</style>", '<rect width="100%" height="100%" fill="#fff"/>', *out, "</svg>", ""])


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: python3 tools/bench_svg.py OUT.svg FILE.json...")
    rows = []
    for path in sys.argv[2:]:
        with open(path, encoding="utf-8") as f:
            rows += json.load(f)
    part = sys.argv[1] + ".part"
    with open(part, "w", encoding="utf-8") as f:
        f.write(draw(rows))
    os.replace(part, sys.argv[1])


main()
