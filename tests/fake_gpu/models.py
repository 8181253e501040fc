"""Models whose placement is hard: strings, tables, int32, loops, explicit devices, training steps, Keras.

Each factory returns ``(callable, arguments)``, so each is also a target: ``graphlens analyze fake_gpu.models:lookup``.
Weights are random and fixed by seeds; sizes are small, since only where ops run and what is copied matters here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

SEED = 7

Model = tuple[Callable[..., Any], tuple[Any, ...]]


def _normal(*shape: int, seed: int = 0) -> Any:
    return tf.Variable(np.random.default_rng(SEED + seed).normal(0, 0.3, shape).astype(np.float32))


def _uniform(*shape: int) -> Any:
    return tf.constant(np.random.default_rng(SEED).random(shape, np.float32))


def _keras() -> Any:
    import keras

    keras.utils.set_random_seed(SEED)
    return keras


# -- inference -----------------------------------------------------------------------------------------------------


def cnn() -> Model:
    """Convolutions with batch normalization, pooling, and a dense layer: everything has a kernel on a GPU."""
    first, second, head = _normal(3, 3, 3, 8), _normal(3, 3, 8, 16, seed=1), _normal(16, 10, seed=2)
    scale, offset, mean, variance = (tf.Variable(np.linspace(0.5, 1.5, 8, dtype=np.float32)) for _ in range(4))

    @tf.function
    def infer(images: tf.Tensor) -> tf.Tensor:
        x = tf.nn.conv2d(images, first, 1, "SAME")
        x, *_ = tf.compat.v1.nn.fused_batch_norm(x, scale, offset, mean, variance, is_training=False)
        x = tf.nn.max_pool2d(tf.nn.relu(x), 2, 2, "VALID")
        x = tf.nn.relu(tf.nn.conv2d(x, second, 1, "SAME"))
        return tf.nn.softmax(tf.reduce_mean(x, [1, 2]) @ head)

    return infer, (_uniform(4, 16, 16, 3),)


def lookup() -> Model:
    """Words, through a table to embeddings, to boxes whose duplicates are dropped: host, device, host."""
    words = [f"word_{index}" for index in range(50)]
    ids = tf.constant(np.arange(50), tf.int64)
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(tf.constant(words), ids), 0)
    embeddings, kernel = _normal(50, 16), _normal(16, 4, seed=1)

    @tf.function
    def infer(text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x = tf.nn.embedding_lookup(embeddings, table.lookup(text))
        corners = tf.reduce_mean(x, 1) @ kernel
        boxes = tf.concat([corners[:, :2], corners[:, :2] + tf.abs(corners[:, 2:])], 1)
        kept = tf.image.non_max_suppression(boxes, tf.reduce_sum(corners, 1), 8, iou_threshold=0.4)
        return tf.gather(boxes, kept), tf.reduce_sum(x)

    text = np.random.default_rng(SEED).choice([*words, "unknown"], (32, 20))
    return infer, (tf.constant(text),)


def integers() -> Model:
    """Arithmetic in int32, which TensorFlow keeps in the host's memory for some ops and not for others."""
    table = _normal(16, 8)

    @tf.function
    def infer(left: tf.Tensor, right: tf.Tensor) -> dict[str, tf.Tensor]:
        total = tf.cumsum(left * 2 + right)
        remainder = tf.math.floormod(total, 16)
        hot = tf.one_hot(remainder, 16)
        positions = tf.where(left > right)
        best, _ = tf.math.top_k(total - left, 3)
        return {
            "hot": hot @ table,
            "positions": positions,
            "best": best,
            "bits": tf.bitwise.bitwise_xor(left, remainder),
            "share": tf.reduce_mean(tf.cast(left > right, tf.float32)) + tf.cast(left + right, tf.float32),
            "product": total * right,
            "chosen": tf.gather(table, remainder),
        }

    random = np.random.default_rng(SEED)
    left, right = (tf.constant(random.integers(0, 100, 64), tf.int32) for _ in range(2))
    return infer, (left, right)


