#!/bin/sh
# Bytes at -Os: the header's object for sets of features, all of it called or not; then what
# examples/firmware.c takes of it, where the compiler drops what is not called.
# usage: CC=cc sh tools/size.sh BUILD_DIR
build=$1
arm="arm-none-eabi-gcc -mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16"
bare="-DTFM_NO_STDIO -DTFM_NO_MALLOC -DTFM_NO_THREADS"
small="$bare -DTFM_NO_MESSAGES -DTFM_ONLY_TYPES"
weights=$(($(wc -c < examples/models/tiny-q8_0.gguf)))

row() {                                 # row TITLE BYTES_THAT_DO_NOT_COUNT SIZE_PROGRAM COMPILER FLAG...
    title=$1 less=$2 size=$3
    shift 3
    "$@" -Os -I. -o "$build/size.o" || exit 1
    $size "$build/size.o" | awk -v title="$title" -v less="$less" \
        'NR == 2 { printf "%-58s %8d %6d %6d\n", title, $1 - less, $2, $3 }'
}
header() { title=$1; shift; row "$title" 0 "$@" -c tests/tfm_impl.c; }
firmware() { title=$1 less=$2; shift 2; row "$title" "$less" "$@" -DFIRMWARE_BOARD examples/firmware.c; }
table() {                               # table NAME SIZE_PROGRAM COMPILER FLAG...
    printf '%-58s %8s %6s %6s\n' "$1" text data bss
    shift
    [ "$1" = size ] && header "all" "$@"
    header "without stdio, malloc, threads" "$@" $bare
    header "  and messages" "$@" $bare -DTFM_NO_MESSAGES
    header "  and types but F32, Q8_0" "$@" $small -DTFM_TYPE_Q8_0
    header "  and tokenizers" "$@" $small -DTFM_TYPE_Q8_0 -DTFM_NO_TOKENIZER
    header "  and models: ops, layers, weight files, nets" "$@" $small -DTFM_NO_MODEL
    header "  and nets" "$@" $small -DTFM_NO_MODEL -DTFM_NO_NET
    firmware "firmware.c but its weights" "$weights" "$@" -c
    firmware "  without messages" "$weights" "$@" -c -DTFM_NO_MESSAGES
    firmware "  without messages and model: attention and LSTM" 0 "$@" -c -DTFM_NO_MESSAGES -DTFM_NO_MODEL
}
table "${CC:-cc} -Os" size ${CC:-cc}
command -v arm-none-eabi-gcc > /dev/null || { printf '\nCortex-M4F: skipped, it needs arm-none-eabi-gcc\n'; exit 0; }
echo
table "Cortex-M4F: arm-none-eabi-gcc -Os" arm-none-eabi-size $arm
linked() {
    title=$1 less=$2
    shift 2
    row "$title" "$less" arm-none-eabi-size $arm -fno-math-errno -DFIRMWARE_BOARD "$@" \
        examples/firmware.c examples/firmware/startup.c \
        -T examples/firmware/mps2-an386.ld -nostartfiles --specs=nano.specs -lm
}
linked "linked, with startup and C library: firmware.c" "$weights"
linked "  without messages and model: attention and LSTM" 0 -DTFM_NO_MESSAGES -DTFM_NO_MODEL
