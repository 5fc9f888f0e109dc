"""The warm-up file, read with messages declared here from the published protocol."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorflow.core.framework import tensor_pb2

from kerascnn.serving import warmup

MESSAGE, STRING, INT64 = 11, 9, 3


@pytest.fixture(scope="module")
def prediction_log():
    """Declare what model.proto, predict.proto and prediction_log.proto declare."""
    pool = descriptor_pool.DescriptorPool()
    for dependency in ("types", "tensor_shape", "resource_handle", "tensor"):
        described = descriptor_pb2.FileDescriptorProto()
        module = __import__(
            f"tensorflow.core.framework.{dependency}_pb2", fromlist=["DESCRIPTOR"]
        )
        module.DESCRIPTOR.CopyToProto(described)
        pool.Add(described)
    file = descriptor_pb2.FileDescriptorProto(
        name="warmup_test.proto",
        package="warmup_test",
        syntax="proto3",
        dependency=[tensor_pb2.DESCRIPTOR.name],
    )

    def message(name, *fields, to=file):
        declared = to.message_type.add(name=name)
        for number, field, kind, of in fields:
            declared.field.add(
                name=field, number=number, type=kind, type_name=of, label=1
            )
        return declared

    message("ModelSpec", (1, "name", STRING, None), (3, "signature_name", STRING, None))
    request = message(
        "PredictRequest", (1, "model_spec", MESSAGE, ".warmup_test.ModelSpec")
    )
    entry = request.nested_type.add(name="InputsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=STRING, label=1)
    entry.field.add(
        name="value",
        number=2,
        type=MESSAGE,
        type_name=".tensorflow.TensorProto",
        label=1,
    )
    request.field.add(
        name="inputs",
        number=2,
        type=MESSAGE,
        type_name=".warmup_test.PredictRequest.InputsEntry",
        label=3,
    )
    message("PredictLog", (1, "request", MESSAGE, ".warmup_test.PredictRequest"))
    message("PredictionLog", (6, "predict_log", MESSAGE, ".warmup_test.PredictLog"))
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("warmup_test.PredictionLog")
    )


def requests(version, prediction_log):
    records = tf.data.TFRecordDataset(str(version / warmup.FILE))
    for record in records.as_numpy_iterator():
        log = prediction_log.FromString(record)
        # All that was written was understood: no unknown fields remain.
        assert log.SerializeToString(deterministic=True) == record
        yield log.predict_log.request


def array(tensor):
    return tf.make_ndarray(
        tensor_pb2.TensorProto.FromString(tensor.SerializeToString())
    )


def test_one_request_a_signature_and_batch_size(version, prediction_log):
    found = []
    for request in requests(version, prediction_log):
        (name,) = request.inputs
        values = array(request.inputs[name])
        found.append((request.model_spec.signature_name, name, values.shape))
    assert sorted(found) == [
        ("serve_bytes", "image_bytes", (1,)),
        ("serve_bytes", "image_bytes", (32,)),
        ("serving_default", "image", (1, 32, 32, 3)),
        ("serving_default", "image", (32, 32, 32, 3)),
    ]


def test_the_version_answers_them(version, prediction_log):
    signatures = tf.saved_model.load(str(version)).signatures
    answered = []
    for request in requests(version, prediction_log):
        inputs = {name: tf.constant(array(t)) for name, t in request.inputs.items()}
        answer = signatures[request.model_spec.signature_name](**inputs)
        answered.append(answer["probabilities"].numpy())
    assert sorted(len(a) for a in answered) == [1, 1, 32, 32]
    # The pixels and the PNG files hold the same grey image.
    for answer in answered:
        assert np.abs(answer - answered[0]).max() <= 1e-5


def test_the_file_is_small(version):
    assert (version / warmup.FILE).stat().st_size < 2000


def test_what_others_write_is_read(tmp_path, prediction_log):
    """Lengths beyond 127 take several bytes."""
    lengths = (0, 1, 127, 128, 300, 16383, 16384, 70000)
    file = tmp_path / "requests"
    with tf.io.TFRecordWriter(str(file)) as writer:
        for length in lengths:
            log = prediction_log()
            request = log.predict_log.request
            request.model_spec.signature_name = "serve_bytes"
            tensor = tf.make_tensor_proto([b"x" * length], tf.string)
            request.inputs["image_bytes"].MergeFromString(tensor.SerializeToString())
            writer.write(log.SerializeToString())
        log.predict_log.request.model_spec.signature_name = ""
        writer.write(log.SerializeToString())
    found = list(warmup.read_requests(file))
    names = ["serve_bytes"] * len(lengths) + ["serving_default"]
    assert [name for name, _ in found] == names
    assert [len(arrays["image_bytes"][0]) for _, arrays in found] == [*lengths, 70000]


@pytest.mark.parametrize("record", [b"", b"\x0a\x00", b"\x32\x7f", b"\xff" * 9])
def test_what_is_no_request_is_damaged(tmp_path, record):
    """Nothing, a request to classify, one that ends too early, and no message."""
    file = tmp_path / "requests"
    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(record)
    with pytest.raises(ValueError, match="is damaged"):
        list(warmup.read_requests(file))


def test_networks_without_bytes(tmp_path, prediction_log):
    warmup.write(tmp_path, (8, 8, 5))
    found = [r.model_spec.signature_name for r in requests(tmp_path, prediction_log)]
    assert found == ["serving_default"] * len(warmup.BATCHES)


@pytest.mark.slow
def test_messages_of_tensorflow_serving_read_it(version, tmp_path):
    """The official ones, installed alone: their package requires another TensorFlow."""
    messages = tmp_path / "messages"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target"]
    done = subprocess.run(
        [*install, messages, "tensorflow-serving-api"], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("tensorflow-serving-api cannot be installed here")
    script = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "import tensorflow as tf\n"
        "from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog\n"
        "for record in tf.data.TFRecordDataset(sys.argv[2]).as_numpy_iterator():\n"
        "    log = PredictionLog.FromString(record)\n"
        "    # No unknown fields remain.\n"
        "    assert log.SerializeToString(deterministic=True) == record\n"
        "    request = log.predict_log.request\n"
        "    for name, value in request.inputs.items():\n"
        "        shape = tf.make_ndarray(value).shape\n"
        "        print(request.model_spec.signature_name, name, *shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, messages, version / warmup.FILE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [
        "serving_default image 1 32 32 3",
        "serve_bytes image_bytes 1",
        "serving_default image 32 32 32 3",
        "serve_bytes image_bytes 32",
    ]