def loop() -> Model:
    """A loop around a branch, both decided on the host by values that the device computes."""
    weights = _normal(8, 8)

    @tf.function
    def infer(state: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        index = tf.constant(0)
        while index < count:
            state = tf.tanh(state @ weights)
            state = tf.cond(
                tf.reduce_sum(state) > 0.0, lambda state=state: state * 0.5, lambda state=state: state - 0.1
            )
            index += 1
        return state, index

    return infer, (_uniform(4, 8), tf.constant(3))


def _transformer(length: int | None) -> Any:
    keras = _keras()
    layers = keras.layers
    tokens = keras.Input((length,), dtype="int32", name="tokens")
    x = layers.Embedding(100, 16, name="embedding")(tokens)
    attended = layers.MultiHeadAttention(2, 8, name="attention")(x, x)
    x = layers.LayerNormalization(name="attention_norm")(x + attended)
    inner = layers.Dense(32, activation="gelu", name="inner")(x)
    x = layers.LayerNormalization(name="norm")(x + layers.Dense(16, name="outer")(inner))
    return keras.Model(tokens, layers.Dense(4, name="head")(layers.GlobalAveragePooling1D(name="pool")(x)))


def _tokens() -> tf.Tensor:
    return tf.constant(np.random.default_rng(SEED).integers(0, 100, (8, 12)), tf.int32)


def transformer() -> Model:
    """A Keras encoder block whose batch and length are dynamic: its shape arithmetic runs on the host."""
    model = _transformer(None)
    signature = [tf.TensorSpec((None, None), tf.int32, name="tokens")]
    return tf.function(lambda tokens: model(tokens, training=False), input_signature=signature), (_tokens(),)


def transformer_static() -> Model:
    """The same block with a static shape: its shape arithmetic is constants."""
    model = _transformer(12)
    signature = [tf.TensorSpec((8, 12), tf.int32, name="tokens")]
    return tf.function(lambda tokens: model(tokens, training=False), input_signature=signature), (_tokens(),)


def vectorization() -> Model:
    """Keras' TextVectorization in the model: splitting, lookups and ragged tensors on the host."""
    keras = _keras()
    text = tf.constant(["the quick brown fox", "jumps over the lazy dog", "and runs"])
    vectorize = keras.layers.TextVectorization(max_tokens=50, output_sequence_length=6)
    vectorize.adapt(text)
    embed = keras.layers.Embedding(50, 8)
    head = keras.layers.Dense(2)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="text")])
    def infer(text: tf.Tensor) -> tf.Tensor:
        return head(tf.reduce_mean(embed(vectorize(text)), 1))

    return infer, (text,)


def detection() -> Model:
    """Resizing, boxes, suppression by class, cropping, a mapped function and a print."""
    kernel, boxes_kernel, scores_kernel = _normal(3, 3, 3, 8), _normal(8, 4, seed=1), _normal(8, 3, seed=2)

    @tf.function
    def infer(images: tf.Tensor) -> tuple[tf.Tensor, ...]:
        images = tf.image.resize(tf.cast(images, tf.float32) / 255.0, (16, 16))
        features = tf.nn.relu(tf.nn.conv2d(images, kernel, 2, "SAME"))
        flat = tf.reshape(features, [tf.shape(features)[0], -1, 8])
        corners = tf.sigmoid(flat @ boxes_kernel)
        boxes = tf.concat([corners[..., :2] * 0.5, 0.5 + corners[..., 2:] * 0.5], -1)
        scores = tf.nn.softmax(flat @ scores_kernel)
        found, best, classes, count = tf.image.combined_non_max_suppression(
            tf.expand_dims(boxes, 2), scores, max_output_size_per_class=5, max_total_size=8, score_threshold=0.3
        )
        owners = tf.repeat(tf.range(tf.shape(images)[0]), 8)
        crops = tf.image.crop_and_resize(images, tf.reshape(found, [-1, 4]), owners, (4, 4))
        _, order = tf.math.top_k(best, 3)
        ranked = tf.map_fn(lambda pair: tf.gather(pair[0], pair[1]), (best, order), fn_output_signature=tf.float32)
        tf.print("found", count, summarize=4)
        return tf.reduce_mean(crops, [1, 2, 3]), tf.gather(classes, order, batch_dims=1), ranked

    pictures = np.random.default_rng(SEED).integers(0, 255, (2, 20, 24, 3))
    return infer, (tf.constant(pictures, tf.uint8),)


