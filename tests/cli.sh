#!/bin/sh
# Tests the programs from outside, one line per test; the last line is "N passed, N failed".
# usage: sh tests/cli.sh BUILD_DIR [PART_OF_A_NAME]        in the root of the repository
build=$1 only=$2
stories=examples/models/stories-q8_0.gguf
tiny=examples/models/tiny-q8_0.gguf
llama=tests/data/tiny-llama.gguf
spm=tests/data/tok-llama-spm.gguf
vocab=tests/data/tok-gpt-2.gguf
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
passed=0 failed=0

# report NAME STATUS: the test passed if the last command did, else what went wrong is in $why
report() {
    if [ "$2" -eq 0 ]; then passed=$((passed + 1)); echo "ok cli.$1"; return; fi
    failed=$((failed + 1))
    echo "  $why"
    head -c 300 "$dir/err" | sed 's/^/  stderr: /'
    echo "FAIL cli.$1"
}
wanted() { case $1 in *"$only"*) return 0 ;; esac; return 1; }

# run STATUS PROGRAM ARGUMENT...: output in $dir/out and $dir/err
run() {
    want=$1 program=$2
    shift 2
    "$build/$program" "$@" > "$dir/out" 2> "$dir/err" < /dev/null
    got=$?
    why="$program $*: exit status $got, not $want"
    [ $got -eq "$want" ]
}

# refuses NAME STATUS TEXT PROGRAM ARGUMENT...: one line on stderr that names the program and
# holds TEXT, nothing on stdout
refuses() {
    name=$1 status=$2 text=$3
    shift 3
    wanted "$name" || return
    run "$status" "$@" && {
        why="$*: stderr is not one line 'NAME: ... $text ...'"
        [ "$(wc -l < "$dir/err")" -eq 1 ] && grep -q "^$1: " "$dir/err" && grep -qF -- "$text" "$dir/err"
    } && { why="$*: something on stdout"; [ ! -s "$dir/out" ]; }
    report "$name" $?
}

# prints NAME TEXT PROGRAM ARGUMENT...: exactly TEXT (with printf's escapes) on stdout
prints() {
    name=$1
    printf "$2" > "$dir/want"
    shift 2
    wanted "$name" || return
    run 0 "$@" && { why="$*: prints $(head -c 200 "$dir/out")"; cmp -s "$dir/want" "$dir/out"; }
    report "$name" $?
}

# same NAME PROGRAM ARGUMENT...: prints what $dir/want holds
same() {
    name=$1
    shift
    wanted "$name" || return
    run 0 "$@" && { why="$*: prints other text: $(head -c 200 "$dir/out")"; cmp -s "$dir/want" "$dir/out"; }
    report "$name" $?
}
keep() { run 0 "$@"; cp "$dir/out" "$dir/want"; }          # what the next tests compare with

# holds NAME PATTERN PROGRAM ARGUMENT...: a line of stdout matches
holds() {
    name=$1 pattern=$2
    shift 2
    wanted "$name" || return
    run 0 "$@" && { why="$*: no line matches $pattern"; grep -qE -- "$pattern" "$dir/out"; }
    report "$name" $?
}

# ---- Options, for all programs ----

for p in generate chat evaluate tokenize inspect quantize convert bench charlstm sentiment embed classify json; do
    holds $p.help "^usage: $p " $p --help
    refuses $p.unknown_option 2 "--nonsense" $p --nonsense
    why="$p -h > /dev/full: not noticed"
    if [ -w /dev/full ] && wanted $p; then
        "$build/$p" -h > /dev/full 2> "$dir/err"; [ $? -eq 1 ]
        report $p.full_disk $?
    fi
done
refuses option.value_missing 2 "-n" generate "$llama" -n
refuses option.negative 2 "-n -1" generate "$llama" -n -1
refuses option.trailing_letters 2 "-n 5x" generate "$llama" -n 5x
refuses option.fraction 2 "-n 1.5" generate "$llama" -n 1.5
refuses option.empty_number 2 "-n" generate "$llama" -n ""
refuses option.nan 2 "--temp nan" generate "$llama" --temp nan
refuses option.infinity 2 "--temp inf" generate "$llama" --temp=inf
refuses option.hexadecimal 2 "--temp 0x1" generate "$llama" --temp 0x1
refuses option.temperature 2 "--temp -0.1" generate "$llama" --temp -0.1
refuses option.top_k 2 "--top-k -1" generate "$llama" --top-k -1
refuses option.top_p_zero 2 "--top-p 0" generate "$llama" --top-p 0
refuses option.top_p_large 2 "--top-p 1.01" generate "$llama" --top-p 1.01
refuses option.top_p_rounds_to_zero 2 "--top-p 1e-60" generate "$llama" --top-p 1e-60
refuses option.min_p 2 "--min-p 1.5" generate "$llama" --min-p 1.5
refuses option.penalty 2 "--repeat-penalty 0" generate "$llama" --repeat-penalty 0
refuses option.seed_negative 2 "-s -1" generate "$llama" -s -1
refuses option.seed_large 2 "-s 18446744073709551616" generate "$llama" -s 18446744073709551616
refuses option.threads_zero 2 "-t 0" generate "$llama" -t 0
refuses option.threads_many 2 "-t 257" generate "$llama" -t 257
refuses option.context 2 "-c 0" generate "$llama" -c 0
refuses option.batch 2 "-b 0" evaluate "$llama" -b 0 --ids 1
refuses option.cache 2 "--kv q8_0" generate "$llama" --kv q8_0
refuses option.level 2 "--level best" generate "$llama" --level best
refuses option.flag_with_value 2 "--ids" generate "$llama" --ids=1
refuses option.two_models 2 "b.gguf" generate a.gguf b.gguf
refuses option.two_prompts 2 "-f" generate "$llama" -p a -f b
refuses option.after_dashes 1 "-n" generate -- -n
keep generate "$stories" -n 5 --temp 0
same option.before_operands generate -n 5 --temp 0 "$stories"
same option.equals generate --temp=0 "$stories" -n5
same option.largest_seed generate -s 18446744073709551615 "$stories" -n5 --temp=0.0e0

# ---- Files that are no model ----

: > "$dir/empty"
head -c 20000 "$llama" > "$dir/truncated"
head -c 4 "$llama" > "$dir/magic_only"
poke() { "$build/poke" "$@" || { echo "FAIL cli.poke"; failed=$((failed + 1)); }; }
poke "$llama" "$dir/wrong_magic" GGUF -4 0x58
poke "$llama" "$dir/version" GGUF 0 9
poke "$llama" "$dir/architecture" general.architecture 12 0x6b           # type u32, length u64, "llama"
poke "$llama" "$dir/unknown_type" blk.0.attn_q.weight 20 99              # rank u32, two u64, type u32
poke "$llama" "$dir/missing_tensor" blk.0.attn_q.weight -1 0x78          # is blk.0.attn_q.weighx now
poke "$llama" "$dir/wrong_shape" blk.0.attn_norm.weight 4 8              # rank u32, a shorter length
for p in "generate" "evaluate --ids 1 --greedy 1" "inspect" "inspect --memory" "tokenize -f /dev/null" "json"; do
    set -- $p
    as=$1; [ "$2" = --memory ] && as=inspect_memory
    refuses "$as.missing_file" 1 "$dir/none" "$@" "$dir/none"
    refuses "$as.directory" 1 "directory" "$@" "$dir"
    refuses "$as.empty_file" 1 "empty" "$@" "$dir/empty"
    refuses "$as.truncated" 1 "$dir/truncated" "$@" "$dir/truncated"
    refuses "$as.magic_only" 1 "$dir/magic_only" "$@" "$dir/magic_only"
    refuses "$as.wrong_magic" 1 "$dir/wrong_magic" "$@" "$dir/wrong_magic"
    refuses "$as.wrong_version" 1 "9" "$@" "$dir/version"
done
for p in "generate" "evaluate --ids 1 --greedy 1" "inspect --memory"; do
    set -- $p
    as=$1; [ "$2" = --memory ] && as=inspect_memory
    refuses "$as.unknown_architecture" 1 "klama" "$@" "$dir/architecture"
    refuses "$as.unknown_type" 1 "blk.0.attn_q.weight" "$@" "$dir/unknown_type"
    refuses "$as.missing_tensor" 1 "blk.0.attn_q.weight" "$@" "$dir/missing_tensor"
    refuses "$as.wrong_shape" 1 "blk.0.attn_norm.weight" "$@" "$dir/wrong_shape"
    refuses "$as.no_tensors" 1 "$vocab" "$@" "$vocab"
