"""Make tests/data/tf_gpt2: what real TensorFlow writes, for the reader that does without it.

    pip install tensorflow-cpu  (2.21.0 made what is here; into an environment of its own)
    python tests/data/make_tf_gpt2.py

    checkpoint, model.ckpt.*    a GPT-2 of OpenAI's names, trained for three steps with Adam and saved by the Saver
    hparams.json                its sizes
    logits.json                 token ids, and the logits that TensorFlow computes for them in float32
    odd/                        tensors of every float type and of odd shapes, in two shards, beside what is no float

The graph below is written from the paper's description, with the variables where OpenAI's checkpoints have theirs. The
training graph (model.ckpt.meta) isn't saved: nothing reads it, and it is larger than the rest. Another machine may give
other last digits, so these files are committed together.
"""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf

FOLDER = Path(__file__).parent / "tf_gpt2"
HPARAMS = {"n_vocab": 32, "n_ctx": 8, "n_embd": 8, "n_head": 2, "n_layer": 2}
TOKENS = [[3, 1, 4, 1, 5, 9, 2, 6], [31, 0, 30, 7, 7, 7, 29, 16]]


def variable(name, shape, mean=0.0, spread=0.3):
    return tf.get_variable(name, shape, initializer=tf.random_normal_initializer(mean, spread))


def layer_norm(x, name):
    with tf.variable_scope(name):
        centred = x - tf.reduce_mean(x, -1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), -1, keepdims=True)
        n = int(x.shape[-1])
        return centred / tf.sqrt(variance + 1e-5) * variable("g", [n], 1.0) + variable("b", [n])


def linear(x, name, n_out):
    with tf.variable_scope(name):
        w = variable("w", [1, int(x.shape[-1]), n_out])
        return tf.tensordot(x, w[0], 1) + variable("b", [n_out])


def attention(x, n_head):
    texts, length, n = (int(size) for size in x.shape)
    with tf.variable_scope("attn"):
        queries, keys, values = tf.split(linear(x, "c_attn", 3 * n), 3, axis=-1)
        mixed = []
        for head in range(n_head):
            part = slice(head * n // n_head, (head + 1) * n // n_head)
            q, k, v = queries[..., part], keys[..., part], values[..., part]
            scores = tf.matmul(q, k, transpose_b=True) / math.sqrt(n // n_head)
            later = np.triu(np.ones((length, length), np.float32), 1)
            mixed.append(tf.matmul(tf.nn.softmax(scores - 1e9 * later), v))
        assert texts == len(TOKENS)
        return linear(tf.concat(mixed, -1), "c_proj", n)


def mlp(x):
    n = int(x.shape[-1])
    with tf.variable_scope("mlp"):
        hidden = linear(x, "c_fc", 4 * n)
        bent = 0.5 * hidden * (1 + tf.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
        return linear(bent, "c_proj", n)


def gpt2(tokens, hparams):
    with tf.variable_scope("model"):
        wpe = variable("wpe", [hparams["n_ctx"], hparams["n_embd"]])
        wte = variable("wte", [hparams["n_vocab"], hparams["n_embd"]])
        x = tf.gather(wte, tokens) + wpe[: tokens.shape[1]]
        for layer in range(hparams["n_layer"]):
            with tf.variable_scope(f"h{layer}"):
                x = x + attention(layer_norm(x, "ln_1"), hparams["n_head"])
                x = x + mlp(layer_norm(x, "ln_2"))
        return tf.tensordot(layer_norm(x, "ln_f"), wte, [[-1], [-1]])


def save_gpt2(folder):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        tokens = tf.constant(TOKENS)
        logits = gpt2(tokens, HPARAMS)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tokens[:, 1:], logits=logits[:, :-1])
        step = tf.train.get_or_create_global_step()
        train = tf.train.AdamOptimizer(0.05).minimize(tf.reduce_mean(losses), global_step=step)
        session.run(tf.global_variables_initializer())
        for _ in range(3):
            session.run(train)
        tf.train.Saver(save_relative_paths=True).save(session, str(folder / "model.ckpt"), write_meta_graph=False)
        (folder / "hparams.json").write_text(json.dumps(HPARAMS) + "\n")
        answer = {"tokens": TOKENS, "logits": [[[float(f"{x:.9g}") for x in row] for row in text]
                                               for text in session.run(logits)]}  # fmt: skip
        (folder / "logits.json").write_text(json.dumps(answer) + "\n")


def some_numbers(shape):
    """Eighths between -6.25 and 6.25, which every float type holds exactly; the test knows them too."""
    n = math.prod(shape)
    return ((np.arange(n) * 37 % 101 - 50) / 8).reshape(shape)


def save_odd_tensors(folder):
    shapes = {"scalar": (), "one": (1,), "empty": (0,), "hollow": (3, 0, 2), "row": (5,), "box": (2, 3, 1, 4)}
    config = tf.ConfigProto(device_count={"CPU": 2})
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        for i, dtype in enumerate((tf.float16, tf.bfloat16, tf.float32, tf.float64)):
            with tf.device(f"/cpu:{i % 2}"):
                for name, shape in shapes.items():
                    tf.Variable(tf.constant(some_numbers(shape), dtype), name=f"{dtype.name}/{name}")
        with tf.device("/cpu:1"):
            tf.Variable(tf.constant(7, tf.int64), name="int64/step")
            tf.Variable(tf.constant([True, False]), name="bool/flags")
            tf.Variable(tf.constant(["two", "words"]), name="string/words")
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver(sharded=True, save_relative_paths=True)
        saver.save(session, str(folder / "odd.ckpt"), global_step=7, write_meta_graph=False)


if __name__ == "__main__":
    tf.disable_eager_execution()
    shutil.rmtree(FOLDER, ignore_errors=True)
    for made, save in ((FOLDER, save_gpt2), (FOLDER / "odd", save_odd_tensors)):
        made.mkdir(parents=True)
        save(made)
