#!/usr/bin/env python3
"""Makes the fixtures of tests/test_net.c with Keras 3: small nets with random weights, as tools/keras2gguf.py converts
them, with inputs and Keras's predictions in their metadata (test.x, test.y, both for a batch of test.count).

    KERAS_BACKEND=tensorflow python3 tools/vectors/nets.py [FOLDER]     (pip install keras tensorflow-cpu)

net-classic.gguf holds no weights: Embedding(10000, 32) of 50 ids, LSTM(128), Dense(1, sigmoid) with weights and 100
inputs that the test makes from the same seed, and the predictions.
"""

import json
import os
import sys
import tempfile

import numpy as np
import keras
from keras import layers

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from gguf_file import write_gguf
from keras2gguf import convert_model, text_metadata

COUNT = 6                               # samples per net
STEPS, VOCAB, WIDTH = 7, 11, 5

folder = "tests/data"
rng = np.random.default_rng(20261127)


def randomize(model):
    """Weights that matter: Keras's biases begin as zeros. Variances stay positive."""
    for v in model.weights:
        values = rng.standard_normal(v.shape).astype(np.float32) * 0.5
        v.assign(np.abs(values) + 0.1 if "variance" in v.path else values)


def save(name, model, x):
    y = model.predict(x, verbose=0).astype(np.float32)
    meta, tensors = convert_model(model, "hard_sigmoid_2")
    meta.update({"test.x": np.ascontiguousarray(x).ravel(), "test.y": y.ravel(), "test.count": len(x)})
    path = os.path.join(folder, f"net-{name}.gguf")
    write_gguf(path, meta, tensors)
    print(f"{path}: {os.path.getsize(path)} bytes, y {y.shape}")


def ids(low=0):
    return rng.integers(low, VOCAB, (COUNT, STEPS)).astype(np.int32)


def numbers(*shape):
    return rng.standard_normal((COUNT, *shape)).astype(np.float32)


def padded():
    """ids with zeros before, after, among and instead of the others"""
    x = ids(1)
    for i, zeros in enumerate([[], [0, 1, 2], [5, 6], [0, 3, 6], range(STEPS), [2]] * (COUNT // 6)):
        x[i, list(zeros)] = 0
    return x


def text_net(*rest, mask_zero=False, steps=STEPS):
    return keras.Sequential([keras.Input((steps,)), layers.Embedding(VOCAB, WIDTH, mask_zero=mask_zero), *rest])


def small_nets():
    yield ("lstm", text_net(layers.LSTM(6), layers.Dense(1, activation="sigmoid")), ids())
    yield ("stacked", text_net(layers.LSTM(6, return_sequences=True), layers.Dropout(0.5),
                               layers.LSTM(4, return_sequences=True, go_backwards=True),
                               layers.LSTM(3, use_bias=False), layers.Dense(3, activation="softmax")), ids())
    yield ("gru", text_net(layers.GRU(6, return_sequences=True), layers.GRU(4, reset_after=False),
                           layers.Dense(2, use_bias=False)), ids())
    for merge in ("concat", "sum", "mul", "ave"):
        yield ("both-" + merge, text_net(
            layers.Bidirectional(layers.LSTM(4, return_sequences=True), merge_mode=merge),
            layers.Bidirectional(layers.GRU(3, reset_after=merge == "mul"), merge_mode=merge)), ids())
    yield ("masked", text_net(
        layers.Bidirectional(layers.LSTM(4, return_sequences=True)), layers.Dense(3, activation="tanh"),
        layers.GRU(3, return_sequences=True, go_backwards=True), layers.SimpleRNN(4), mask_zero=True), padded())
    yield ("masked-sequences", text_net(
        layers.LSTM(4, return_sequences=True, recurrent_activation="hard_sigmoid"),
        layers.GRU(3, return_sequences=True), mask_zero=True), padded())
    x = padded()
    x[4::6, 3] = 1                      # the mean of no step is NaN
    yield ("masked-mean", text_net(layers.LSTM(4, return_sequences=True), layers.GlobalAveragePooling1D(),
                                   mask_zero=True), x)
    yield ("open", text_net(layers.SimpleRNN(4, return_sequences=True), layers.Dense(VOCAB), steps=None), ids())


def graphs():
    inputs = keras.Input((STEPS,))
    x = layers.Embedding(VOCAB, WIDTH)(inputs)
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True, recurrent_activation="hard_sigmoid",
                                        reset_after=False))(x)
    x = layers.Concatenate()([layers.GlobalAveragePooling1D()(x), layers.Dropout(0.1)(layers.GlobalMaxPooling1D()(x))])
    yield ("pools", keras.Model(inputs, layers.Dense(3, activation="softmax")(x)), ids())
    inputs = keras.Input((STEPS, 3))
    x = layers.LayerNormalization()(layers.Dense(4, activation="gelu")(inputs))
    x = layers.Add()([x, layers.BatchNormalization()(layers.TimeDistributed(layers.Dense(4))(x)), x])
    x = layers.Concatenate()([layers.Flatten()(x), layers.GlobalMaxPooling1D()(inputs)])
    yield ("residual", keras.Model(inputs, x), numbers(STEPS, 3))