done
refuses quantize.missing_file 1 "$dir/none" quantize "$dir/none" "$dir/q" Q8_0
refuses quantize.truncated 1 "$dir/truncated" quantize "$dir/truncated" "$dir/q" Q8_0

# ---- json ----

# parses NAME TEMPERATURE MODEL ARGUMENT...: what 50 seeds write, each cut at another length, is read by the strict
# reader of tools/json.h
parses() {
    name=$1 temperature=$2
    shift 2
    wanted "$name" || return
    seed=0
    : > "$dir/lines"
    while [ $seed -lt 50 ]; do
        run 0 json "$@" -s $seed -n $((seed + 8)) --temp "$temperature" --top-k 0 --top-p 1 --min-p 0 -t 1 || break
        echo "{\"text\": \"\", \"value\": $(tr '\n' ' ' < "$dir/out")}" >> "$dir/lines"
        seed=$((seed + 1))
    done
    [ $seed -eq 50 ] && run 0 tokenize "$vocab" --jsonl "$dir/lines" && {
        why="50 seeds do not write 20 texts"
        [ "$(sort -u "$dir/lines" | wc -l)" -ge 20 ]
    }
    report "$name" $?
}
parses json.words 1 "$tiny" -p "Once upon a time"
parses json.characters 3 "$llama" -p "Once upon a time"
if wanted json; then
    keys=name:string,age:number,ok:boolean,list:array,more:object
    c=' *: *' pattern="^[{] *\"name\"$c\".*\" *, *\"age\"$c-?[0-9].*, *\"ok\"$c(true|false) *, *"
    pattern="$pattern\"list\"$c\\[.*\\] *, *\"more\"$c[{].*[}] *[}]"
    run 0 json "$llama" -p "x" -n 90 -s 1 --keys "$keys" && {
        why="other keys or types: $(cat "$dir/out")"
        tr '\n' ' ' < "$dir/out" | grep -qE "$pattern"
    }
    report json.keys $?
    prints json.least '{"a":[],"b":""}\n' json "$llama" -p "x" -n 15 --keys a:array,b:string
    refuses json.no_room 1 "at least 14 tokens are needed, -n and the context (-c) leave 13" json "$llama" -p "x" \
        -n 13 --keys a:number,b:string
    refuses json.no_context 1 "at least 2 tokens are needed, -n and the context (-c) leave 1" json "$llama" -p xyz -c 4
    refuses json.no_byte 1 "has no token that is the byte 0xc3" json "$llama" -p x --keys "$(printf '\303\251')"
    refuses json.type 2 "'text' is no type" json "$llama" --keys a:text
    refuses json.key_twice 2 "'a' twice" json "$llama" --keys a,b,a
    refuses json.quoted_key 2 "holds a quote" json "$llama" --keys 'a"b'
    refuses json.no_model 2 "an operand is missing" json -p x
fi

# ---- generate ----

if wanted generate; then
    keep generate "$stories" -n 30 -s 7
    same generate.same_seed generate "$stories" -n 30 -s 7
    same generate.one_thread generate "$stories" -n 30 -s 7 -t 1
    same generate.three_threads generate "$stories" -n 30 -s 7 -t 3
    same generate.shipped_model generate -n 30 -s 7
    same generate.repack generate -n 30 -s 7 --repack
    if [ -e "$build/../$stories" ]; then
        (cd "$build" && ./generate -n 30 -s 7 > "$dir/out" 2> "$dir/err")
        why="the shipped model is not found from the build folder"
        cmp -s "$dir/want" "$dir/out"
        report generate.shipped_model_beside $?
    fi
    keep generate "$tiny" -n 12 --temp 0 --level auto
    for level in exact fma; do
        "$build/generate" --help | grep -q " $level$" || continue
        same generate.level_$level generate "$tiny" -n 12 --temp 0 --level $level
    done
    prints generate.no_tokens "" generate "$stories" -p "Once" -n 0
    prints generate.no_tokens_echo "Once" generate "$stories" -p "Once" -n 0 --echo
    prints generate.no_ids "\n" generate "$stories" -n 0 --ids
    holds generate.cache_f16 "." generate "$stories" -n 20 --kv f16 --temp 0

    run 0 generate "$stories" -p "Once upon" -n 20 -s 1 --ids && ids=$(cat "$dir/out")
    why="--ids: not 20 ids: $ids"
    [ "$(echo "$ids" | wc -w)" -eq 20 ]
    report generate.ids $?
    "$build/tokenize" "$stories" --decode "$ids" > "$dir/want"
    same generate.text_of_ids generate "$stories" -p "Once upon" -n 20 -s 1
    { printf "Once upon"; cat "$dir/want"; } > "$dir/echo"
    cp "$dir/echo" "$dir/want"
    same generate.echo generate "$stories" -p "Once upon" -n 20 -s 1 --echo

    printf "Once upon" > "$dir/prompt"
    same generate.prompt_file generate "$stories" -f "$dir/prompt" -n 20 -s 1 --echo
    printf "Once\0upon\n" > "$dir/prompt"
    prints generate.nul_in_prompt "Once\0upon\n" generate "$stories" -f "$dir/prompt" -n 0 --echo
    keep generate "$stories" -n 10 --temp 0 -p ""
    same generate.no_prompt generate "$stories" -n 10 --temp 0
    same generate.empty_file generate "$stories" -n 10 --temp 0 -f "$dir/empty"

    run 0 generate "$stories" -n 3
    why="the random seed is not on stderr"
    grep -qE '^seed: [0-9]+$' "$dir/err"
    report generate.random_seed $?
    seed=$(sed -n 's/^seed: //p' "$dir/err")
    cp "$dir/out" "$dir/want"
    same generate.printed_seed generate "$stories" -n 3 -s "$seed"
    why="speed, model or memory is not on stderr"
    grep -q "tokens/s" "$dir/err" && grep -q "peak memory" "$dir/err" && grep -q "llama" "$dir/err" &&
        grep -qE '^first token: [0-9.]+ s' "$dir/err" && grep -q "mostly Q8_0" "$dir/err"
    report generate.figures $?

    lora=tests/data/lora-llama.gguf
    keep generate "$llama" -p "What is" -n 20 --temp 0
    same generate.adapter_off generate "$llama" -p "What is" -n 20 --temp 0 --lora "$lora" --lora-scale 0
    run 0 generate "$llama" -p "What is" -n 20 --temp 0 --lora "$lora" && {
        why="an adapter changes nothing"
        ! cmp -s "$dir/want" "$dir/out"
    }
    report generate.adapter $?
    refuses generate.adapter_of_another 1 "$stories with $lora: blk.0.attn_q.weight.lora_a: 4x48 in the file" generate \
        "$stories" --lora "$lora"
    refuses generate.no_adapter 1 "$dir/none" generate "$llama" --lora "$dir/none"
    refuses generate.prompt_longer_than_context 1 "room for 4" generate "$stories" -c 4 -p "One two three four five"
    refuses generate.missing_prompt_file 1 "$dir/none" generate "$stories" -f "$dir/none"
    refuses generate.prompt_is_directory 1 "$dir" generate "$stories" -f "$dir"
    run 0 generate "$stories" -c 8 -n 100 --temp 0 --ids
    why="a full context is not said"
    grep -q "full" "$dir/err"
    report generate.full_context $?

    if [ -w /dev/full ]; then
        "$build/generate" "$stories" -n 20 > /dev/full 2> "$dir/err"
        status=$?
        why="/dev/full: exit status $status, or not one line"
        [ $status -eq 1 ] && [ "$(wc -l < "$dir/err")" -eq 1 ] && grep -q "^generate: standard output" "$dir/err"
        report generate.full_disk $?
    fi
    { "$build/generate" "$stories" -n 100 2> "$dir/err"; echo $? > "$dir/status"; } | head -c 1 > "$dir/out"
    why="closed pipe: exit status $(cat "$dir/status")"
    [ "$(cat "$dir/status")" -eq 1 ] && [ "$(wc -l < "$dir/err")" -eq 1 ]
    report generate.closed_pipe $?
fi

# ---- ctrl-C: stops, says so by 130, leaves no unfinished file ----

