#!/bin/sh
# Runs commands that each close with "N passed, N failed" and closes with the sum.
# usage: sh tests/sum.sh COMMAND...
for command; do
    sh -c "$command" 2>&1
    echo "@status $?"
done | awk '
    /^[0-9]+ passed, [0-9]+ failed$/ { passed += $1; failed += $3; lost = $3; closed = 1; next }
    /^@status / {
        if (!closed || ($2 != 0 && lost == 0)) { failed++; print "FAIL a command ended with status " $2 }
        closed = lost = 0
        next
    }
    { print; fflush() }
    END { print passed + 0 " passed, " failed + 0 " failed"; exit failed > 0 }'
