#!/usr/bin/env python3
"""Converts a Keras model to a GGUF file of architecture "sequential", which tfm_net of tfm.h runs.

    python3 tools/keras2gguf.py model.keras|model.h5 out.gguf [--tokenizer text.json]

Needs the Keras that the model was made with (Keras 3, or TensorFlow 2's) and numpy. Weights stay float32. Layers and
options that tfm_net does not run are refused by name. Of a model that begins with TextVectorization, convert the
rest, and give the vocabulary by --tokenizer.

--tokenizer gives the file what examples/sentiment.c needs to read text: a JSON object of word -> id, as Keras's
Tokenizer has it in word_index, or one with these members:
    "vocab"       word -> id, or the list of words in the order of their ids
    "unknown"     id of a word that is not in the list; without it such words are left out
    "lowercase"   true or false (true)
    "drop"        characters that are removed first
    "split"       characters that end a word, as white space does
    "alone"       characters that are words of their own
    "letters"     if given, words consist of these characters only
    "padding", "truncation"    "left" or "right": where ids are added, or cut off, to reach the net's length
    "labels"      names of the outputs; of 0 and 1 for a single one
Without "drop", "split", "alone" and "letters" the rules are those of Keras's Tokenizer, and of its pad_sequences, for
a mapping, those of TextVectorization for a list.
"""

import argparse
import json
import sys
import zipfile

import numpy as np

from gguf_file import write_gguf

PUNCTUATION = "!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~"
IDENTITY = {"Dropout", "SpatialDropout1D", "GaussianDropout", "GaussianNoise", "AlphaDropout", "ActivityRegularization"}
POOLS = {"GlobalAveragePooling1D": "average_pool", "GlobalMaxPooling1D": "max_pool"}
ACTIVATIONS = {"linear", "relu", "gelu", "silu", "tanh", "sigmoid", "softmax", "hard_sigmoid", "relu6", "elu", "selu",
               "softplus", "softsign", "exponential"}
GATES = {"LSTM": ("lstm", [0, 1, 2, 3]),        # Keras's i f c o are PyTorch's i f g o
         "GRU": ("gru", [1, 0, 2]),             # z r h become r z n
         "SimpleRNN": ("rnn", [0])}


class Refused(Exception):
    pass


def activation(config, name, hard_sigmoid, key="activation"):
    """The name of an activation in the file. A config may hold it as an object."""
    a = config.get(key) or "linear"
    if isinstance(a, dict):
        a = a.get("config") if isinstance(a.get("config"), str) else a.get("class_name")
    a = {"swish": "silu"}.get(a, a)
    if a not in ACTIVATIONS:
        raise Refused(f"layer {name}: the activation {a} is not supported")
    return hard_sigmoid if a == "hard_sigmoid" else a


def refuse(name, config, **allowed):
    """Options that must have the one value that is run."""
    for key, value in allowed.items():
        if config.get(key, value) not in (value, None):
            raise Refused(f"layer {name}: {key} = {config[key]} is not supported")


def recurrent(kind, name, config, weights, hard_sigmoid, suffix=""):
    """(entry, tensors) of one direction"""
    kind, order = GATES[kind]
    refuse(name, config, return_state=False, time_major=False)
    entry = {"kind": kind, "activation": activation(config, name, hard_sigmoid),
             "return_sequences": bool(config.get("return_sequences")), "go_backwards": bool(config.get("go_backwards"))}
    if kind != "rnn":
        entry["recurrent_activation"] = activation(config, name, hard_sigmoid, "recurrent_activation")
    if kind == "gru":
        entry["reset_after"] = bool(config.get("reset_after"))

    def gates(a):
        """the last axis holds the gates side by side"""
        return np.concatenate([np.split(a, len(order), axis=-1)[i] for i in order], axis=-1)
    tensors = {"weight_ih": gates(weights[0]).T, "weight_hh": gates(weights[1]).T}
    if len(weights) > 2 and weights[2].ndim == 2:           # GRU with reset_after
        tensors["bias_ih"], tensors["bias_hh"] = gates(weights[2])
    elif len(weights) > 2:
        tensors["bias_ih"] = gates(weights[2])
    return entry, {key + suffix: value for key, value in tensors.items()}


def bidirectional(name, config, weights, hard_sigmoid):
    inner, merge = config["layer"], config.get("merge_mode")
    if inner["class_name"] not in GATES or merge not in ("concat", "sum", "mul", "ave"):
        raise Refused(f"layer {name}: Bidirectional of {inner['class_name']}, merge_mode = {merge}, is not supported")
    half = len(weights) // 2
    entry, tensors = recurrent(inner["class_name"], name, inner["config"], weights[:half], hard_sigmoid)
    back = config.get("backward_layer")
    if back:
        other = recurrent(back["class_name"], name, back["config"], weights[half:], hard_sigmoid)[0]
        if other != dict(entry, go_backwards=not entry["go_backwards"]):
            raise Refused(f"layer {name}: a backward_layer with other options is not supported")
    tensors.update(recurrent(inner["class_name"], name, inner["config"], weights[half:], hard_sigmoid, "_reverse")[1])
    return dict(entry, merge=merge), tensors