# interrupted NAME PROGRAM ARGUMENT...: its work must last longer than the second before the signal
interrupted() {
    name=$1
    shift
    wanted "$name" || return
    "$build/$@" > "$dir/out" 2> "$dir/err" < /dev/null &
    pid=$!
    sleep 1
    kill -INT $pid
    wait $pid
    status=$?
    why="$*: exit status $status, not 130"
    [ $status -eq 130 ]
    report "$name" $?
}
head -c 100000 tfm.h > "$dir/long"
interrupted generate.interrupt_prompt generate "$stories" -f "$dir/long" -c 80000 -t 1
interrupted generate.interrupt generate "$llama" -p a -n 30000 -c 30000 -t 1
interrupted evaluate.interrupt evaluate "$stories" -f "$dir/long" -t 1
interrupted evaluate.interrupt_greedy evaluate "$stories" --ids 1 --greedy 20000 -c 20000 -t 1
sevens=$(yes 7 | head -n 30000 | tr '\n' ' ')
interrupted evaluate.interrupt_output evaluate "$stories" --ids "$sevens" -c 30000 --logits "$dir/unfinished" -t 1
if wanted evaluate.interrupt; then
    why="an unfinished output file stays after ctrl-C: $(ls "$dir")"
    ! ls "$dir" | grep -q unfinished
    report evaluate.interrupt_leaves_nothing $?
fi

# ---- evaluate ----

# size_is NAME BYTES FILE
size_is() { why="$3 has $(wc -c < "$3") bytes, not $2"; [ "$(wc -c < "$3")" -eq "$2" ]; report "$1" $?; }

if wanted evaluate; then
    v=$("$build/inspect" "$llama" | sed -n 's/.*llama.vocab_size *u32 *//p')
    run 0 evaluate "$llama" --ids 1,2,3,4,5 --logits "$dir/logits"
    size_is evaluate.logits $((5 * v * 4)) "$dir/logits"
    for opts in "-b 1" "-b 2 -t 2" "-t 3" "-c 100" "--level auto"; do
        run 0 evaluate $opts --logits "$dir/again" --ids "1 2, 3 4,5" "$llama" && cmp -s "$dir/logits" "$dir/again"
        report "evaluate.logits $opts" $?
    done
    run 0 evaluate "$llama" --ids 1,2,3,4,5 --greedy 6 && greedy=$(cat "$dir/out")
    holds evaluate.greedy "^[0-9]+( [0-9]+){5}$" evaluate "$llama" --ids 1,2,3,4,5 --greedy 6
    same_first=$(echo "$greedy" | cut -d' ' -f1-3)
    prints evaluate.greedy_fewer "$same_first\n" evaluate "$llama" --ids 1,2,3,4,5 --greedy 3
    next=$(echo "$greedy" | cut -d' ' -f1)
    rest=$(echo "$greedy" | cut -d' ' -f2-4)
    prints evaluate.greedy_goes_on "$rest\n" evaluate "$llama" --ids 1,2,3,4,5,$next --greedy 3
    prints evaluate.greedy_none "\n" evaluate "$llama" --ids 1 --greedy 0
    holds evaluate.perplexity "^perplexity [0-9]+\.[0-9]+ \+- [0-9]+\.[0-9]+ \([0-9]+ tokens\)$" \
        evaluate "$stories" -f Makefile
    holds evaluate.perplexity_one_window "\(5 tokens\)$" evaluate "$stories" --ids 1,2,3,4,5,6
    refuses evaluate.no_input 2 "--ids" evaluate "$llama"
    refuses evaluate.two_inputs 2 "--ids" evaluate "$llama" --ids 1 -p a
    refuses evaluate.bad_ids 2 "x" evaluate "$llama" --ids 1,x --greedy 1
    refuses evaluate.large_id 2 "99999999999" evaluate "$llama" --ids 99999999999 --greedy 1
    refuses evaluate.id_outside 1 "1000000" evaluate "$llama" --ids 1000000 --greedy 1
    refuses evaluate.no_ids 1 "no token" evaluate "$llama" --ids "" --greedy 1
    refuses evaluate.prompt_longer_than_context 1 "room for 2" evaluate "$llama" --ids 1,2,3 --greedy 1 -c 2
    refuses evaluate.greedy_longer_than_context 1 "of 12" evaluate "$llama" --ids 1,2,3 --greedy 10 -c 11
    refuses evaluate.one_token 1 "2 tokens" evaluate "$llama" --ids 1
    refuses evaluate.unwritable_output 1 "$dir/none/out" evaluate "$llama" --ids 1 --logits "$dir/none/out"
    refuses evaluate.output_is_directory 1 "$dir" evaluate "$llama" --ids 1 --logits "$dir"
    [ -w /dev/full ] && refuses evaluate.output_is_full 1 "/dev/full" evaluate "$llama" --ids 1 --logits /dev/full
    why="a failed output left a file: $(ls "$dir")"
    ! ls "$dir" /dev | grep -q '\.part'
    report evaluate.leaves_nothing $?
fi

# floats FILE: one float of a --logits file on each line
floats() { od -An -v -t f4 "$1" | tr -s ' ' '\n' | grep .; }
# close VALUE WANTED: equal to 4 digits or so
close() { echo "$1 $2" | awk '{ d = $1 - $2; if (d < 0) d = -d; exit !($2 > 0 && d < 2e-4 * $2) }'; }
# The field KEY of a JSON object in $dir/out
json() { tr ',{}' '\n\n\n' < "$dir/out" | sed -n "s/^ *\"$1\": //p" | tail -n 1; }

# Perplexity of ids in one window, and the divergence of two models, from the logits by awk
if wanted evaluate.perplexity_of_logits; then
    listed="2047 427 435 258 394 11 399 12 1000 77"
    "$build/quantize" "$stories" "$dir/stories4.gguf" Q4_0
    run 0 evaluate "$stories" --ids "$listed" --logits "$dir/p"
    run 0 evaluate "$dir/stories4.gguf" --ids "$listed" --logits "$dir/q"
    floats "$dir/p" > "$dir/p.txt"
    floats "$dir/q" > "$dir/q.txt"
    paste "$dir/p.txt" "$dir/q.txt" | awk -v ids="$listed" '
        function score(next_id,   i, m, n) {            # the sums of a position with 2048 logits
            m = n = 0
            for (i = 0; i < 2048; i++) { m += exp(p[i]); n += exp(q[i]) }
            original += log(m) - p[next_id]
            loss += log(n) - q[next_id]
            for (i = 0; i < 2048; i++) kl += exp(p[i]) / m * (p[i] - log(m) - q[i] + log(n))
        }
        BEGIN { count = split(ids, id, " ") }
        { p[(NR - 1) % 2048] = $1; q[(NR - 1) % 2048] = $2 }
        NR % 2048 == 0 && NR / 2048 < count { score(id[NR / 2048 + 1]) }
        END { count--; print exp(loss / count), exp(original / count), kl / count }' > "$dir/sums"
    read loss original kl < "$dir/sums"
    run 0 evaluate "$dir/stories4.gguf" --ids "$listed" --against "$stories" --json
    why="$(cat "$dir/out") instead of $(cat "$dir/sums")"
    close "$(json perplexity)" "$loss"; report evaluate.perplexity_of_logits $?
    close "$(json original_perplexity)" "$original"; report evaluate.perplexity_of_logits_original $?
    close "$(json kl_divergence)" "$kl"; report evaluate.perplexity_of_logits_divergence $?
    run 0 evaluate "$dir/stories4.gguf" --ids "$listed"
    why="prints $(cat "$dir/out") instead of $loss"
    close "$(sed 's/^perplexity //; s/ .*//' "$dir/out")" "$loss"; report evaluate.perplexity_of_logits_text $?
fi
# Windows of 8 and 21 ids: 3 of the second half of each of 2 windows; with a stride all but the first
ids=$(echo 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21)
holds evaluate.windows "\(6 tokens\)$" evaluate "$llama" --ids "$ids" -c 8
holds evaluate.stride "\(20 tokens\)$" evaluate "$llama" --ids "$ids" -c 8 --stride 4
holds evaluate.stride_of_window "\(18 tokens\)$" evaluate "$llama" --ids "$ids" -c 8 --stride 8
holds evaluate.stride_of_one "\(20 tokens\)$" evaluate "$llama" --ids "$ids" -c 8 --stride 1
# Without -c, in a model of 2208 positions: one window, or from 1024 tokens on windows of 512
if wanted evaluate.default_window; then
    poke "$llama" "$dir/longer.gguf" llama.context_length 5 8
    holds evaluate.default_window "\(1022 tokens\)$" evaluate "$dir/longer.gguf" --ids "$(yes 7 | head -n 1023)"
    holds evaluate.default_windows "\(510 tokens\)$" evaluate "$dir/longer.gguf" --ids "$(yes 7 | head -n 1024)"
fi
refuses evaluate.stride_too_long 2 "--stride 9" evaluate "$llama" --ids "$ids" -c 8 --stride 9
refuses evaluate.stride_alone 2 "--stride" evaluate "$llama" --ids 1 --greedy 1 --stride 4
refuses evaluate.json_alone 2 "--json" evaluate "$llama" --ids 1 --greedy 1 --json

