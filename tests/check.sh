#!/bin/sh
# What `make check` runs: compilers, configurations, one answer from all builds, sanitizers,
# valgrind, firmware. One line per check; the last is "N passed, N failed". A tool that is missing
# fails its checks, but for those of the firmware.
# usage: sh tests/check.sh BUILD_DIR [PART_OF_A_NAME]       after `make`
build=$1 only=$2
dir=$build/check
mkdir -p "$dir" || exit 1
passed=0 failed=0
strict="-pedantic -Wall -Wextra -Wconversion -Wshadow -Wdouble-promotion -Werror -I. -Itools -Itests -I$dir"
models="examples/models/tiny-q8_0.gguf tests/data/tiny-gpt2.gguf"

# try NAME COMMAND...: passes if the command does; shows the beginning of what it printed otherwise.
# As many run at once as there are CPUs, each with a directory $work of its own; results come in order.
cpus=$(getconf _NPROCESSORS_ONLN)
running=
try() {
    name=$1
    shift
    case $name in *"$only"*) ;; *) return ;; esac
    work=$dir/$name
    mkdir -p "$work"
    "$@" > "$work/log" 2>&1 < /dev/null &
    running="$running $!:$name"
    [ "$(echo $running | wc -w)" -lt "$cpus" ] || settle 1
}
# settle N: waits for the first N of those that run, for all without N, and says how they ended
settle() {
    for job in $(echo $running | cut -d ' ' -f "1-${1-}"); do
        running=${running#" $job"}
        name=${job#*:}
        if wait "${job%%:*}"; then
            passed=$((passed + 1))
            echo "ok check.$name"
        else
            failed=$((failed + 1))
            head -n 20 "$dir/$name/log" | cut -c 1-200 | sed 's/^/  /'
            echo "FAIL check.$name"
        fi
    done
}

make -s "$dir/tests_list.h" BUILD="$dir" || exit 1

# ---- No warning, in C and C++ ----

contraction() { sh tests/contraction.sh "$1" "$work"; }

for cc in gcc clang; do
    try "warnings.$cc.c11" $cc -std=c11 -O2 $strict -c tests/tfm_impl.c -o "$dir/tfm-$cc.o"
    try "warnings.$cc.c++17" $cc -x c++ -std=c++17 -O2 $strict -c tests/tfm_impl.c -o "$dir/tfm-$cc-cxx.o"
    for file in examples/*.c tools/*.c tests/*.c; do
        case $file in */tfm_impl.c | */freestanding.c) continue ;; esac
        try "warnings.$cc.$file" $cc -std=c11 -O0 $strict -c "$file" -o /dev/null
    done
    try "contraction.$cc" contraction $cc
done
try "ndebug" gcc -std=c11 -O2 -DNDEBUG $strict -c tests/tfm_impl.c -o /dev/null

# ---- Configurations: each macro that leaves something out, all of them, several files ----

macros=$(sed -n 's/^   \(TFM_NO_[A-Z]*\) .*/\1/p' tfm.h)
try "configuration.listed" test "$(echo $macros | wc -w)" -ge 7
all=
for macro in $macros; do
    all="$all -D$macro"
    try "configuration.$macro" gcc -std=c11 -O1 $strict -D$macro -c tests/tfm_impl.c -o /dev/null
    try "configuration.$macro.c++" clang -x c++ -std=c++17 -O0 $strict -D$macro -c tests/tfm_impl.c -o /dev/null
done
object="-c tests/tfm_impl.c -o /dev/null"
try "configuration.only_types" gcc -std=c11 -O1 $strict -DTFM_ONLY_TYPES -DTFM_TYPE_Q8_0 $object
try "configuration.exact_fma" gcc -std=c11 -O1 $strict -DTFM_EXACT_FMA $object
try "configuration.all" gcc -std=c11 -O2 $strict $all -c tests/tfm_impl.c -o "$dir/small.o"
settle

# asks REGEX OBJECT: lists what the object asks for from outside that matches
asks() { nm -u "$2" | awk '{ print $NF }' | grep -xE "$1"; }
few() { ! asks '.*' "$dir/small.o" | grep -vxE "$1"; }
never() { ! asks "$1" "$dir/tfm-gcc.o"; }
no_variables() {
    gcc -O2 -fno-pie -fno-pic -I. -c tests/tfm_impl.c -o "$work/file.o" && ! nm "$work/file.o" | grep -E ' [bBdDcC] '
}
try "symbols.few" few 'mem(cpy|set|move|cmp|chr)|str(len|n?cmp|chr)|sqrtf?|_GLOBAL_OFFSET_TABLE_|__stack_chk_fail|__cpu_.*'
try "symbols.never_ends_or_prints" never 'abort|_?exit|_Exit|.*printf.*|f?put[sc]|std(out|err)|__assert.*|raise'
try "symbols.no_variables" no_variables

printf '#include "tfm.h"\nint main(void) {
    tfm_context *c = tfm_context_new(0, 0); tfm_context_free(c); return !c; }\n' > "$dir/use.c"