def batch_norm(name, config, weights):
    """As a factor and a summand."""
    weights = [w.astype(np.float64) for w in weights]
    gamma = weights.pop(0) if config.get("scale", True) else 1.0
    beta = weights.pop(0) if config.get("center", True) else 0.0
    factor = gamma / np.sqrt(weights[1] + config["epsilon"])
    return {"kind": "scale"}, {"weight": factor, "bias": beta - weights[0] * factor}


def last_axis(name, config, rank):
    axis = config.get("axis", -1)
    axis = axis[0] if isinstance(axis, (list, tuple)) and len(axis) == 1 else axis
    if axis not in (-1, rank - 1):
        raise Refused(f"layer {name}: axis = {config['axis']} is not supported, only the last one")


def convert_layer(kind, name, config, weights, rank, hard_sigmoid):
    """(entry of sequential.layer, tensors by suffix); None: the layer does nothing at inference.
    rank: of its output, with the batch"""
    if kind == "TimeDistributed" and config["layer"]["class_name"] in ("Dense", "Activation", "Dropout"):
        kind, config = config["layer"]["class_name"], config["layer"]["config"]
    if kind in IDENTITY:
        return None
    if kind in GATES:
        refuse(name, config, zero_output_for_mask=False)    # Keras sets it in every Bidirectional, and so does tfm_net
        return recurrent(kind, name, config, weights, hard_sigmoid)
    if kind == "Bidirectional":
        return bidirectional(name, config, weights, hard_sigmoid)
    if kind == "Embedding":
        return {"kind": "embedding", "mask_zero": bool(config.get("mask_zero"))}, {"weight": weights[0]}
    if kind == "Dense":
        entry = {"kind": "dense", "activation": activation(config, name, hard_sigmoid)}
        return entry, dict(zip(("weight", "bias"), [weights[0].T, *weights[1:]]))
    if kind in ("Activation", "ReLU", "ELU", "Softmax"):
        if kind == "Softmax":
            last_axis(name, config, rank)
        refuse(name, config, max_value=None, negative_slope=0.0, threshold=0.0, alpha=1.0)
        return {"kind": "activation", "activation": activation(config, name, hard_sigmoid) if kind == "Activation"
                else kind.lower()}, {}
    if kind == "Flatten":
        refuse(name, config, data_format="channels_last")
        return {"kind": "flatten"}, {}
    if kind in POOLS:
        refuse(name, config, data_format="channels_last", keepdims=False)
        return {"kind": POOLS[kind]}, {}
    if kind in ("Concatenate", "Add"):
        last_axis(name, config, rank)
        return {"kind": "concat" if kind == "Concatenate" else "add"}, {}
    if kind == "LayerNormalization":
        last_axis(name, config, rank)
        refuse(name, config, rms_scaling=False)
        names = [key for key, option in (("weight", "scale"), ("bias", "center")) if config.get(option, True)]
        return {"kind": "layer_norm", "epsilon": float(config["epsilon"])}, dict(zip(names, weights))
    if kind == "BatchNormalization":
        last_axis(name, config, rank)
        return batch_norm(name, config, weights)
    raise Refused(f"layer {name}: {kind} is not supported")


def histories(nodes):
    """Names of the layers that a layer's inbound_nodes name, in Keras 2's form and in Keras 3's."""
    if isinstance(nodes, dict):
        if nodes.get("class_name") == "__keras_tensor__":
            return [nodes["config"]["keras_history"][0]]
        return histories(list(nodes.values()))
    if not isinstance(nodes, (list, tuple)):
        return []
    if len(nodes) >= 3 and isinstance(nodes[0], str) and isinstance(nodes[1], int):
        return [nodes[0]]
    return [name for node in nodes for name in histories(node)]