# A quantized model against its original: figures of tools/vectors/tensor_errors.py
if wanted evaluate.against; then
    "$build/quantize" "$tiny" "$dir/tiny4.gguf" Q4_0
    poke "$tiny" "$dir/renamed.gguf" blk.0.attn_q.weight -1 0x78
    holds evaluate.against "^all +38 +254528 +5\.592 +0\.05966 +0\.0553 +24\.49$" \
        evaluate "$dir/tiny4.gguf" --against "$tiny"
    holds evaluate.against_tensor "^blk\.3\.ffn_up\.weight +Q8_0 +Q4_0 +160x64 +0\.0851 +0\.05498 +21\.40$" \
        evaluate "$dir/tiny4.gguf" --against "$tiny"
    holds evaluate.against_itself "^all .* 0 +0 +exact$" evaluate "$tiny" --against "$tiny"
    holds evaluate.against_itself_outputs "^KL divergence 0.000000 \+- 0.000000$" \
        evaluate "$tiny" --against "$tiny" -f Makefile
    holds evaluate.against_same_tokens "^same likeliest token 1.00000 \+- 0.00000$" \
        evaluate "$tiny" --against "$tiny" -f Makefile
    refuses evaluate.against_other_shapes 1 "2048x160 in $stories, 1024x64 in $tiny" evaluate "$stories" --against "$tiny"
    refuses evaluate.against_missing 1 "$dir/renamed.gguf: no tensor blk.0.attn_q.weight" \
        evaluate "$tiny" --against "$dir/renamed.gguf"
    refuses evaluate.against_more 1 "$tiny: no tensor blk.0.attn_q.weighx" \
        evaluate "$dir/renamed.gguf" --against "$tiny"
    refuses evaluate.against_no_file 1 "$dir/none" evaluate "$tiny" --against "$dir/none"
    refuses evaluate.against_with_greedy 2 "--against" evaluate "$tiny" --against "$tiny" --ids 1 --greedy 1
fi

# ---- tokenize ----

if wanted tokenize; then
    printf 'Tom\0 & \303\251t\303\251 \377\n\n' > "$dir/text"
    run 0 tokenize "$stories" -f "$dir/text" && ids=$(cat "$dir/out")
    holds tokenize.one_line "^[0-9]+( [0-9]+)+$" tokenize "$stories" -f "$dir/text"
    cp "$dir/text" "$dir/want"
    same tokenize.every_byte tokenize "$stories" --decode "$ids"
    same tokenize.commas tokenize "$stories" --decode "$(echo $ids | tr ' ' ,)"
    prints tokenize.empty_text "\n" tokenize "$vocab" ""
    printf -- '-n x' > "$dir/text"
    keep tokenize "$spm" -f "$dir/text"
    same tokenize.dashes tokenize "$spm" -- "-n x"
    holds tokenize.add_special "^1 " tokenize "$spm" --add-special "x"
    holds tokenize.special "^1 " tokenize "$spm" --special "<s>x"
    prints tokenize.decode_control "" tokenize "$spm" --decode 1
    prints tokenize.decode_special "<s>" tokenize "$spm" --decode 1 --special

    keep tokenize "$spm" 'a "b" \ é 😀'
    sed 's/^/[/; s/ /, /g; s/$/]/' "$dir/want" > "$dir/out"
    { cat "$dir/out"; echo "[]"; cat "$dir/out"; } > "$dir/want"
    { printf '%s\n' '{"text": "a \"b\" \\ \u00e9 \ud83d\uDE00"}'
      printf '%s\n' ' { "x" : [1, -2.5e+3, {"text": 1}, null, true], "text" : "" , "y": {} } '
      printf '%s' '{"te\u0078t":"a \"b\" \\ é 😀"}'; } > "$dir/lines"
    same tokenize.jsonl tokenize "$spm" --jsonl "$dir/lines"
    n=0
    while IFS= read -r line; do
        n=$((n + 1))
        printf '{"text": "a"}\n%s\n' "$line" > "$dir/lines"
        run 1 tokenize "$spm" --jsonl "$dir/lines" && why="$line: $(cat "$dir/err")" && grep -q "line 2" "$dir/err"
        report tokenize.bad_json_$n $?
    done <<'LINES'

