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

for p in generate evaluate tokenize inspect quantize convert bench; do
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
for p in "generate" "evaluate --ids 1 --greedy 1" "inspect" "inspect --memory" "tokenize -f /dev/null"; do
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
    for name in llama gpt2; do
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

# ---- The other examples ----

printf '%s\n' "  0.7897   1.5776   1.0964   1.8843   1.4032" "  2.9668   2.9146   2.5874   2.5352   2.2080" \
    "  2.6407   2.6643   2.0635   2.0870   1.4862" > "$dir/want"                 # by PyTorch, as the next
same attention.result attention
printf '%s\n' "  0.1760   0.2845   0.5394" "  0.2565   0.3312   0.4123" "  0.4197   0.3438   0.2365" \
    "  0.3588   0.3405   0.3006" "  0.3530   0.3492   0.2978" > "$dir/want"
same layers.result layers

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
