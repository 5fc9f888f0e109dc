"""Requests that a server answers to itself before the first client does.

The first request to a SavedModel optimises its graph and takes tens of milliseconds
more than the second. TensorFlow Serving therefore replays, when it loads a version,
the records of `assets.extra/tf_serving_warmup_requests`: a TFRecord file of
`PredictionLog` messages (tensorflow_serving/apis/prediction_log.proto).

Those messages are declared in the package tensorflow-serving-api, which requires the
distribution `tensorflow` by name and so cannot stand beside `tensorflow-cpu`. Only
five fields are needed, all of them length-delimited: they are encoded here.
"""

from pathlib import Path

FILE = "assets.extra/tf_serving_warmup_requests"
BATCHES = (1, 32)  # images


def write(version: Path, shape: tuple[int, int, int], signatures) -> Path:
    """Write one request for each signature and each batch size of `BATCHES`.

    Args:
        version: folder of a SavedModel.
        shape: (height, width, channels) of its images.
        signatures: names of its signatures: "serving_default", which takes the
            pixels, and "serve_bytes", which takes the images encoded as PNG.

    Returns:
        The path of the file, a few hundred bytes: the images are grey, and a
        TensorProto whose values are all equal names the value once.
    """
    import tensorflow as tf

    file = version / FILE
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for batch in BATCHES:
            if "serving_default" in signatures:
                pixels = tf.make_tensor_proto(128, tf.uint8, (batch, *shape))
                writer.write(_prediction("serving_default", "image", pixels))
            if "serve_bytes" in signatures:
                png = tf.io.encode_png(tf.fill(shape, tf.constant(128, tf.uint8)))
                encoded = tf.make_tensor_proto([png.numpy()], tf.string, (batch,))
                writer.write(_prediction("serve_bytes", "image_bytes", encoded))
    return file


def _prediction(signature: str, name: str, tensor) -> bytes:
    """Encode PredictionLog.predict_log.request, a PredictRequest with one input."""
    spec = _field(3, signature.encode())  # ModelSpec.signature_name
    entry = _field(1, name.encode()) + _field(2, tensor.SerializeToString())
    request = _field(1, spec) + _field(2, entry)  # PredictRequest: model_spec, inputs
    return _field(6, _field(1, request))  # PredictionLog.predict_log, its request


def _field(number: int, payload: bytes) -> bytes:
    """Encode a length-delimited field of a protocol buffer: key, length, payload."""
    length, varint = len(payload), bytearray()
    while length > 0x7F:
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    varint.append(length)
    return bytes([number << 3 | 2]) + bytes(varint) + payload
