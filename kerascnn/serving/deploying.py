"""The files that run TensorFlow Serving elsewhere: Docker, Kubernetes, KServe.

    deploy("served", "kubernetes", "cluster")

Importing this module imports neither Keras nor TensorFlow.
"""

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from string import Template

from kerascnn.serving import templates
from kerascnn.serving.instructions import readme
from kerascnn.serving.served import Served, find, release, saved_models

TARGETS = ("docker", "kubernetes", "kserve")
CPUS = 2  # of each replica on a cluster
GIB = 2**30


def deploy(
    folder,
    to: str,
    out=None,
    *,
    labels: Mapping[str, int] | None = None,
    follow: bool = False,
    image: str | None = None,
    replicas: int = 2,
    most: int = 8,
    replace: bool = False,
) -> list[Path]:
    """Write what TensorFlow Serving needs to serve exported models elsewhere.

    Nothing is started; README.md among the files says how to, what of it was tried,
    and what was not. On Docker and Kubernetes all models share a server, whose
    `model.config` names the versions that are served and their labels: publishing a
    version changes nothing until it is named there, and `…/labels/stable:predict` asks
    the version that bears the label. KServe runs a server for each model, which always
    serves the newest version.

    Args:
        folder: a model's folder of versions, such as "served/lecture_cnn", or a folder
            of such folders. Versions in other formats than SavedModel are left out.
        to: "docker" (a Compose file), "kubernetes" (a Deployment with its Service,
            autoscaler, configuration and volume) or "kserve" (InferenceServices).
        out: a folder for the files; default "deploy-docker" and so on.
        labels: versions by name, of every model that has these versions; default:
            "stable" is the newest and "previous" the one before it.
        follow: serve the newest version as soon as it is published, without labels.
        image: of TensorFlow Serving; default "tensorflow/serving:" and the version of
            TensorFlow that exported the models, the greatest if they differ.
        replicas: servers to begin with, and the fewest; not for Docker.
        most: servers that the autoscaler may start; not for Docker.
        replace: write over files of an earlier call.

    Returns:
        The paths of the files, README.md first.

    Raises:
        ValueError: there is no such target, no SavedModel in the folder, no version of
            a label, or a name that TensorFlow Serving or Kubernetes does not take.
        FileNotFoundError: the folder is not there.
        FileExistsError: a file is there already; nothing is written.
    """
    if to not in TARGETS:
        raise ValueError(f"deploy to one of {', '.join(TARGETS)}; received {to!r}")
    if not 1 <= replicas <= most:
        raise ValueError(
            f"replicas is 1 or more and at most {most}, the limit of the autoscaler; "
            f"received {replicas}"
        )
    if to == "kserve" and (labels or follow):
        raise ValueError(
            "KServe serves the newest version of each model, without labels; leave "
            "labels and follow out, or deploy to kubernetes"
        )
    models = find(folder, labels, follow or to == "kserve")
    image = image or f"tensorflow/serving:{_newest(models)}"
    write = {"docker": _docker, "kubernetes": _kubernetes, "kserve": _kserve}[to]
    out = Path(out or f"deploy-{to}")
    files = write(models, image, replicas, most)
    files = {"README.md": readme(to, models, image, out, list(files)), **files}
    if not replace:
        for name in files:
            if (out / name).exists():
                raise FileExistsError(
                    f"{out / name} is there already; write elsewhere, or replace it: "
                    "replace=True, --replace"
                )
    for name, text in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text, encoding="utf-8")
    return [out / name for name in files]


def _newest(models: list[Served]) -> str:
    return max((model.tensorflow for model in models), key=release)


def _fill(template: str, **values) -> str:
    return Template(template).substitute(values)