cp "$dir/use.c" "$dir/use.cc"
printf '#define TFM_STATIC\n#define TFM_IMPLEMENTATION\n#include "tfm.h"\nint %s(void) {
    tfm_context *c = tfm_context_new(0, 0); tfm_context_free(c); %s }\n' other "return !c;" > "$dir/static_a.c"
sed 's/^int other/int other(void);\nint main/; s/return !c/return !c + other()/' "$dir/static_a.c" > "$dir/static_b.c"
two_files() { "$@" -o "$work/two" -lm -pthread && "$work/two"; }
try "two_files.c" two_files gcc $strict "$dir/use.c" "$dir/tfm-gcc.o"
try "two_files.c++" two_files g++ $strict "$dir/use.cc" "$dir/tfm-gcc-cxx.o"
try "two_files.c++_and_c" two_files g++ $strict "$dir/use.cc" "$dir/tfm-gcc.o"
try "two_files.static" two_files gcc -std=c11 -O1 $strict "$dir/static_a.c" "$dir/static_b.c"

fast_math() { ! gcc -O2 -ffast-math -I. $object; }
try "fast_math.refused" fast_math
try "fast_math.allowed" gcc -O2 -ffast-math -DTFM_ALLOW_FAST_MATH -I. $object

# ---- One answer: the same bits from all builds and levels ----

# quiet COMMAND...: what it prints but for the tests that pass
quiet() { "$@" > "$work/result" || { grep -av '^ok' "$work/result"; return 1; }; }
# runner NAME COMPILER FLAG...: builds the tests as $dir/tests-NAME
runner() {
    out=$dir/tests-$1
    shift
    "$@" -I. -Itools -I"$dir" tests/tfm_impl.c tests/main.c tests/test_*.c -o "$out" -lm -pthread
}
answer() {
    runner "$@" && quiet "$dir/tests-$1" --quick --hash || return 1
    grep -a '^hash' "$work/result" | diff "$dir/hash-first" -
}
first() { runner first gcc -O2 && "$dir/tests-first" --quick --hash | grep -a '^hash' > "$dir/hash-first"; }
try "one_answer.gcc-O2" first
settle
try "one_answer.gcc-O0" answer gcc-O0 gcc -O0
try "one_answer.gcc-c11" answer gcc-c11 gcc -std=c11 -O2 -DNDEBUG
try "one_answer.gcc-O3" answer gcc-O3 gcc -O3 -march=native
try "one_answer.gcc-no-simd" answer gcc-no-simd gcc -O2 -DTFM_NO_SIMD
try "one_answer.clang-O0" answer clang-O0 clang -O0
try "one_answer.clang-O2" answer clang-O2 clang -O2
try "one_answer.clang-O3" answer clang-O3 clang -O3 -march=native
for level in FMA AVX2 AVXVNNI AVX512 AVX512VNNI; do
    for cc in gcc clang; do
        try "one_answer.$cc-$level" answer $cc-$level $cc -O2 -DTFM_LEVEL_MAX=TFM_LEVEL_$level
    done
