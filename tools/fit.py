#!/usr/bin/env python3
"""Coefficients of the polynomials in tfm.h [KERNELS.MATH]; needs numpy.

Each is a near-minimax fit: weighted least squares on Chebyshev points, the weights driven by the
remaining error (Lawson's iteration), then rounded to f32.   python3 tools/fit.py
"""
import math
import numpy as np


def fit(f, lo, hi, degree, weight=lambda x: np.ones_like(x), rounds=400):
    x = (lo + hi) / 2 + (hi - lo) / 2 * np.cos(np.pi * (np.arange(4000) + 0.5) / 4000)
    y, w, v = f(x), weight(x), np.ones_like(x)
    a = np.vander((2 * x - lo - hi) / (hi - lo), degree + 1, increasing=True)
    for _ in range(rounds):
        s = np.sqrt(v)
        c = np.linalg.lstsq(a * (s * w)[:, None], y * s * w, rcond=None)[0]
        e = np.abs(a @ c - y) * w
        v *= e / e.max() + 1e-6
        v /= v.sum()
    p = np.polynomial.Polynomial(c, [lo, hi]).convert(domain=[-1, 1], window=[-1, 1]).coef
    return p, e.max()


def show(name, p, error):
    print(f"{name}: error {error:.2e}")
    print("   ", ", ".join(f"{np.float32(c):.9g}f" for c in p))


half = math.log(2) / 2
# e^r = 1 + (r + r^2 p(r)), |r| <= ln 2 / 2. expm1 by series near 0.
def p_exp(r):
    small = 0.5 + r / 6 + r**2 / 24 + r**3 / 120 + r**4 / 720
    with np.errstate(all="ignore"):
        return np.where(np.abs(r) < 1e-3, small, (np.expm1(r) - r) / r**2)
show("exp p4", *fit(p_exp, -half * 1.001, half * 1.001, 4, lambda r: r**2 + 1e-12))

erf = np.vectorize(math.erf)
erfc = np.vectorize(math.erfc)
# erf(x) = x + x q(x^2), x^2 <= 0.88
def q_erf(s):
    x = np.sqrt(s)
    return erf(x) / x - 1
show("erf q, s = x^2 in [0, 0.88]", *fit(q_erf, 1e-12, 0.88, 6))
# erf(t) = 1 - e^(-t g(t)), t in [0.93, 4]
def g_erf(t):
    return -np.log(erfc(t)) / t
show("erf g", *fit(g_erf, 0.93, 4.0, 7, lambda t: t * erfc(t)))