{"text": 1}
{"txt": "a"}
{"text": "a"} x
{"text": "a"
{"text": "a\x"}
{"text": "\u12g4"}
{"text": "a}
{"text": "a",}
{"text": "a", "b": 01}
{"text": "a", "b": tru}
["text", "a"]
LINES
    refuses tokenize.nothing 2 "TEXT" tokenize "$vocab"
    refuses tokenize.two_things 2 "only one" tokenize "$vocab" "a" --decode 1
    refuses tokenize.bad_id 2 "x" tokenize "$vocab" --decode "1 x"
    refuses tokenize.id_outside 1 "100000" tokenize "$vocab" --decode "1 100000"
    refuses tokenize.missing_text 1 "$dir/none" tokenize "$vocab" -f "$dir/none"
    refuses tokenize.missing_jsonl 1 "$dir/none" tokenize "$vocab" --jsonl "$dir/none"
    refuses tokenize.no_tokenizer 1 "tests/data/ops.gguf" tokenize tests/data/ops.gguf a
fi

# ---- chat ----

# says NAME LINES ARGUMENT...: what chat answers to LINES (with printf's escapes) is what $dir/want holds
says() {
    name=$1 lines=$2
    shift 2
    printf "$lines" | "$build/chat" "$@" > "$dir/out" 2> "$dir/err"
    got=$?
    why="chat $*: exit status $got, or answers otherwise: $(head -c 200 "$dir/out")"
    [ $got -eq 0 ] && cmp -s "$dir/want" "$dir/out"
    report "$name" $?
}
# answer TEXT: what follows this text with its control tokens, 12 greedy ones
answer() {
    printf "$1" > "$dir/text"
    ids=$("$build/tokenize" "$stories" --special -f "$dir/text" | tr ' ' ,)
    "$build/tokenize" "$stories" --decode "$("$build/evaluate" "$stories" --ids "$ids" --greedy 12)"
}
if wanted chat; then
    set -- "$stories" --template zephyr --temp 0 -n 12
    one=$(answer '<|user|>\nTom sat.<|endoftext|>\n<|assistant|>\n')
    begun="<|user|>\nTom sat.<|endoftext|>\n<|assistant|>\n$one<|endoftext|>\n"
    two=$(answer "$begun<|user|>\nWhy?<|endoftext|>\n<|assistant|>\n")
    printf '%s\n' "$one" > "$dir/want"
    says chat.one_question "Tom sat.\n" "$@"
    says chat.last_line_without_end "Tom sat." "$@"
    says chat.quit "\n  \nTom sat.\r\n/quit\nWhy?\n" "$@"
    answer '<|user|>\nTom\nsat.<|endoftext|>\n<|assistant|>\n' > "$dir/want"
    echo >> "$dir/want"
    says chat.joined_lines 'Tom\\\nsat.\n' "$@"
    printf '%s\n' "$one" "$two" > "$dir/want"
    says chat.two_questions "Tom sat.\nWhy?\n" "$@" -t 2
    printf '%s\n' "$one" "$two" "$one" > "$dir/want"
    says chat.reset "Tom sat.\nWhy?\n/reset\nTom sat.\n" "$@"
    printf '%s\n' "$two" > "$dir/want"
    "$build/chat" "$@" > /dev/null 2> "$dir/err" <<LINES
Tom sat.
/save $dir/talk
LINES
    says chat.load "Why?\n" "$@" --load "$dir/talk"
    says chat.load_command "/load $dir/talk\nWhy?\n" "$@"
    head -c 2000 "$dir/talk" > "$dir/cut"
    refuses chat.load_truncated 1 "$dir/cut" chat "$@" --load "$dir/cut"
    refuses chat.load_other 1 "$llama" chat "$@" --load "$llama"
    refuses chat.load_missing 1 "$dir/none" chat "$@" --load "$dir/none"
    refuses chat.load_other_cache 1 "cache" chat "$@" --kv f16 --load "$dir/talk"
    refuses chat.load_other_template 1 "gemma" chat "$stories" --template gemma --system a --load "$dir/talk"
    refuses chat.no_model 2 "operand" chat
    refuses chat.no_template 1 "--template" chat "$stories"
    refuses chat.unknown_template 1 "'tell'" chat "$stories" --template tell
    refuses chat.no_system_message 1 "no system message" chat "$stories" --template gemma --system "Be brief."
    refuses chat.missing_file 1 "$dir/none" chat "$dir/none"
    refuses chat.tokens 2 "-n -1" chat "$stories" -n -1
    printf '/nonsense\n' | "$build/chat" "$@" > "$dir/out" 2> "$dir/err"
    status=$?
    why="an unknown command: exit status $status, or not one line"
    [ $status -eq 1 ] && [ "$(wc -l < "$dir/err")" -eq 1 ] && grep -q "^chat: /nonsense" "$dir/err"
    report chat.unknown_command $?
    printf '/save %s/none/talk\n' "$dir" | "$build/chat" "$@" > "$dir/out" 2> "$dir/err"
    status=$?
    why="/save into a missing folder: exit status $status"
    [ $status -eq 1 ] && grep -qF "$dir/none/talk" "$dir/err"
    report chat.save_unwritable $?
    if [ -w /dev/full ]; then
        printf 'Tom\n' | "$build/chat" "$@" > /dev/full 2> "$dir/err"
        status=$?
        why="/dev/full: exit status $status, or not one line"
        [ $status -eq 1 ] && [ "$(wc -l < "$dir/err")" -eq 1 ] && grep -q "^chat: standard output" "$dir/err"
        report chat.full_disk $?
    fi
    why="chat left a file: $(ls "$dir")"
    ! ls "$dir" | grep -q '\.part'
    report chat.leaves_nothing $?
fi

# ---- inspect and quantize ----

if wanted inspect; then
    holds inspect.metadata "general.architecture.*\"llama\"" inspect "$llama"
    holds inspect.long_array "2048 in all" inspect "$stories"
    holds inspect.tensor "token_embd.weight .*Q8_0 .*2048x" inspect "$stories"
    holds inspect.no_tensors "tokenizer.ggml.model" inspect "$vocab"
    holds inspect.unknown_architecture "klama" inspect "$dir/architecture"
    refuses inspect.unknown_type 1 "blk.0.attn_q.weight" inspect "$dir/unknown_type"
    holds inspect.json '"count": 2048' inspect --json "$stories"
    holds inspect.memory "^session +[0-9]+ bytes" inspect --memory "$stories" -c 64 -t 2 --level auto
    holds inspect.memory_json '"session": [0-9]+' inspect --memory --json "$stories"
    refuses inspect.no_file 2 "operand" inspect
    refuses inspect.context_alone 2 "--memory" inspect "$stories" -c 5
    header='{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}'
    printf "\\$(printf %o ${#header})\\0\\0\\0\\0\\0\\0\\0${header}abcd" > "$dir/scalar"
    holds inspect.safetensors "a +F32 +scalar 4" inspect "$dir/scalar"
fi
if wanted quantize; then
    run 0 quantize "$llama" "$dir/q.gguf" Q8_0
    report quantize.writes $?
    holds quantize.result "Q8_0" inspect "$dir/q.gguf"
    holds quantize.runs "^[0-9 ]+$" evaluate "$dir/q.gguf" --ids 1,2,3 --greedy 4
    refuses quantize.unknown_type 2 "Q9_9" quantize "$llama" "$dir/q2" Q9_9
    refuses quantize.unwritable_output 1 "$dir/none/q" quantize "$llama" "$dir/none/q" Q8_0
    [ -w /dev/full ] && refuses quantize.output_is_full 1 "/dev/full" quantize "$llama" /dev/full Q8_0
    why="quantize left a file: $(ls "$dir")"
    ! ls "$dir" | grep -q 'q2\|\.part'
    report quantize.leaves_nothing $?
fi

# ---- convert ----

# near NAME FILE: $dir/logits holds the floats of FILE, but for the order of additions
near() {
    why="$1: the logits differ by more than 1e-4, or in number"
    [ "$(wc -c < "$2")" -eq "$(wc -c < "$dir/logits")" ] &&
        { od -A n -v -t f4 "$2"; echo and; od -A n -v -t f4 "$dir/logits"; } | tr -s ' ' '\n' | awk '
            $1 == "and" { second = 1; next } !/./ { next } !second { want[n++] = $1; next }
            { d = $1 - want[m++]; if (!(d < 1e-4 && d > -1e-4)) exit 1 } END { if (m != n || n == 0) exit 1 }'
    report "$1" $?
}
# broken NAME FROM TO FILE: a copy of the folder tests/data/hf-llama as $dir/NAME, FROM replaced by TO in its FILE
broken() {
    rm -rf "$dir/$1"
    cp -r tests/data/hf-llama "$dir/$1"
    sed "s|$2|$3|" "tests/data/hf-llama/$4" > "$dir/$1/$4"
}
if wanted convert; then
    out=$dir/converted.gguf
    for name in llama gpt2 bert; do
        run 0 convert tests/data/hf-$name "$out" --type F32 &&
            run 0 evaluate "$out" --ids "$(cat tests/data/hf-$name/ids)" --logits "$dir/logits"
        report convert.$name $?
        near convert.${name}_logits tests/data/hf-$name/logits.f32
    done
    for name in llama bert; do
        run 0 convert tests/data/hf-$name "$out"
        cp tests/data/hf-$name/text.ids "$dir/want"
        same convert.${name}_tokenizer tokenize "$out" --add-special -f tests/data/hf-$name/text
    done
    holds convert.pooling "bert.pooling_type.* 1$" inspect "$out"
    run 0 convert tests/data/hf-llama "$out"
    holds convert.own_type "blk.0.attn_q.weight +BF16 +16x16" inspect "$out"
    holds convert.chat_template "im_start" inspect "$out"
    holds convert.end_of_turn "tokenizer.ggml.eos_token_id.* 3$" inspect "$out"
    run 0 convert tests/data/hf-llama "$dir/f32.gguf" --type F32 && run 0 quantize "$dir/f32.gguf" "$dir/a.gguf" Q8_0 &&
        run 0 convert tests/data/hf-llama "$dir/b.gguf" --type Q8_0 -t 3 &&
        why="quantized on the way: not as quantize does" && cmp -s "$dir/a.gguf" "$dir/b.gguf"
    report convert.quantizes_on_the_way $?
    header='{"__metadata__":{"a\u0062":"c\nd"},"x":{"dtype":"I64","shape":[],"data_offsets":[0,8]}}'
    printf "\\$(printf %o ${#header})\\0\\0\\0\\0\\0\\0\\0%sabcdefgh" "$header" > "$dir/one.safetensors"
    run 0 convert "$dir/one.safetensors" "$out"
    report convert.safetensors $?
    holds convert.safetensors_tensor "^  x +I64 +1 8" inspect "$out"
    holds convert.safetensors_metadata '^  ab +string +"c.nd"' inspect "$out"
    refuses convert.safetensors_tokenizer 1 "--tokenizer" convert "$dir/one.safetensors" "$out" --tokenizer x
    refuses convert.safetensors_type 1 "U8" convert tests/data/small.safetensors "$out"

    refuses convert.no_input 1 "$dir/none" convert "$dir/none" "$out"
    refuses convert.no_operand 2 "operand" convert tests/data/hf-llama
    refuses convert.unknown_type 2 "Q9_9" convert tests/data/hf-llama "$out" --type Q9_9
    refuses convert.not_gguf_again 1 "GGUF" convert "$llama" "$out"
    refuses convert.unwritable_output 1 "$dir/none/q" convert tests/data/hf-llama "$dir/none/q"
    rm -f "$out"
    broken weights x x config.json
    rm "$dir/weights/"model*
    refuses convert.no_weights 1 "model.safetensors" convert "$dir/weights" "$out"
    broken config "64" "sixty" config.json
    refuses convert.bad_json 1 "line" convert "$dir/config" "$out"
    broken family '"model_type": "llama"' '"model_type": "klama"' config.json
    refuses convert.unknown_architecture 1 "klama" convert "$dir/family" "$out"
    broken activation '"silu"' '"relu"' config.json
    refuses convert.other_activation 1 "relu" convert "$dir/activation" "$out"
    broken heads '"num_attention_heads": 4' '"num_attention_heads": 3' config.json
    refuses convert.heads_in_no_groups 1 "3 heads" convert "$dir/heads" "$out"
    broken kv_heads '"num_key_value_heads": 2' '"num_key_value_heads": 4' config.json
    refuses convert.config_lies_about_heads 1 "blk.0.attn_k.weight: 8x16 in the file, 16x16 needed" \
        convert "$dir/kv_heads" "$out"
    broken layers '"num_hidden_layers": 2' '"num_hidden_layers": 3' config.json
    refuses convert.too_few_layers 1 "blk.2" convert "$dir/layers" "$out"
    broken layer '"num_hidden_layers": 2' '"num_hidden_layers": 1' config.json
    refuses convert.too_many_layers 1 "model.layers.1" convert "$dir/layer" "$out"
    broken vocab '"vocab_size": [0-9]*' '"vocab_size": 100' config.json
    refuses convert.small_vocabulary 1 "vocab_size" convert "$dir/vocab" "$out"
    broken huge '"hidden_size": 16' '"hidden_size": 99999999999' config.json
    refuses convert.huge_width 1 "hidden_size" convert "$dir/huge" "$out"
    broken rotation '"llama3"' '"dynamic"' config.json
    refuses convert.unknown_rotation 1 "dynamic" convert "$dir/rotation" "$out"
    broken shard "model-00002-of" "model-00009-of" model.safetensors.index.json
    refuses convert.missing_shard 1 "model-00009-of-00002.safetensors" convert "$dir/shard" "$out"
    broken outside "model-00002-of" "../../model-00002-of" model.safetensors.index.json
    refuses convert.shard_outside 1 "not the name of a file" convert "$dir/outside" "$out"
    broken name '"model.norm.weight"' '"model.morn.weight"' model.safetensors.index.json
    refuses convert.index_names_nothing 1 "model.morn.weight" convert "$dir/name" "$out"
    broken cut x x config.json
    head -c 9000 tests/data/hf-llama/model-00001-of-00002.safetensors > "$dir/cut/model-00001-of-00002.safetensors"
    refuses convert.truncated_shard 1 "model-00001-of-00002.safetensors" convert "$dir/cut" "$out"
    broken unknown x x config.json
    shard=model-00002-of-00002.safetensors
    poke tests/data/hf-llama/$shard "$dir/unknown/$shard" norm.weight -4 0x58
    rm "$dir/unknown/model.safetensors.index.json"
    refuses convert.no_index 1 "model.safetensors.index.json" convert "$dir/unknown" "$out"
    mv "$dir/unknown/$shard" "$dir/unknown/model.safetensors"
    refuses convert.leftover_tensor 1 "no place" convert "$dir/unknown" "$out"
    broken words 'p{N}{1,3}' 'p{N}{1,2}' tokenizer.json
    refuses convert.unknown_pretokenizer 1 "p{N}{1,2}" convert "$dir/words" "$out"
    broken merges '"type":"BPE"' '"type":"WordLevel"' tokenizer.json
    refuses convert.unknown_tokenizer 1 "WordLevel" convert "$dir/merges" "$out"
    head -c 100 tests/data/hf-llama/model-00001-of-00002.safetensors > "$dir/short.bin"
    refuses convert.no_checkpoint 1 "llama2.c" convert "$dir/short.bin" "$out"
    why="a failed conversion leaves a file" && [ -z "$(ls "$dir" | grep 'converted.gguf')" ]
    report convert.nothing_left $?
fi

# ---- bench: what it prints, never how fast ----

quick="-p 8 -n 4 -t 1 -r 1 --read 1"
# json NAME TEXT PROGRAM ARGUMENT...: prints JSON that holds TEXT
json() {
    name=$1 text=$2
    shift 2
    wanted "$name" || return
    run 0 "$@" && { why="$*: no JSON, or without $text"; grep -qF -- "$text" "$dir/out"; } &&
        if command -v python3 > /dev/null; then python3 -m json.tool "$dir/out" > /dev/null 2> "$dir/err"; fi
    report "$name" $?
}
if wanted bench; then
    json bench.json '"test": "decode", "tokens": 4' bench "$tiny" $quick --json
    json bench.several '"model": "tiny-gpt2.gguf"' bench "$llama" tests/data/tiny-gpt2.gguf $quick --json --repack
    json bench.lists '"threads": 2, "test": "prompt", "tokens": 3, "depth": 5' \
        bench "$tiny" -p 2,3 -n 0 -t 1,2 --depth 0,5 -r 1 --json
    json bench.nothing_to_time "[" bench "$tiny" -p 0 -n 0 --json
    json bench.machine '"what": "plain read of 1 MiB"' bench --machine -t 1 -r 1 --read 1 --json
    holds bench.text "^tiny-q8_0.gguf +Q8_0 +1 +decode" bench "$tiny" $quick --kv f16
    holds bench.markdown "^\\| tiny-q8_0.gguf \\| Q8_0 .* \\|$" bench "$tiny" $quick --md
    json bench.random '"model": "stories15m", "type": "Q4_K_M"' bench --random stories15m:Q4_K_M $quick --json
    run 0 bench --random stories15m:Q8_0 -p 0 -n 0 --out "$dir/random.gguf" --save "$dir/random.json" --json
    report bench.out $?
    cp "$dir/out" "$dir/want"
    why="--save writes something else than --json prints"
    cmp -s "$dir/want" "$dir/random.json"
    report bench.save $?
    if command -v python3 > /dev/null; then
        "$build/bench" "$tiny" -p 8 -n 4 -t 1 -r 1 --read 1 --save "$dir/tiny.json" > "$dir/out" 2> "$dir/err"
        python3 tools/bench_svg.py "$dir/bench.svg" "$dir/tiny.json" 2> "$dir/err" &&
            why="no bar in the drawing" && grep -q '<rect class="b"' "$dir/bench.svg"
        report bench.svg $?
    fi
    prints bench.only_out "" bench --random stories15m:Q4_0 -p 0 -n 0 --out "$dir/only.gguf"
    holds bench.out_runs "^[0-9 ]+$" evaluate "$dir/random.gguf" -p "aa bb" --greedy 4
    prints bench.out_tokens "259 287 259 314\n" tokenize "$dir/random.gguf" "ab bc"
    run 0 bench "$stories" -p 600 -n 4 -t 1 -r 1 --read 0 && run 0 bench tests/data/tiny-gpt2.gguf -p 100000 -n 1 -r 1
    why="a prompt beyond the positions of a gpt2 is not left out and said: $(cat "$dir/err")"
    grep -q "no position after" "$dir/err"
    report bench.beyond_positions $?
    refuses bench.no_model 2 "MODEL" bench
    refuses bench.two_things 2 "only one" bench "$tiny" --machine
    refuses bench.two_formats 2 "--md" bench "$tiny" --json --md
    refuses bench.unknown_shape 2 "gpt5" bench --random gpt5:Q8_0
    refuses bench.unknown_type 2 "Q9_9" bench --random stories15m:Q9_9
    refuses bench.no_type 2 "SHAPE:TYPE" bench --random stories15m
    refuses bench.empty_random 2 "--random" bench --random ""
    refuses bench.bad_list 2 "-t 2x" bench "$tiny" -t 1,2x
    refuses bench.empty_list 2 "-p" bench "$tiny" -p ""
    refuses bench.threads 2 "-t 257" bench "$tiny" -t 257
    refuses bench.no_runs 2 "-r 0" bench "$tiny" -r 0
    refuses bench.level 2 "--level best" bench "$tiny" --level best
    refuses bench.out_of_model 2 "--out" bench "$tiny" --out "$dir/x"
    refuses bench.out_of_two 2 "--out" bench --random stories15m:Q8_0,stories15m:Q4_0 --out "$dir/x"
    refuses bench.missing_file 1 "$dir/none" bench "$dir/none"
    refuses bench.not_a_model 1 "$dir/wrong_magic" bench "$dir/wrong_magic"
    refuses bench.unwritable_output 1 "$dir/none/x" bench --random stories15m:Q8_0 --out "$dir/none/x"
    [ -w /dev/full ] && refuses bench.output_is_full 1 "/dev/full" bench --random stories15m:Q8_0 --out /dev/full
    interrupted bench.interrupt bench --random stories15m:F32 -p 256 -n 256 -r 1000 -t 1 --out "$dir/kept.gguf"
    TMPDIR=$dir
    export TMPDIR
    interrupted bench.interrupt_temporary bench --random stories15m:F32 -p 256 -n 256 -r 1000 -t 1
    TMPDIR=$dir/none
    refuses bench.temporary_unwritable 1 "$dir/none" bench --random stories15m:F32
    unset TMPDIR
    why="bench left a file: $(ls "$dir")"
    ! ls "$dir" | grep -q 'tfm-bench\|\.part\|^x$'
    report bench.leaves_nothing $?
fi

# ---- embed, and encoders in evaluate ----

bert=tests/data/tiny-bert.gguf
if wanted embed; then
    printf '%s\n' "her sister was tired of it" "the picture" "she had no book in the bank" "reading" "" "Alice" \
        "Alice was tired" > "$dir/lines"
    prints embed.cosine "0.5860\n" embed $bert -a "Alice was reading a book" -b reading      # by transformers
    printf '%s\n' "0.8832  she had no book in the bank" "0.7869  her sister was tired of it" \
        "0.7793  the picture" "0.7314  Alice was tired" "0.5860  reading" > "$dir/want"   # and these
    same embed.search embed $bert --search "$dir/lines" "Alice was reading a book"
    head -n 2 "$dir/want" > "$dir/two" && mv "$dir/two" "$dir/want"
    same embed.search_two embed $bert -t 3 -n 2 --search "$dir/lines" "alice was READING a book"
    holds embed.line '^\{"text": "reading", "embedding": \[(-?[0-9.e-]+, ){31}-?[0-9.e-]+\]\}$' embed $bert -f "$dir/lines"
    why="embed -f: $(wc -l < "$dir/out") lines of 7"
    [ "$(wc -l < "$dir/out")" -eq 7 ]
    report embed.every_line $?
    sed -n 2p "$dir/out" > "$dir/want"
    same embed.one_text embed $bert -a "the picture"
    printf 'the picture\r\n' > "$dir/crlf"
    same embed.crlf embed $bert -f "$dir/crlf"
    yes alice | head -n 200 | tr '\n' ' ' > "$dir/long"
    run 0 embed $bert -f "$dir/long" && why="nothing on stderr of the 202 tokens" &&
        grep -q '202 tokens, only 80' "$dir/err"
    report embed.long_text $?
    refuses embed.nothing_to_do 2 "-a, -f and --search" embed $bert
    refuses embed.b_alone 2 "-a is missing" embed $bert -b x
    refuses embed.two_things 2 "-a, -f and --search" embed $bert -a x -f "$dir/lines"
    refuses embed.no_query 2 "query is missing" embed $bert --search "$dir/lines"
    refuses embed.query_of_nothing 2 "a query is for --search" embed $bert -a x y
    refuses embed.decoder 1 "llama is no encoder" embed "$llama" -a x
    refuses embed.missing_lines 1 "$dir/none" embed $bert -f "$dir/none"
    refuses generate.encoder 1 "bert is an encoder" generate $bert -p alice
    refuses evaluate.encoder_greedy 1 "no next token" evaluate $bert --ids 2,5,3 --greedy 3
    refuses evaluate.encoder_perplexity 1 "no next token" evaluate $bert -p alice
    run 0 evaluate $bert --ids 2,5,3 --logits "$dir/pooled" && why="the pooled output has another size than 32 floats" &&
        [ "$(wc -c < "$dir/pooled")" -eq 128 ]
    report evaluate.encoder $?
fi

# ---- classify ----

# near FILE_A FILE_B: two files of f32 differ by at most 1e-4
floats() { od -An -v -t f4 "$1" | awk '{ for (i = 1; i <= NF; i++) print $i }'; }
near() {
    floats "$1" > "$dir/a"; floats "$2" > "$dir/b"
    paste "$dir/a" "$dir/b" | awk 'NF != 2 || !(($1 - $2) ^ 2 <= 1e-8) { bad = 1 } END { exit bad || NR == 0 }'
}
if wanted classify; then
    vit=tests/data/vit hf=tests/data/vit/hf/model.safetensors
    for m in hf deit timm timm-distilled; do                # logits by transformers and timm
        run 0 classify $vit/$m/model.safetensors $vit/picture.ppm --logits "$dir/logits" &&
            why="$m: logits $(floats "$dir/logits" | tr '\n' ' ')" && near "$dir/logits" $vit/$m/logits.f32
        report classify.$m $?
    done
    printf '%s\n' "0.3765  cat" "0.2674  T-shirt/top" "0.2147  ship" "0.0735  horse" "0.0284  dog" > "$dir/want"
    same classify.top_five classify $hf $vit/picture.ppm
    for i in picture16.ppm picture-plain.ppm picture24.bmp picture32.bmp; do same classify.$i classify $hf $vit/$i; done
    keep classify $hf $vit/few.ppm
    same classify.few8.bmp classify $hf $vit/few8.bmp
    keep classify $hf $vit/grey.pgm
    same classify.grey-plain.pgm classify $hf $vit/grey-plain.pgm
    same classify.grey8.bmp classify $hf $vit/grey8.bmp
    printf '%s\n' "$vit/grey.pgm:" "0.4318  T-shirt/top" "$vit/grey8.bmp:" "0.4318  T-shirt/top" > "$dir/want"
    run 0 classify $vit/timm/model.safetensors -n 1 $vit/grey.pgm $vit/grey8.bmp &&
        [ "$(grep -c '^tests/data/vit/grey.*:$' "$dir/out")" -eq 2 ] && [ "$(wc -l < "$dir/out")" -eq 4 ]
    report classify.two_images $?
    printf '%s\n' a b c d e f "g g" > "$dir/labels"
    holds classify.labels '^0.3765  a$' classify $hf $vit/picture.ppm --labels "$dir/labels"
    keep classify $hf $vit/picture.ppm
    same classify.options classify $hf $vit/picture.ppm --heads 3 --mean .5 --std 0.4,0.5,0.6
    head -n 6 "$dir/labels" > "$dir/fewer"
    refuses classify.few_labels 1 "6 labels for 7 classes" classify $hf $vit/picture.ppm --labels "$dir/fewer"
    refuses classify.heads 1 "24 is not a multiple of 5 heads" classify $hf $vit/picture.ppm --heads 5
    refuses classify.mean 2 "--mean 1,2" classify $hf $vit/picture.ppm --mean 1,2
    refuses classify.std 1 "std of 0" classify $hf $vit/picture.ppm --std 0
    refuses classify.no_image 2 "an operand is missing" classify $hf
    refuses classify.gguf 1 "no vision transformer" classify "$llama" $vit/picture.ppm
    mkdir "$dir/vit"
    poke $hf "$dir/vit/extra" classifier.bias -1 0x78       # classifier.biax now
    poke $hf "$dir/vit/missing" vit.layernorm.weight -1 0x78
    poke $hf "$dir/vit/shape" '"vit.layernorm.weight":{"dtype":"F32","shape":[' 0 0x34       # 44 of 24
    refuses classify.extra_tensor 1 "classifier.biax: the tensor has no place" classify "$dir/vit/extra" \
        $vit/picture.ppm --heads 3
    refuses classify.missing_tensor 1 "vit.layernorm.weight: the tensor is missing" classify "$dir/vit/missing" \
        $vit/picture.ppm --heads 3
    refuses classify.wrong_shape 1 "vit.layernorm.weight" classify "$dir/vit/shape" $vit/picture.ppm
    cp $hf "$dir/vit/model"
    refuses classify.unknown_heads 1 "--heads is needed" classify "$dir/vit/model" $vit/picture.ppm
    printf '{"num_attention_heads": 3,}' > "$dir/vit/config.json"
    refuses classify.bad_config 1 "config.json: line 1" classify "$dir/vit/model" $vit/picture.ppm

    # refuses_image NAME TEXT: what stands in $dir/i is no picture
    refuses_image() { refuses classify.$1 1 "$2" classify $hf "$dir/i"; }
    printf '' > "$dir/i"; refuses_image empty "neither PPM"
    printf 'P7\n' > "$dir/i"; refuses_image pam "neither PPM"
    printf 'P5 2 2 255\nabc' > "$dir/i"; refuses_image short "need 4 bytes, there are 3"
    printf 'P5 2 2 255\nabcde' > "$dir/i"; refuses_image long "something follows"
    printf 'P5 2 2\n' > "$dir/i"; refuses_image no_maximum "the largest sample"
    printf 'P5 2 2 0\nabcd' > "$dir/i"; refuses_image maximum_zero "not between 1 and 65535"
    printf 'P5 2 2 65536\nabcdabcd' > "$dir/i"; refuses_image maximum_large "not between 1 and 65535"
    printf 'P5 0 2 255\n' > "$dir/i"; refuses_image width_zero "0 x 2"
    printf 'P6 60000 60000 255\nabc' > "$dir/i"; refuses_image huge "need 10800000000 bytes"
    printf 'P6 99999999999999999999 1 255\nabc' > "$dir/i"; refuses_image overflow "the width"
    printf 'P5 -2 2 255\nabcd' > "$dir/i"; refuses_image negative "the width"
    printf 'P2 2 2 9\n1 2 3 10' > "$dir/i"; refuses_image sample "sample 3 is 10, the largest 9"
    printf 'P2 2 2 9\n1 2 3x4' > "$dir/i"; refuses_image letters "a sample"
    printf 'P2 2 2 9\n1 1 1   ' > "$dir/i"; refuses_image too_few "a sample"
    head -c 53 $vit/picture24.bmp > "$dir/i"; refuses_image bmp_header "53 bytes"
    head -c 885 $vit/picture24.bmp > "$dir/i"; refuses_image bmp_short "there are 831"
    poke $vit/picture24.bmp "$dir/i" BM 28 1; refuses_image bmp_compressed "compression 1"
    poke $vit/picture24.bmp "$dir/i" BM 26 4; refuses_image bmp_bits "4 bits"
    poke $vit/picture24.bmp "$dir/i" BM 12 12; refuses_image bmp_old "header of 12 bytes"
    poke $vit/picture24.bmp "$dir/i" BM 8 0xff 0xff 0xff 0xff; refuses_image bmp_offset "begin at byte 4294967295"
    poke $vit/picture24.bmp "$dir/i" BM 16 0xff 0xff 0xff 0x7f; refuses_image bmp_wide "2147483647 x 13"
    poke $vit/picture24.bmp "$dir/i" BM 20 0 0 0 0x80; refuses_image bmp_high "21 x 2147483648"
    poke $vit/few8.bmp "$dir/i" BM 44 3; refuses_image bmp_palette "the palette has 3"
    poke $vit/few8.bmp "$dir/i" BM 44 0xff 0xff; refuses_image bmp_palette_long "palette of 65535 colours"
fi

# ---- The other examples ----

printf '%s\n' "  0.7897   1.5776   1.0964   1.8843   1.4032" "  2.9668   2.9146   2.5874   2.5352   2.2080" \
    "  2.6407   2.6643   2.0635   2.0870   1.4862" > "$dir/want"                 # by PyTorch, as the next
same attention.result attention
printf '%s\n' "  0.1760   0.2845   0.5394" "  0.2565   0.3312   0.4123" "  0.4197   0.3438   0.2365" \
    "  0.3588   0.3405   0.3006" "  0.3530   0.3492   0.2978" > "$dir/want"
same layers.result layers

# ---- Nets of layers: convert, evaluate, sentiment, charlstm ----

# near NAME FILE: the numbers of $dir/out are those of FILE within 1e-5
near() {
    why="$(head -c 200 "$dir/out") is not $(head -c 200 "$2")"
    tr ' ' '\n' < "$dir/out" > "$dir/got"
    tr ' ' '\n' < "$2" | paste "$dir/got" - | awk 'NF != 2 || $1 - $2 > 1e-5 || $2 - $1 > 1e-5 { bad = 1 }
        END { exit bad || NR == 0 }'
    report "$1" $?
}
for net in graph sequences stacked uint8; do
    wanted "convert.tfjs_$net" || continue
    folder=tests/data/tfjs/$net
    run 0 convert "$folder/model.json" "$dir/net.gguf" &&
        run 0 evaluate "$dir/net.gguf" --ids "$(paste -s -d , "$folder/ids.txt")"
    near "convert.tfjs_$net" "$folder/expected.txt"
done
damaged() {                             # damaged NAME TEXT SED_SCRIPT: a model.json changed so is refused with TEXT
    mkdir -p "$dir/tfjs"
    cp tests/data/tfjs/graph/* "$dir/tfjs"
    sed "$3" tests/data/tfjs/graph/model.json > "$dir/tfjs/model.json"
    refuses "convert.tfjs_$1" 1 "$2" convert "$dir/tfjs/model.json" "$dir/none.gguf"
    [ -e "$dir/none.gguf" ] && { why="$1 left a file"; report "convert.tfjs_$1_leaves_nothing" 1; }
}
damaged layer "Conv1D is not supported" 's/"class_name":"Dropout"/"class_name":"Conv1D"/'
damaged activation "the activation 'mish' is not supported" 's/"activation":"selu"/"activation":"mish"/'
damaged weight "its weight kernel is missing" 's|"dense_Dense1/kernel"|"dense_Dense1/kernels"|'
damaged unused_weight "belongs to no layer" 's/"Embedding"/"Dropout"/'
damaged dtype "its dtype is not float32" 's/"shape":\[11,5\],"dtype":"float32"/"shape":[11,5],"dtype":"int32"/'
damaged shape "bytes" 's/"shape":\[11,5\]/"shape":[11,6]/'
damaged shape_overflow "its shape is none" 's/"shape":\[11,5\]/"shape":[99999999999,5]/'
damaged shape_empty "0 elements" 's/"shape":\[11,5\]/"shape":[0,5]/'
damaged path "outside its folder" 's,"group1-shard1of2.bin","/dev/zero",'
damaged path_up "outside its folder" 's,"group1-shard1of2.bin","../x",'
damaged shard "No such file" 's,"group1-shard1of2.bin","none",'
damaged read "is read before it is there" 's/"inbound_nodes":\[\[\["[a-z_A-Z0-9]*"/"inbound_nodes":[[["nobody"/'
damaged json "line 1" 's/}$//'
damaged graph_model "only layers-format models convert" 's/"format":"layers-model"/"format":"graph-model"/'
damaged nothing "neither modelTopology" 's/.*/{}/'
damaged return_state "return_state is not supported" 's/"return_state":false/"return_state":true/'
run 0 convert tests/data/tfjs/graph/model.json "$dir/net.gguf"
refuses evaluate.net_greedy 2 "--greedy" evaluate "$dir/net.gguf" --ids 1,2,3,4,5,6,7 --greedy 1
refuses evaluate.net_too_few 1 "8 ids are no whole number of samples of 7" evaluate "$dir/net.gguf" --ids 1,2,3,4,5,6,7,8
refuses evaluate.net_id 1 "token id 11" evaluate "$dir/net.gguf" --ids 1,2,3,4,5,6,11
refuses evaluate.net_numbers 1 "takes ids" evaluate "$dir/net.gguf" --input README.md
refuses evaluate.input_of_model 1 "is no net of layers" evaluate "$tiny" --input README.md
refuses sentiment.no_words 1 "no tokenizer" sentiment -m "$dir/net.gguf" good
refuses sentiment.model 1 "architecture" sentiment -m "$tiny" good
refuses charlstm.model 1 "architecture" charlstm "$tiny"
refuses charlstm.both 2 "--bpc" charlstm -p a --bpc README.md
printf '{"vocab": {"bad": 1, "good": 2}, "unknown": 0, "alone": "!", "labels": ["no", "so", "yes"]}' > "$dir/text.json"
if wanted sentiment; then
    run 0 convert tests/data/tfjs/graph/model.json "$dir/net.gguf" --tokenizer "$dir/text.json"
    keep evaluate "$dir/net.gguf" --ids 2,0,1,0,0,0,0
    set -- $(cat "$dir/want")
    printf 'no %.4f so %.4f yes %.4f\n' "$1" "$2" "$3" > "$dir/want"
    same sentiment.padded sentiment -m "$dir/net.gguf" --all "Good or BAD"
    printf 'Good or BAD\n\nGood or BAD' > "$dir/lines"
    "$build/sentiment" -m "$dir/net.gguf" --all < "$dir/lines" > "$dir/out" 2> "$dir/err"
    why="sentiment on three lines: $(cat "$dir/out")"
    [ "$(wc -l < "$dir/out")" -eq 3 ] && [ "$(grep -cxF "$(cat "$dir/want")" "$dir/out")" -eq 2 ]
    report sentiment.lines $?
    keep evaluate "$dir/net.gguf" --ids 1,1,2,1,2,1,2
    prints evaluate.words "$(cat "$dir/want")\n" evaluate "$dir/net.gguf" -p "bad bad good bad good bad good"
    refuses sentiment.vocabulary 1 "\"good\" has no id" convert tests/data/tfjs/graph/model.json "$dir/none.gguf" \
        --tokenizer "$(printf '{"good": -1}' > "$dir/t.json"; echo "$dir/t.json")"
fi

if [ -f examples/models/sentiment.gguf ]; then
    holds sentiment.shipped_likes '^positive 0\.' sentiment "I loved this movie, what a great film"
    holds sentiment.shipped_dislikes '^negative 0\.' sentiment "The worst food I have ever had."
fi
if [ -f examples/models/shakespeare-lstm.gguf ]; then
    keep charlstm -n 100 -s 1 -p "ROMEO:"
    same charlstm.same_seed charlstm -n 100 -s 1 -p "ROMEO:"
    printf 'ROMEO:%s' "$(cat "$dir/want")" > "$dir/echoed"
    cp "$dir/echoed" "$dir/want"
    same charlstm.echo charlstm -n 100 -s 1 -p "ROMEO:" --echo
fi

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