def activations():
    names = ["relu", "gelu", "silu", "tanh", "sigmoid", "softmax", "hard_sigmoid", "relu6", "elu", "selu", "softplus",
             "softsign", "exponential", "linear"]
    inputs = keras.Input((3,))
    yield ("activations", keras.Model(inputs, layers.Concatenate()(
        [layers.Concatenate()([layers.Dense(4, activation=name)(inputs) for name in names[at:at + 7]])
         for at in (0, 7)])), numbers(3))
    net = keras.Sequential([keras.Input((STEPS, 3)), layers.LSTM(4, activation="softsign", return_sequences=True,
                                                                 recurrent_activation="hard_sigmoid"),
                            layers.GRU(4, activation="relu", recurrent_activation="tanh", return_sequences=True),
                            layers.SimpleRNN(4, activation="elu")])
    yield ("cells", net, numbers(STEPS, 3))
    net = keras.Sequential([keras.Input((3,)), layers.Dense(5, activation="relu"), layers.ReLU(), layers.Dense(2),
                            layers.Softmax()])
    yield ("dense", net, numbers(3))


# ---- The classic -------------------------------------------------------------------------------

def uniform(seed, count):
    """`count` numbers in [-1, 1) from tfm_random (splitmix64) begun with seed"""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.uint64(0x9e3779b97f4a7c15) * np.arange(1, count + 1, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xbf58476d1ce4e5b9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94d049bb133111eb)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - np.float32(1)


def classic_model():
    model = keras.Sequential([keras.Input((50,)), layers.Embedding(10000, 32), layers.LSTM(128),
                              layers.Dense(1, activation="sigmoid")])
    for seed, v in enumerate(model.weights):
        v.assign(uniform(seed + 1, int(np.prod(v.shape))).reshape(v.shape) * np.float32(0.25 if seed else 2))
    return model, ((uniform(99, 100 * 50) + 1) * 5000).astype(np.int32).reshape(100, 50)


def classic():
    model, x = classic_model()
    y = model.predict(x, verbose=0).astype(np.float32)
    write_gguf(os.path.join(folder, "net-classic.gguf"), {"test.y": y.ravel()}, {})
    print("classic:", y.min(), y.mean(), y.max())


# ---- Text --------------------------------------------------------------------------------------

TEXTS = ["Not bad at all, I'd say!", "The   plot...the actors:\tall bad_bad (really)", "", "unknown wörds — \u201cquoted\u201d",
         "don't DON'T dont", "A-B a-b 10/10 #1", "\u00c4rger und \u00c4ra", "[UNK] the [PAD]"]


def text_fixture(name, text, ids):
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8", delete=False) as f:
        json.dump(text, f)
    meta = text_metadata(f.name)
    os.remove(f.name)
    meta.update({"test.texts": TEXTS, "test.counts": np.array([len(i) for i in ids], np.int32),
                 "test.ids": np.array([i for one in ids for i in one], np.int32)})
    write_gguf(os.path.join(folder, f"words-{name}.gguf"), meta, {})
    print(f"words-{name}: {ids}")


def words():
    from keras.src.legacy.preprocessing.text import Tokenizer
    tokenizer = Tokenizer()
    tokenizer.fit_on_texts(TEXTS[:2] + TEXTS[4:7])
    text_fixture("tokenizer", tokenizer.word_index, tokenizer.texts_to_sequences(TEXTS))
    tokenizer = Tokenizer(oov_token="<oov>", lower=False, filters="!?\t\n")
    tokenizer.fit_on_texts(TEXTS[:2])
    text_fixture("oov", {"vocab": tokenizer.word_index, "unknown": tokenizer.word_index["<oov>"], "lowercase": False,
                         "split": "!?"}, tokenizer.texts_to_sequences(TEXTS))
    layer = layers.TextVectorization()
    layer.adapt(TEXTS[:2] + TEXTS[4:6])
    ids = layer(TEXTS).numpy()
    text_fixture("vectorization", layer.get_vocabulary(), [[int(i) for i in row if i] for row in ids])


def nets(count):
    """(name, model with random weights, `count` inputs); imported by tests/keras_nets.py, too"""
    global COUNT
    COUNT = count
    for group in (small_nets, graphs, activations):
        for name, model, x in group():
            randomize(model)
            yield name, model, x


def main():
    global folder
    folder = sys.argv[1] if len(sys.argv) > 1 else folder
    for net in nets(COUNT):
        save(*net)
    classic()
    words()


if __name__ == "__main__":
    main()