def _config(models: list[Served]) -> str:
    """Return the ModelServerConfig."""
    text = "model_config_list {\n"
    for model in models:
        chosen = " ".join(f"versions: {number}" for number in model.versions)
        text += _fill(
            templates.MODEL,
            name=model.name,
            path=f"/models/{model.name}",
            policy=(
                "latest { num_versions: 1 }"
                if model.follow
                else f"specific {{ {chosen} }}"
            ),
            labels="".join(
                _fill(templates.LABEL, label=label, version=version)
                for label, version in model.labels.items()
            ),
        )
    return text + "}\n"


def _flags(indent: int) -> str:
    return "\n".join(" " * indent + f'- "{flag}"' for flag in templates.FLAGS)


def _docker(models: list[Served], image: str, *_) -> dict[str, str]:
    health = templates.HEALTH.replace("$name", models[0].name)
    volumes = "".join(
        _fill(
            templates.VOLUME,
            source=_escaped(json.dumps(str(model.folder), ensure_ascii=False)),
            target=f"/models/{model.name}",
        )
        for model in models
    )
    return {
        "compose.yaml": _fill(
            templates.COMPOSE,
            names=", ".join(model.name for model in models),
            image=json.dumps(image),
            flags=_flags(6),
            volumes=volumes.rstrip("\n"),
            health=json.dumps(["CMD", "bash", "-c", health]),
        ),
        "config/model.config": _config(models),
        # As many threads as the machine has cores, which it is not told here.
        "config/batching.config": "".join(
            line
            for line in templates.BATCHING.splitlines(keepends=True)
            if "$threads" not in line
        ),
        "config/monitoring.config": templates.MONITORING,
    }


def _escaped(text: str) -> str:
    """Write $ as Compose wants it, which fills in variables otherwise."""
    return text.replace("$", "$$")


def _kubernetes(models, image, replicas, most) -> dict[str, str]:
    files = {
        "config.yaml": _fill(
            templates.CONFIG_MAP,
            models=textwrap.indent(_config(models), " " * 4).rstrip("\n"),
            batching=textwrap.indent(
                _fill(templates.BATCHING, threads=CPUS), " " * 4
            ).rstrip("\n"),
            monitoring=textwrap.indent(templates.MONITORING, " " * 4).rstrip("\n"),
        ),
        "deployment.yaml": _fill(
            templates.DEPLOYMENT,
            image=json.dumps(image),
            flags=_flags(12),
            ready=f"/v1/models/{models[0].name}/metadata",
            cpus=CPUS,
        ),
        "service.yaml": templates.SERVICE,
        "autoscaler.yaml": _fill(templates.AUTOSCALER, replicas=replicas, most=most),
        "disruption.yaml": templates.DISRUPTION,
    }
    return _on_cluster(files, models, image)


def _kserve(models, image, replicas, most) -> dict[str, str]:
    repository, _, tag = image.rpartition(":")
    if repository != "tensorflow/serving":
        raise ValueError(
            "KServe knows the image tensorflow/serving, and is told its tag only; "
            f"received {image!r}: set another image in KServe's "
            "ClusterServingRuntime kserve-tensorflow-serving"
        )
    files = {
        f"{model.service}.yaml": _fill(
            templates.INFERENCE_SERVICE,
            service=model.service,
            name=model.name,
            tag=tag,
            replicas=replicas,
            most=most,
            cpus=CPUS,
        )
        for model in models
    }
    return _on_cluster(files, models, image)


def _on_cluster(files: dict[str, str], models, image) -> dict[str, str]:
    """Add what both kinds of clusters need: the volume, and a pod to fill it."""
    size = sum(
        file.stat().st_size
        for model in models
        for number in saved_models(model.folder)
        for file in (model.folder / str(number)).rglob("*")
        if file.is_file()
    )
    storage = f"{1 + 4 * size // GIB}Gi"  # room for versions to come
    files = {"storage.yaml": _fill(templates.STORAGE, storage=storage), **files}
    listed = "\n".join(f"  - {name}" for name in files)
    return {
        "kustomization.yaml": _fill(templates.KUSTOMIZATION, resources=listed),
        **files,
        "loader.yaml": _fill(templates.LOADER, image=json.dumps(image)),
    }