done

levels() {
    for model in $models; do
        rm -f "$work"/logits*
        for level in auto exact fma avx2 avxvnni avx512 avx512vnni amx; do
            "$build/generate" --help | grep -q " $level$" || continue
            "$build/evaluate" "$model" --ids 1,2,3,4,5,6,7,8,9 --level $level --logits "$work/logits-$level" ||
                return 1
            [ -e "$work/logits" ] || cp "$work/logits-$level" "$work/logits"
            cmp "$work/logits" "$work/logits-$level" || return 1
        done
        "$build/evaluate" "$model" --ids 1,2,3 --greedy 1 --level unfused || return 1
    done
}
try "one_answer.levels" levels

# ---- Sanitizers and valgrind ----

export ASAN_OPTIONS=print_legend=0
sanitize="-g -fsanitize=address,undefined -fno-sanitize-recover=all"
sanitized() { runner "$1" $2 $sanitize $3 && quiet "$dir/tests-$1" $4; }
threads() { runner tsan clang -O1 -g -fsanitize=thread && quiet "$dir/tests-tsan" --quick threads; }
programs() { make -s testing BUILD="$dir/asan" CFLAGS="-O1 $sanitize" && quiet sh tests/cli.sh "$dir/asan"; }
try "sanitizers.gcc" sanitized asan gcc -O1
try "sanitizers.clang" sanitized clang-asan clang -O0 --quick       # -O1 takes clang ten minutes
try "sanitizers.threads" threads
try "sanitizers.programs" programs

leaks="--leak-check=full --show-leak-kinds=all --errors-for-leak-kinds=definite,indirect,possible"
valgrind="valgrind -q --error-exitcode=9 $leaks"
tiny=examples/models/tiny-q8_0.gguf
try "valgrind.tests" quiet $valgrind "$dir/tests-first" --quick
try "valgrind.generate" $valgrind "$build/generate" $tiny -p "Once" -n 8 -t 2
try "valgrind.evaluate" $valgrind "$build/evaluate" $tiny --ids 1,2,3 --logits "$dir/logits" --greedy 2
try "valgrind.perplexity" $valgrind "$build/evaluate" $tiny -p "Once upon a time there was" -c 4
try "valgrind.against" $valgrind "$build/evaluate" $tiny --against $tiny -p "Once upon a time there was" -c 4 --stride 2
try "valgrind.tokenize" $valgrind "$build/tokenize" tests/data/tok-llama-spm.gguf "Once upon a time"
try "valgrind.inspect" $valgrind "$build/inspect" $tiny --json
try "valgrind.quantize" $valgrind "$build/quantize" tests/data/tiny-llama.gguf "$dir/quantized" Q4_K_M
try "valgrind.bench" $valgrind "$build/bench" $tiny -p 4 -n 2 -t 1,2 -r 1 --read 1

# ---- OpenBLAS, installation, firmware ----

openblas() {
    make -s OPENBLAS=1 BUILD="$dir/openblas" "$dir/openblas/generate" "$dir/openblas/tests" &&
        "$dir/openblas/generate" examples/models/tiny-q8_0.gguf -n 8 && "$dir/openblas/tests" --quick ops
}
try "openblas" openblas
installed() {
    make -s install DESTDIR="$PWD/$dir/root" PREFIX=/usr && cmp tfm.h "$dir/root/usr/include/tfm.h" &&
        grep -q '^Version: [0-9]' "$dir/root/usr/lib/pkgconfig/tfm.pc"
}
try "install" installed
try "firmware" make -s firmware BUILD="$build"
settle
freestanding() {
    bare="-ffreestanding -fno-stack-protector -nostdlib -static"
    $1 -O2 -I. $bare tests/freestanding.c -o "$work/bare" -lgcc && "$work/bare" > "$work/result" &&
        cmp "$build/firmware-host.txt" "$work/result"
}
try "freestanding.gcc" freestanding gcc
try "freestanding.clang" freestanding clang
try "size" make -s size BUILD="$build"
settle

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
