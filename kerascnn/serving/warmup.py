"""Requests that a server answers to itself before the first client does.

The first request to a SavedModel optimises its graph and takes tens of milliseconds
more than the second. TensorFlow Serving therefore replays, when it loads a version,
the records of `assets.extra/tf_serving_warmup_requests`: a TFRecord file of
`PredictionLog` messages (tensorflow_serving/apis/prediction_log.proto).

Those messages are declared in the package tensorflow-serving-api, which requires the
distribution `tensorflow` by name and so cannot stand beside `tensorflow-cpu`. The five
fields that are needed are declared here, for the protobuf that TensorFlow brings.
"""

import functools
from collections.abc import Iterator
from pathlib import Path

FILE = "assets.extra/tf_serving_warmup_requests"
BATCHES = (1, 32)  # images
RECORDS = 1000  # TensorFlow Serving refuses files with more


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


def read_requests(file: Path) -> Iterator[tuple[str, dict]]:
    """Yield the requests of a file: the name of a signature, and its inputs by name.

    Raises:
        ValueError: a record is damaged, or no request for a prediction.
        tensorflow.errors.OpError: the file cannot be read.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    for record in tf.data.TFRecordDataset(str(file)).take(RECORDS):
        try:
            log = _message().FromString(record.numpy())
            if not log.HasField("predict_log"):
                raise ValueError("a record is no predict log")
            request = log.predict_log.request
            arrays = {name: tf.make_ndarray(t) for name, t in request.inputs.items()}
        except (DecodeError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is damaged: {error}") from error
        yield request.model_spec.signature_name or "serving_default", arrays


def _prediction(signature: str, name: str, tensor) -> bytes:
    log = _message()()
    request = log.predict_log.request
    request.model_spec.signature_name = signature
    request.inputs[name].CopyFrom(tensor)
    return log.SerializeToString()


@functools.cache
def _message():
    """Return the class of PredictionLog, with the fields that are needed."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from tensorflow.core.framework import tensor_pb2

    package = "kerascnn.warmup"
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto", package=package, syntax="proto3"
    )
    file.dependency.append(tensor_pb2.DESCRIPTOR.name)

    def message(name, parent=None, **members):
        made = (parent.nested_type if parent else file.message_type).add(name=name)
        for member, (number, kind) in members.items():
            made.field.add(
                name=member,
                number=number,
                label=field.LABEL_OPTIONAL,
                type=field.TYPE_MESSAGE if kind else field.TYPE_STRING,
                type_name=kind,
            )
        return made

    message("ModelSpec", signature_name=(3, None))
    request = message("PredictRequest", model_spec=(1, f".{package}.ModelSpec"))
    entry = message(
        "InputsEntry", request, key=(1, None), value=(2, ".tensorflow.TensorProto")
    )
    entry.options.map_entry = True
    request.field.add(
        name="inputs",
        number=2,
        label=field.LABEL_REPEATED,
        type=field.TYPE_MESSAGE,
        type_name=f".{package}.PredictRequest.InputsEntry",
    )
    message("PredictLog", request=(1, f".{package}.PredictRequest"))
    message("PredictionLog", predict_log=(6, f".{package}.PredictLog"))
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    found = pool.FindMessageTypeByName(f"{package}.PredictionLog")
    return message_factory.GetMessageClass(found)
