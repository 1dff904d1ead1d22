#!/usr/bin/env python3
"""Train the small sentiment model that comes with tfm.h (examples/sentiment.c) in Keras.

    python3 tools/train_sentiment.py shared/corpus --out DIR              # DIR/sentiment.keras, DIR/sentiment.json
    python3 tools/train_sentiment.py shared/corpus --folds 5              # cross-validation on the training lines
    python3 tools/train_sentiment.py shared/corpus --out DIR --test       # accuracy on the test lines

Needs Keras 3 with TensorFlow, and numpy. The folder holds reviews-train.tsv (`label<TAB>sentence`, 1 positive), the
only text and labels that are learned from, reviews-test.tsv and sentiment-test.tsv, which are only measured, and
book-*.txt, whose words fill the vocabulary. Options:
    --epochs N     passes over the training sentences (default 12)
    --folds N      cross-validation with N parts; --only M runs the first M of them
    --seed N       random seed (default 1)

The net is Embedding(10000, 32) of 50 words -> LSTM(128) -> Dense(1, sigmoid). On 2,368 sentences it would learn each
by heart, so it learns from a teacher: a logistic regression with naive Bayes weights (Wang and Manning, 2012,
"Baselines and bigrams") over words, beginnings of words (so that "disappointedly" is known from "disappointing") and
words with a negation shortly before them. Its score is a sum over words, so it can label any text: sentences with
words left out, and the beginning of one joined to the end of another, new ones in every epoch. Two of a word's 32
numbers begin as the teacher's scores of the word and of the negated word.
"""
import argparse, collections, glob, json, os, re
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import keras
import tensorflow as tf

WORDS, LENGTH, WIDTH, UNITS = 10000, 50, 32, 128
PAD, UNKNOWN = 0, 1
NEGATIONS = set("no not nor never hardly don't dont didn't doesn't isn't wasn't won't can't couldn't wouldn't".split())
REACH = 3                 # how many words a negation reaches
BEGINNINGS = (4, 5, 6)    # letters
RIDGE = 2.0               # l2 of the teacher
BATCH, RATE = 32, 2e-3


def words_of(text):
    """Lower-cased runs of letters and apostrophes; ! and ? are words, all else ends a word."""
    return re.findall(r"[a-z']+|[!?]", text.lower())


def read_lines(path):
    """(lists of words, labels)"""
    with open(path, encoding="utf-8") as f:
        rows = [line.rstrip("\n").split("\t", 1) for line in f]
    return [words_of(text) for _, text in rows], np.array([int(label) for label, _ in rows])


# ---------------------------------------------------------------- the teacher

def marked(words):
    """The sentence's distinct words, each with whether a negation stands at most REACH words before it."""
    return {(w, any(v in NEGATIONS for v in words[max(0, i - REACH):i])) for i, w in enumerate(words)}


def features(word, negated):
    return [word] + ["not " + word] * negated + [word[:n] + "*" + str(n) for n in BEGINNINGS if len(word) >= n]


class Teacher:
    """Naive Bayes log ratios as scales of the features, then logistic regression with l2 (Newton's method)."""

    def __init__(self, sentences, labels):
        counts = [collections.Counter(f for m in marked(s) for f in features(*m)) for s in sentences]
        number = {f: i for i, f in enumerate(sorted(set().union(*counts)))}
        x = np.zeros((len(counts), len(number)))
        for row, count in zip(x, counts):
            for f, n in count.items():
                row[number[f]] = n
        positive, negative = (1 + x[labels == k].sum(0) for k in (1, 0))
        ratio = np.log(positive / positive.sum()) - np.log(negative / negative.sum())
        x *= ratio
        kernel, f = x @ x.T + 1, np.zeros(len(x))  # + 1: the bias, as a feature that is always 1
        for _ in range(12):
            p = 1 / (1 + np.exp(-f))
            weight = np.maximum(p * (1 - p), 1e-4)
            dual = np.linalg.solve(kernel + np.diag(RIDGE / weight), f + (labels - p) / weight)
            f = kernel @ dual
        self.weights = dict(zip(number, x.T @ dual * ratio))
        self.bias = dual.sum()

    def score(self, word, negated):
        return sum(self.weights.get(f, 0.0) for f in features(word, negated))

    def probability(self, words):
        return 1 / (1 + np.exp(-self.bias - sum(self.score(*m) for m in marked(words))))


# ---------------------------------------------------------------- the net

def words_of_books(folder):
    """The books' words, the most frequent first."""
    counts = collections.Counter()
    for path in sorted(glob.glob(f"{folder}/book-*.txt")):
        with open(path, encoding="utf-8") as f:
            counts.update(words_of(f.read().replace("\u2019", "'")))
    return sorted(counts, key=lambda w: (-counts[w], w))


def vocabulary(sentences, books, teacher):
    """[PAD], [UNK], the training words, and words of the books that the teacher knows from their beginnings"""
    own = {w for s in sentences for w in s}
    extra = [w for w in books if w not in own and teacher.score(w, False) != 0]
    return (["[PAD]", "[UNK]"] + sorted(own) + extra)[:WORDS]


def encode(sentences, number, length=LENGTH):
    """Ids, padded and cut on the left as keras.utils.pad_sequences does."""
    ids = [[number.get(w, UNKNOWN) for w in s] for s in sentences]
    return keras.utils.pad_sequences(ids, maxlen=length)


