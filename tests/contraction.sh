#!/bin/sh
# The header forbids the compiler to fuse a*b + c inside itself; the user's code after it keeps its
# own setting. x86-64 only: looks for the fused instruction.
# usage: sh tests/contraction.sh COMPILER DIR
cat > "$2/contraction.c" <<'CODE'
#define TFM_IMPLEMENTATION
#define TFM_STATIC
#include "tfm.h"
float fused(float a, float b, float c) { return a * b + c; }
CODE
"$1" -O2 -mfma -ffp-contract=fast -I. -S "$2/contraction.c" -o "$2/contraction.s" || exit 1
sed -n '/^fused:/,/ret/p' "$2/contraction.s" | grep -q vfmadd && exit 0
echo "$1: a*b + c after tfm.h is not fused"
exit 1
