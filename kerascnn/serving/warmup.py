"""Requests that a server answers to itself before the first client does.

The first request to a SavedModel optimises its graph and takes tens of milliseconds
more than the second. TensorFlow Serving therefore replays, when it loads a version,
the `PredictionLog` messages (tensorflow_serving/apis/prediction_log.proto) in a file.
The package that declares them, tensorflow-serving-api, cannot stand beside
`tensorflow-cpu`; what is needed of them is declared here.
"""

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kerascnn.serving.formats import CHANNELS

FILE = "assets.extra/tf_serving_warmup_requests"
BATCHES = (1, 32)  # images
RECORDS = 1000  # TensorFlow Serving refuses files with more

# prediction_log.proto, predict.proto and model.proto, the fields that are needed.
MESSAGES = """
name: "kerascnn/warmup.proto" package: "kerascnn.warmup" syntax: "proto3"
dependency: "tensorflow/core/framework/tensor.proto"
message_type { name: "PredictionLog"
  field { name: "predict_log" number: 6 type_name: ".kerascnn.warmup.PredictLog" } }
message_type { name: "PredictLog"
  field { name: "request" number: 1 type_name: ".kerascnn.warmup.PredictRequest" } }
message_type { name: "PredictRequest"
  field { name: "model_spec" number: 1 type_name: ".kerascnn.warmup.ModelSpec" }
  field { name: "inputs" number: 2 label: LABEL_REPEATED
          type_name: ".kerascnn.warmup.PredictRequest.InputsEntry" }
  nested_type { name: "InputsEntry" options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_STRING }
    field { name: "value" number: 2 type_name: ".tensorflow.TensorProto" } } }
message_type { name: "ModelSpec"
  field { name: "signature_name" number: 3 type: TYPE_STRING } }
"""


def write(version: Path, shape: tuple[int, int, int]) -> None:
    """Write one request for each signature and each batch size of `BATCHES`.

    The file has a few hundred bytes: the images are grey, and a TensorProto whose
    values are all equal names the value once.
    """
    import tensorflow as tf

    file = version / FILE
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for batch in BATCHES:
            pixels = tf.make_tensor_proto(128, tf.uint8, (batch, *shape))
            tensors = [("serving_default", "image", pixels)]
            if shape[2] in CHANNELS:
                png = tf.io.encode_png(tf.fill(shape, tf.constant(128, tf.uint8)))
                encoded = tf.make_tensor_proto([png.numpy()], tf.string, (batch,))
                tensors.append(("serve_bytes", "image_bytes", encoded))
            for signature, name, tensor in tensors:
                log = _prediction_log()()
                request = log.predict_log.request
                request.model_spec.signature_name = signature
                request.inputs[name].CopyFrom(tensor)
                writer.write(log.SerializeToString())


def read_requests(file: Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Read a file of warm-up requests: for each its signature and its inputs.

    Raises ValueError: a record is damaged, or no request to predict;
    tensorflow.errors.OpError: the file cannot be read.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    for record in tf.data.TFRecordDataset(str(file)).take(RECORDS):
        try:
            log = _prediction_log().FromString(record.numpy())
            if not log.predict_log.HasField("request"):
                raise ValueError("a record has no request; is it a predict log?")
            request = log.predict_log.request
            arrays = {n: tf.make_ndarray(t) for n, t in request.inputs.items()}
        except (DecodeError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is damaged: {error}") from error
        yield request.model_spec.signature_name or "serving_default", arrays


@functools.cache
def _prediction_log() -> type:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from google.protobuf.text_format import Parse
    from tensorflow.core.framework import tensor_pb2  # noqa: F401  (is declared by it)

    declared = Parse(MESSAGES, descriptor_pb2.FileDescriptorProto())
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(declared.SerializeToString())
    found = pool.FindMessageTypeByName("kerascnn.warmup.PredictionLog")
    return message_factory.GetMessageClass(found)