def recurrent() -> Model:
    """A Keras LSTM that may not use cuDNN: a loop over time whose lists live on the host."""
    keras = _keras()
    inputs = keras.Input((6, 8))
    outputs = keras.layers.LSTM(12, use_cudnn=False)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(outputs))
    return tf.function(lambda x: model(x, training=False)), (_uniform(4, 6, 8),)


def explicit_devices() -> Model:
    """Ops that the program puts on the host or next to others; some of its wishes cannot be met."""
    weights = _normal(8, 8)
    with tf.device("CPU:0"):
        host_weights = _normal(8, 8, seed=1)

    @tf.function(input_signature=[tf.TensorSpec((None, 8))])  # a shape that is not known, so that it is asked for
    def infer(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        with tf.device("CPU:0"):
            host = tf.nn.relu(x @ weights)
        shape = tf.shape(host)
        with tf.device("GPU:0"):
            device = tf.tanh(host @ host_weights)
            text = tf.strings.as_string(tf.reduce_sum(device))  # no such kernel there
        with tf.compat.v1.colocate_with(host):
            beside = tf.reduce_mean(device, 0)
        return beside + tf.cast(shape[0], tf.float32), text, tf.identity(device)

    return infer, (_uniform(4, 8),)


def ragged() -> Model:
    """Features of a recommender: ragged ids, hashing, segments, unique rows and a sparse product."""
    embeddings, dense = _normal(40, 8), _normal(20, 4, seed=1)

    @tf.function
    def infer(values: tf.Tensor, splits: tf.Tensor, names: tf.Tensor) -> tuple[tf.Tensor, ...]:
        ids = tf.RaggedTensor.from_row_splits(values, splits, validate=False)
        pooled = tf.reduce_mean(tf.nn.embedding_lookup(embeddings, ids), 1)
        hashed = tf.strings.to_hash_bucket_fast(names, 40)
        rows, places = tf.unique(hashed)
        named = tf.gather(tf.gather(embeddings, rows), places)
        sums = tf.math.unsorted_segment_sum(named, tf.cast(hashed % 3, tf.int32), 3)
        crossed = tf.sparse.SparseTensor(tf.stack([hashed % 5, hashed % 20], 1), tf.ones_like(named[:, 0]), [5, 20])
        return pooled, sums, tf.sparse.sparse_dense_matmul(tf.sparse.reorder(crossed), dense)

    values = tf.constant(np.random.default_rng(SEED).integers(0, 40, 10), tf.int64)
    return infer, (values, tf.constant([0, 3, 3, 7, 10], tf.int64), tf.constant([f"name {i}" for i in range(6)]))


def state() -> Model:
    """Variables of many types, counters, a mutable table and a list that grows in a loop."""
    counter = tf.Variable(0, dtype=tf.int32, trainable=False)
    steps = tf.Variable(0, dtype=tf.int64, trainable=False)
    mean = tf.Variable(tf.zeros([4]), trainable=False)
    seen = tf.Variable(tf.zeros([8], tf.int32), trainable=False)
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, 0.0)

    @tf.function
    def update(x: tf.Tensor) -> tuple[tf.Tensor, ...]:
        counter.assign_add(1)
        steps.assign_add(tf.cast(counter, tf.int64))
        mean.assign(0.9 * mean + 0.1 * tf.reduce_mean(x, 0))
        seen.scatter_add(tf.IndexedSlices(tf.ones([2], tf.int32), tf.stack([counter % 8, 0])))
        table.insert([steps], [tf.reduce_sum(mean)])
        rows = tf.TensorArray(tf.float32, 0, dynamic_size=True)
        for index in tf.range(3):
            rows = rows.write(index, x[index] * tf.cast(seen[index], tf.float32))
        return table.lookup(tf.range(4, dtype=tf.int64)), rows.stack(), steps + 1

    return update, (_uniform(4, 4),)