def net(dropout=0.0, length=LENGTH):
    layers = [keras.Input((length,), dtype="int32"), keras.layers.Embedding(WORDS, WIDTH), keras.layers.LSTM(UNITS)]
    layers += [keras.layers.Dropout(dropout)] if dropout else []
    return keras.Sequential(layers + [keras.layers.Dense(1, activation="sigmoid")], name="sentiment")


def examples(sentences, teacher, random):
    """One epoch: (words, wanted probability) from every sentence and as many spliced ones."""
    for words in sentences:
        kept = [w for w in words if random.random() >= 0.15] or words
        yield kept, teacher.probability(kept)
        a, b = (sentences[i] for i in random.integers(len(sentences), size=2))
        joined = a[:random.integers(len(a) + 1)] + b[random.integers(len(b) + 1):]
        yield joined[-LENGTH:], teacher.probability(joined[-LENGTH:])


def batches(sentences, teacher, number, random):
    """Batches of like lengths; a quarter is padded to the full length, the books as far as they need."""
    items = sorted(examples(sentences, teacher, random), key=lambda e: len(e[0]) + 4 * random.random())
    for i in random.permutation(len(items) // BATCH):
        part = items[i * BATCH:(i + 1) * BATCH]
        length = LENGTH if random.random() < 0.25 else min(LENGTH, max(len(w) for w, _ in part) + 1)
        yield encode([w for w, _ in part], number, length), np.array([[p] for _, p in part], np.float32)


def train(sentences, labels, books, args, watch=None):
    """(the trained net, its vocabulary, the teacher); watch: called with the net after every third epoch"""
    keras.utils.set_random_seed(args.seed)
    random = np.random.default_rng(args.seed)
    teacher = Teacher(sentences, labels)
    words = vocabulary(sentences, books, teacher)
    number = {w: i for i, w in enumerate(words)}
    learner, model = net(0.1, None), net()
    table = learner.layers[0].get_weights()[0]
    for i, w in enumerate(words[2:], 2):
        table[i, :2] = teacher.score(w, False) / 2, teacher.score(w, True) / 2
    learner.layers[0].set_weights([table])
    steps = args.epochs * (2 * len(sentences) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=RATE, warmup_steps=100)
    optimizer = keras.optimizers.Adam(rate, clipnorm=1.0, use_ema=True, ema_momentum=0.99)
    learner.compile(optimizer, "binary_crossentropy")
    step = tf.function(learner.train_step, reduce_retracing=True)
    for epoch in range(args.epochs):
        losses = [step((tf.constant(x), tf.constant(y)))["loss"]
                  for x, y in batches(sentences, teacher, number, random)]
        print(f"  epoch {epoch + 1}: loss {float(losses[-1]):.4f}", flush=True)
        if epoch == args.epochs - 1:
            optimizer.finalize_variable_values(learner.trainable_variables)
        model.set_weights(learner.get_weights())
        if watch and (epoch % 3 == 2 or epoch == args.epochs - 1):
            watch(model, number, teacher)
    return model, words, teacher


def accuracy(probabilities, labels):
    return float(((np.asarray(probabilities).ravel() > 0.5) == labels).mean())


def cross_validate(sentences, labels, books, args):
    fold = np.random.default_rng(0).permutation(len(sentences)) % args.folds
    results = []
    for k in range(min(args.folds, args.only or args.folds)):
        left, out = ([s for s, f in zip(sentences, fold) if (f == k) == held] for held in (False, True))
        wanted, figures = labels[fold == k], []

        def watch(model, number, teacher):
            figures.append((accuracy([teacher.probability(s) for s in out], wanted),
                            accuracy(model.predict(encode(out, number), verbose=0), wanted)))

        train(left, labels[fold != k], books, args, watch)
        results.append(figures[-1])
        print(f"part {k}: teacher {figures[-1][0]:.4f}, net", *(f"{f[1]:.4f}" for f in figures), flush=True)
    print("mean: teacher {:.4f}, net {:.4f}".format(*np.mean(results, 0)))


def save(model, words, out):
    """The net for keras2gguf.py, and how it reads text for its --tokenizer."""
    model.save(f"{out}/sentiment.keras")
    text = dict(vocab=words, unknown=UNKNOWN, lowercase=True, letters="abcdefghijklmnopqrstuvwxyz'", alone="!?",
                padding="left", truncation="left", labels=["negative", "positive"])
    with open(f"{out}/sentiment.json", "w", encoding="utf-8") as f:
        json.dump(text, f, indent=0)


def test(folder, out):
    model = keras.models.load_model(f"{out}/sentiment.keras")
    with open(f"{out}/sentiment.json", encoding="utf-8") as f:
        number = {w: i for i, w in enumerate(json.load(f)["vocab"])}
    for name in ("reviews-train", "reviews-test", "sentiment-test"):
        sentences, labels = read_lines(f"{folder}/{name}.tsv")
        figure = accuracy(model.predict(encode(sentences, number), verbose=0), labels)
        print(f"{name}.tsv: {figure:.4f} of {len(labels)} lines")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    p.add_argument("--out", default=".")
    p.add_argument("--epochs", type=int, default=12)
    p.add_argument("--folds", type=int, default=0)
    p.add_argument("--only", type=int, default=0)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--test", action="store_true")
    args = p.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if args.test:
        return test(args.folder, args.out)
    sentences, labels = read_lines(f"{args.folder}/reviews-train.tsv")
    books = words_of_books(args.folder)
    if args.folds:
        return cross_validate(sentences, labels, books, args)
    os.makedirs(args.out, exist_ok=True)
    model, words, _ = train(sentences, labels, books, args)
    save(model, words, args.out)
    test(args.folder, args.out)


if __name__ == "__main__":
    main()
