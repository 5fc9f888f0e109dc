"""The README beside the files of `deploy`: how to run them, and what was tried."""

import os
import shlex
from pathlib import Path

from kerascnn.serving.served import Served

LABELLED = """\
{place}
names the versions that are served, and labels for them: ask
`/v1/models/NAME/labels/stable:predict` for the version that is called stable. A version
that is published later is not served until it is named there. To promote one: add it
and wait until it answers (`/v1/models/NAME/versions/N`), then move the label, then take
the old version out. {noticed}
Nothing has to be restarted.
"""
CONFIG = {
    "docker": {
        "place": "`config/model.config`",
        "noticed": "The server notices each edit within 30 s.",
    },
    "kubernetes": {
        "place": "`model.config`, in `config.yaml`,",
        "noticed": "Apply each edit with\n`kubectl apply -f config.yaml`; the servers "
        "notice it within two minutes.",
    },
}
FOLLOWING = """\
The newest version in each folder is served as soon as it is there. Copy a version under
another name (`.staging-3`) and rename it when it is complete, as `kerascnn export`
does: half a version is loaded otherwise.
"""
IMAGE = """\
The models were exported by TensorFlow {tensorflow}; the image is
`{image}`. A server that is older than the exporter may
not know the operations of its models. TensorFlow Serving's releases follow
TensorFlow's after some months, and not every one: where the tag is not there, take the
nearest after it, with `--image`.
"""
DOCKER = """\
    cd {out}
    docker compose up --detach --wait
    curl {url}/v1/models/{name}
    kerascnn predict --server {url} {name} photo.jpg
    docker compose down
"""
FILL = """\
    cd {out}
    kubectl apply -f storage.yaml -f loader.yaml
    kubectl wait --for=condition=Ready --timeout=5m pod/kerascnn-loader
{copies}
    kubectl delete -f loader.yaml
    kubectl apply -k .
"""
KUBERNETES = """\
    kubectl rollout status deployment/kerascnn-serving
    kubectl port-forward service/kerascnn-serving 8501:8501 &
    kerascnn predict --server {url} {name} photo.jpg
"""
KSERVE = """\
    kubectl wait --for=condition=Ready --timeout=5m inferenceservice/{service}
    kubectl port-forward service/{service}-predictor 8501:80 &
    kerascnn predict --server {url} {service} photo.jpg

KServe asks its server for the name of the InferenceService: `{service}`, not `{name}`.
"""
MONITORING = """\
Prometheus reads `/monitoring/prometheus/metrics` at the REST port: counts and latencies
of requests by model and status, queue and size of batches, time of warming up. A full
queue answers 503; the client of kerascnn waits and tries again. A request has 128
images at most (`max_batch_size`).
"""
TRIED = {
    "docker": """\
Such a Compose file was held against the schema of docker-compose 1.29.2, which knows
all of it but `name`. `model.config` was parsed with tensorflow-serving-api 2.21.0, the
two other files in `config/` by the definitions in TensorFlow Serving's source. The
health check was run against another server. No container was started: neither the
image nor a Docker daemon was at hand.
""",
    "kubernetes": """\
Such objects were checked against the published schemas of Kubernetes 1.37, without
unknown fields, and put together by `kubectl kustomize`. `model.config` was parsed with
tensorflow-serving-api 2.21.0, the two other files in the ConfigMap by the definitions
in TensorFlow Serving's source. No cluster ran them: the storage class, the limits of
processor and memory, and the speed at which the autoscaler follows are for you to
measure. The readiness probe asks the first model only; the server opens its port when
all are loaded.
""",
    "kserve": """\
Such objects were checked against the published schemas of Kubernetes 1.37, and the
fields of the InferenceService against those of kserve 0.21.0. No cluster ran them.
KServe scales on the CPU here, which needs its mode Standard; in Knative's mode take
`scaleMetric` and the annotation out.
""",
}


def readme(to: str, models: list[Served], image: str, out: Path, files) -> str:
    """Return the README of a deployment.

    Args:
        to: "docker", "kubernetes" or "kserve".
        models: what is served.
        image: of TensorFlow Serving.
        out: the folder of the files.
        files: their names.
    """
    first = models[0]
    names = {
        "name": first.name,
        "service": first.service,
        "url": "http://127.0.0.1:8501",
        "out": shlex.quote(os.fspath(out)),
        "copies": "\n".join(_copies(model, to) for model in models),
    }
    run = {"docker": DOCKER, "kubernetes": FILL + KUBERNETES, "kserve": FILL + KSERVE}
    versions = FOLLOWING if first.follow else LABELLED.format(**CONFIG.get(to, {}))
    exported = ", ".join(sorted({model.tensorflow for model in models}))
    sections = {
        f"{', '.join(model.name for model in models)} on TensorFlow Serving": (
            "Written by `kerascnn deploy`.\n\n"
            + "\n".join(f"- `{name}`" for name in files)
            + "\n"
        ),
        "Run": run[to].format(**names),
        "Versions": versions,
        "Image": IMAGE.format(image=image, tensorflow=exported),
        "Watch": MONITORING if to != "kserve" else None,
        "What was tried": TRIED[to],
    }
    parts = [f"## {title}\n\n{text}" for title, text in sections.items() if text]
    return "\n".join(parts).removeprefix("#")


def _copies(model: Served, to: str) -> str:
    """Return the commands that copy the served versions to the volume, each at once."""
    pod, there = "kerascnn-loader", f"/models/{model.name}"
    lines = [f"kubectl exec {pod} -- mkdir -p {there}"]
    for number in model.versions:
        version = shlex.quote(str(model.folder / str(number)))
        lines += [
            f"kubectl cp {version} {pod}:{there}/.staging-{number}",
            f"kubectl exec {pod} -- mv {there}/.staging-{number} {there}/{number}",
        ]
    return "\n".join(f"    {line}" for line in lines)
