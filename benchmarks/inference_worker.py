"""A contender of inference.py: answers images, many at once and one at a time.

    python inference_worker.py KIND NETWORK FOLDER BATCH

FOLDER holds the network as `model.keras` and, in `savedmodel`, `litert`, `onnx` and
`openvino`, as published versions.
"""

import sys
import time
from pathlib import Path

import numpy as np
from common import work

SINGLE = 30  # calls with one image a round


def keras_predict(network: str, version: Path):
    """Answer with `model.predict`."""
    import keras

    import kerascnn  # noqa: F401  the custom layers

    model = keras.models.load_model(version.parent.parent / "model.keras")
    return lambda x: model.predict(x, batch_size=len(x), verbose=0)


def kerascnn_predict(network: str, version: Path):
    """Answer as `kerascnn.predict` and `evaluate` do."""
    import keras

    from kerascnn.training.evaluate import predict_probabilities

    model = keras.models.load_model(version.parent.parent / "model.keras")
    return lambda x: predict_probabilities(model, x, len(x))


def keras_call(network: str, version: Path):
    """Answer by calling the model, without a graph."""
    import keras

    import kerascnn  # noqa: F401  the custom layers

    model = keras.models.load_model(version.parent.parent / "model.keras")
    return lambda x: model(x, training=False)


def savedmodel(network: str, version: Path):
    """Answer with the signature of the SavedModel."""
    import tensorflow as tf

    served = tf.saved_model.load(str(version))
    answer = served.signatures["serving_default"]
    return lambda x: answer(image=tf.constant(x))["probabilities"].numpy()


def litert(network: str, version: Path):
    """Answer with LiteRT's interpreter, on two threads."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(
        str(version / "model.tflite"), num_threads=2
    ).get_signature_runner()
    return lambda x: runner(image=x)


def onnx(network: str, version: Path):
    """Answer with ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(version / "model.onnx"))
    return lambda x: session.run(["probabilities"], {"image": x})


def openvino(network: str, version: Path):
    """Answer with OpenVINO, in float32."""
    import openvino as ov

    compiled = ov.Core().compile_model(
        version / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return lambda x: compiled({"image": x})


def torch(network: str, version: Path):
    """Answer with PyTorch's twin of the network."""
    import torch
    from torch_twins import build

    model = build(network).eval()

    def answer(x):
        with torch.inference_mode():
            pixels = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255
            return model(pixels).softmax(1).numpy()

    return answer


KINDS = {
    "predict": keras_predict,
    "kerascnn": kerascnn_predict,
    "call": keras_call,
    "savedmodel": savedmodel,
    "litert": litert,
    "onnx": onnx,
    "openvino": openvino,
    "torch": torch,
}


def prepare(kind: str, network: str, folder: str, batch: int):
    """Load the network and return what measures it."""
    answer = KINDS[kind](network, Path(folder) / kind / "1")
    x = np.random.default_rng(0).integers(0, 256, (batch, 32, 32, 3), np.uint8)
    one = x[:1]

    def measure():
        start, images = time.perf_counter(), 0
        while (seconds := time.perf_counter() - start) < 1:
            answer(x)
            images += batch
        singles = []
        for _ in range(SINGLE):
            start = time.perf_counter()
            answer(one)
            singles.append(time.perf_counter() - start)
        return {"images": images, "seconds": seconds, "single": np.median(singles)}

    return measure


if __name__ == "__main__":
    kind, network, folder, batch = sys.argv[1:]
    work(lambda: prepare(kind, network, folder, int(batch)))