def python_op() -> Model:
    """A Python function between two products; it runs on the host, wherever its neighbours are."""
    weights = _normal(8, 8)

    @tf.function
    def infer(x: tf.Tensor) -> tf.Tensor:
        scaled = tf.numpy_function(lambda value: value * np.float32(2), [x @ weights], tf.float32)
        return tf.reshape(scaled, tf.shape(x)) @ weights

    return infer, (_uniform(4, 8),)


def dataset() -> Model:
    """A pipeline inside the function: datasets, their iterator and its handle stay on the host."""
    weights = _normal(4, 4)

    @tf.function
    def infer(x: tf.Tensor) -> tf.Tensor:
        pipeline = tf.data.Dataset.from_tensor_slices(x).map(lambda row: row * 2.0).batch(2, drop_remainder=True)
        total = tf.zeros([2, 4])
        for batch in pipeline:
            total += batch @ weights
        return total

    return infer, (_uniform(6, 4),)


# -- training ------------------------------------------------------------------------------------------------------


def train_step() -> Model:
    """A written-out training step: dropout, clipped gradients, momentum, and an accuracy over int32 labels."""
    keras = _keras()
    kernel, head = _normal(3, 3, 3, 8), _normal(8, 5, seed=1)
    velocities = [tf.Variable(tf.zeros_like(variable)) for variable in (kernel, head)]
    dropout = keras.layers.Dropout(0.3, seed=SEED)

    @tf.function
    def step(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            x = tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "SAME"))
            logits = dropout(tf.reduce_mean(x, [1, 2]), training=True) @ head
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, [kernel, head]), 1.0)
        for variable, velocity, gradient in zip((kernel, head), velocities, gradients, strict=True):
            velocity.assign(0.9 * velocity + gradient)
            variable.assign_sub(0.1 * velocity)
        guesses = tf.argmax(logits, 1, output_type=tf.int32)
        return loss, tf.reduce_mean(tf.cast(guesses == labels, tf.float32))

    labels = tf.constant(np.random.default_rng(SEED).integers(0, 5, 4), tf.int32)
    return step, (_uniform(4, 12, 12, 3), labels)


def _trained(model: Any, images: tf.Tensor, classes: int) -> Model:
    keras = _keras()
    # Keras compiles with XLA where it sees a GPU, and XLA has no compiler for this one.
    model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    labels = tf.constant(np.random.default_rng(SEED).integers(0, classes, images.shape[0]), tf.int32)
    return model.train_on_batch, (images, labels)


def mobilenet_train() -> Model:
    """Keras' own training step on inverted residual blocks, with Adam and a metric."""
    keras = _keras()
    layers = keras.layers
    inputs = keras.Input((24, 24, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    for _ in range(2):
        inner = layers.Conv2D(24, 1, use_bias=False)(x)
        inner = layers.ReLU(6.0)(layers.BatchNormalization()(inner))
        inner = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(inner)
        inner = layers.ReLU(6.0)(layers.BatchNormalization()(inner))
        x = layers.Add()([x, layers.BatchNormalization()(layers.Conv2D(8, 1, use_bias=False)(inner))])
    outputs = layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    return _trained(keras.Model(inputs, outputs), _uniform(4, 24, 24, 3), 5)


def mobilenet_v2_train() -> Model:
    """Keras' own training step of the whole MobileNetV2: a graph of about 11,000 ops."""
    network = _keras().applications.MobileNetV2(input_shape=(64, 64, 3), weights=None, classes=5)
    return _trained(network, _uniform(2, 64, 64, 3), 5)


def bilstm_train() -> Model:
    """Keras' own training step of a bidirectional LSTM; seeing a GPU, Keras chooses cuDNN's op."""
    keras = _keras()
    inputs = keras.Input((6, 8))
    x = keras.layers.Bidirectional(keras.layers.LSTM(8))(inputs)
    return _trained(keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x)), _uniform(4, 6, 8), 3)