def convert_model(model, hard_sigmoid):
    """(metadata, tensors) of a loaded Keras model"""
    config = model.get_config()
    if "layers" not in config:
        raise Refused(f"a {type(model).__name__} has no list of layers; Sequential and functional models convert")
    graph = type(model).__name__ != "Sequential"
    places, entries, inputs, tensors = {}, [], [], {}       # places: layer's name -> its number
    before = -1
    for layer in config["layers"]:
        name, kind, own = layer["config"]["name"], layer["class_name"], layer["config"]
        reads = [before]
        if graph and kind != "InputLayer":
            if len(layer["inbound_nodes"]) != 1:
                raise Refused(f"layer {name}: used {len(layer['inbound_nodes'])} times, only one use is supported")
            reads = [places[n] for n in histories(layer["inbound_nodes"])]
        if kind == "InputLayer":
            places[name] = -1
            continue
        keras_layer = model.get_layer(name)
        weights = [np.asarray(w) for w in keras_layer.get_weights()]
        shape = keras_layer.output.shape
        converted = convert_layer(kind, name, own, weights, len(shape), hard_sigmoid)
        if converted is None:
            before = places[name] = reads[0]
            continue
        before = places[name] = len(entries)
        for suffix, value in converted[1].items():
            tensors[f"layers.{len(entries)}.{suffix}"] = np.ascontiguousarray(value, dtype=np.float32)
        entries.append(converted[0])
        inputs.append(reads)
    if not entries:
        raise Refused("the model has no layers")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise Refused(f"{len(model.inputs)} inputs and {len(model.outputs)} outputs, only one of each is supported")
    if graph and places[histories(config["output_layers"])[0]] != len(entries) - 1:
        raise Refused("the output is not the last layer")
    return metadata(model, entries, inputs), tensors


def metadata(model, entries, inputs):
    defaults = {"activation": "linear", "recurrent_activation": "sigmoid", "return_sequences": False,
                "go_backwards": False, "reset_after": True, "mask_zero": False, "merge": "", "epsilon": 0.0}
    meta = {"general.architecture": "sequential", "general.name": model.name,
            "sequential.input_shape": np.array([d or 0 for d in model.inputs[0].shape[1:]], np.int32),
            "sequential.layer.kind": [entry["kind"] for entry in entries]}
    for key, absent in defaults.items():
        values = [entry.get(key, absent) for entry in entries]
        if any(v != absent for v in values):
            meta["sequential.layer." + key] = values if isinstance(absent, str) else \
                np.array(values, bool if isinstance(absent, bool) else np.float32)
    if inputs != [[i - 1] for i in range(len(inputs))]:
        meta["sequential.layer.input_counts"] = np.array([len(reads) for reads in inputs], np.int32)
        meta["sequential.layer.inputs"] = np.array([n for reads in inputs for n in reads], np.int32)
    return meta


def text_metadata(path):
    with open(path, encoding="utf-8") as f:
        text = json.load(f)
    if isinstance(text, list) or not isinstance(text.get("vocab"), (dict, list)):
        text = {"vocab": text}
    vocab = text["vocab"]
    mapped = isinstance(vocab, dict)
    if not any(key in text for key in ("drop", "split", "alone", "letters")):
        text["split" if mapped else "drop"] = PUNCTUATION if mapped else PUNCTUATION + "'"
        if mapped:
            text = {"padding": "left", "truncation": "left", **text}
        else:
            text = {"unknown": 1, **text}
    tokens = vocab
    if mapped:
        tokens = [f"[{i}]" for i in range(max(vocab.values()) + 1)]         # ids without a word
        for word, i in vocab.items():
            tokens[i] = word
    else:
        tokens = [word or "[PAD]" for word in vocab]
    meta = {"tokenizer.ggml.model": "word", "tokenizer.ggml.tokens": tokens,
            "tokenizer.word.lowercase": bool(text.get("lowercase", True))}
    for key in ("drop", "split", "alone", "letters"):
        if key in text:
            meta["tokenizer.word." + key] = text[key]
    if "unknown" in text:
        meta["tokenizer.ggml.unknown_token_id"] = text["unknown"]
    for key in ("padding", "truncation", "labels"):
        if key in text:
            meta["sequential." + key] = text[key]
    return meta


def made_by_keras_3(path):
    """hard_sigmoid is relu6(x + 3) / 6 since Keras 3, 0.2 x + 0.5 cut to 0..1 before: the file says who trained."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as z:
            version = json.loads(z.read("metadata.json"))["keras_version"]
    else:
        import h5py
        with h5py.File(path, "r") as f:
            version = f.attrs.get("keras_version", "2")
    return (version.decode() if isinstance(version, bytes) else version) >= "3"


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Converts a Keras model to GGUF for tfm_net.")
    parser.add_argument("model", help="model.keras or model.h5")
    parser.add_argument("out", help="out.gguf")
    parser.add_argument("--tokenizer", metavar="FILE", help="a vocabulary as JSON, so that the net reads text")
    args = parser.parse_args(arguments)
    try:
        import keras
    except ImportError:
        from tensorflow import keras
    try:
        model = keras.models.load_model(args.model, compile=False)
        hard_sigmoid = "hard_sigmoid_2" if made_by_keras_3(args.model) else "hard_sigmoid"
        meta, tensors = convert_model(model, hard_sigmoid)
        if args.tokenizer:
            meta.update(text_metadata(args.tokenizer))
        write_gguf(args.out, meta, tensors)
    except (Refused, OSError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        message = str(error).strip() or repr(error)
        sys.exit(f"keras2gguf: {args.model}: {message.splitlines()[0]}")


if __name__ == "__main__":
    main()
