"""Files for TensorFlow Serving elsewhere: read back by parsers and schemas."""

import json
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from kerascnn.cli import deploying  # noqa: F401  (adds the command)
from kerascnn.cli.common import app
from kerascnn.serving import client
from kerascnn.serving.deploying import deploy
from kerascnn.serving.served import exporter, find

yaml = pytest.importorskip("yaml", reason="reading YAML needs PyYAML")


def field(number, payload):
    """Encode a length-delimited field of a protocol buffer, up to 16383 bytes."""
    length = len(payload)
    size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return bytes([number << 3 | 2]) + size + payload


def saved_model(folder, tensorflow="2.21.0"):
    """Write what a SavedModel says of its exporter, among other fields."""
    info = (
        field(2, b"\x0a\x05" * 70) + field(4, b"serve") + field(5, tensorflow.encode())
    )
    graph = field(1, info) + field(2, b"graph")
    folder.mkdir(parents=True)
    content = b"\x08\x01" + field(2, graph)  # saved_model_schema_version = 1
    (folder / "saved_model.pb").write_bytes(content)
    return folder


@pytest.fixture
def served(tmp_path):
    """Two models: one of three versions, and one beside which other things lie."""
    for number in (1, 2, 10):
        saved_model(tmp_path / f"served/lecture_cnn/{number}")
    saved_model(tmp_path / "served/Dense.MLP/4", "2.20.1")
    (tmp_path / "served/lecture_cnn/.staging-1a").mkdir()
    (tmp_path / "served/lecture_cnn/11").mkdir()  # another format
    (tmp_path / "served/notes").mkdir()
    (tmp_path / "served/labels.json").write_text("{}")
    return tmp_path / "served"


def read(files):
    return {f.name: f.read_text(encoding="utf-8") for f in files}


def objects(files):
    """Every object of the YAML files, by its kind."""
    found = {}
    for file in files:
        if file.suffix == ".yaml":
            for item in yaml.safe_load_all(file.read_text(encoding="utf-8")):
                found.setdefault(item.get("kind", "Compose"), []).append(item)
    return found


def text_fields(text):
    """Read a protocol buffer's text form: nested lists of (name, value)."""
    tokens = re.findall(r'"[^"]*"|[{}]|[\w.]+:?', text)

    def message():
        fields = []
        while tokens and tokens[0] != "}":
            name = tokens.pop(0)
            value = tokens.pop(0)
            if value == "{":
                value = message()
                assert tokens.pop(0) == "}"
            else:
                assert name.endswith(":"), name
                value = json.loads(value)
            fields.append((name.rstrip(":"), value))
        return fields

    fields = message()
    assert not tokens
    return fields


def test_the_exporter_stands_in_the_saved_model(tmp_path):
    assert exporter(saved_model(tmp_path / "1", "2.22.0-rc1")) == "2.22.0-rc1"
    for damaged in (b"", b"\x08\x01", b"\x12\x05", b"\xff" * 9, b"\x0f"):
        (tmp_path / "1/saved_model.pb").write_bytes(damaged)
        with pytest.raises(ValueError, match="does not say which TensorFlow"):
            exporter(tmp_path / "1")


def test_the_exporter_of_a_real_version(version):
    import tensorflow as tf

    assert exporter(version) == tf.__version__


def test_the_newest_versions_are_found_with_their_labels(served):
    mlp, cnn = find(served)
    assert (cnn.name, cnn.service, cnn.versions) == (
        "lecture_cnn",
        "lecture-cnn",
        (2, 10),
    )
    assert cnn.labels == {"stable": 10, "previous": 2}
    assert (mlp.service, mlp.labels, mlp.tensorflow) == (
        "dense-mlp",
        {"stable": 4},
        "2.20.1",
    )
    assert find(served / "lecture_cnn") == [cnn]
    (chosen,) = find(served / "lecture_cnn", {"stable": 1, "canary": 10})
    assert chosen.versions == (1, 10)
    (newest,) = find(served / "lecture_cnn", follow=True)
    assert (newest.versions, newest.labels) == ((10,), {})


def test_docker(served, tmp_path):
    files = deploy(served, "docker", tmp_path / "out")
    (compose,) = objects(files)["Compose"]
    service = compose["services"]["serving"]
    assert service["image"] == "tensorflow/serving:2.21.0"  # the greater of the two
    mounts = {v["target"]: v for v in service["volumes"]}
    assert mounts["/models/lecture_cnn"]["source"] == str(served / "lecture_cnn")
    assert all(mount["read_only"] for mount in mounts.values())
    # What the server is pointed at is there, and the ports are those it opens.
    flags = dict(flag.removeprefix("--").split("=") for flag in service["command"])
    assert {f"/config/{f.name}" for f in files if f.parent.name == "config"} == {
        value for value in flags.values() if value.startswith("/config/")
    }
    assert service["ports"] == [
        f"127.0.0.1:{flags[flag]}:{flags[flag]}" for flag in ("port", "rest_api_port")
    ]
    config = text_fields(read(files)["model.config"])
    ((_, models),) = config
    assert [dict(m)["name"] for _, m in models] == ["Dense.MLP", "lecture_cnn"]
    cnn = models[1][1]
    assert {dict(cnn)["base_path"]} == set(mounts) & {"/models/lecture_cnn"}
    assert dict(cnn)["model_version_policy"] == [
        ("specific", [("versions", 2), ("versions", 10)])
    ]
    assert [dict(v) for k, v in cnn if k == "version_labels"] == [
        {"key": "stable", "value": 10},
        {"key": "previous", "value": 2},
    ]
    batching = text_fields(read(files)["batching.config"])
    sizes = [value for name, value in batching if name == "allowed_batch_sizes"]
    assert (
        sizes == sorted(sizes)
        and [("value", sizes[-1])] == dict(batching)["max_batch_size"]
    )
    assert sizes[-1] >= client.BATCH
    assert "num_batch_threads" not in dict(batching)
    assert dict(text_fields(read(files)["monitoring.config"]))


def test_the_health_check_asks_for_metadata(served, tmp_path):
    """The shell's HTTP runs against a server that answers 200, then 404."""
    import http.server
    import threading

    answers = iter([200, 404])
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(next(answers))
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (compose,) = objects(deploy(served, "docker", tmp_path / "out"))["Compose"]
    cmd, *command = compose["services"]["serving"]["healthcheck"]["test"]
    assert cmd == "CMD"
    command[-1] = command[-1].replace("8501", str(server.server_port))
    codes = [subprocess.run(command, check=False).returncode for _ in range(2)]
    server.shutdown()
    server.server_close()
    assert codes[0] == 0 and codes[1] != 0
    assert asked == ["/v1/models/Dense.MLP/metadata"] * 2


def valid(item):
    """Hold an object against Kubernetes' own schema; unknown fields are errors."""
    validator = pytest.importorskip(
        "kubernetes_validate", reason="checking objects needs kubernetes-validate"
    )
    validator.validate(item, "1.37", strict=True)


def test_kubernetes(served, tmp_path):
    files = deploy(served, "kubernetes", tmp_path / "out", replicas=3, most=5)
    found = objects(files)
    (kustomization,) = found.pop("Kustomization")
    texts = read(files)
    listed = set(kustomization["resources"])
    # All but the loader, which is there for the copying only.
    assert listed == {n for n in texts if n.endswith(".yaml")} - {
        "kustomization.yaml",
        "loader.yaml",
    }
    for items in found.values():
        for item in items:
            valid(item)
    (deployment,) = found["Deployment"]
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    (service,) = found["Service"]
    assert service["spec"]["selector"] == pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {p["targetPort"] for p in service["spec"]["ports"]} == set(ports)
    flags = dict(flag.removeprefix("--").split("=") for flag in container["args"])
    assert (int(flags["port"]), int(flags["rest_api_port"])) == (
        ports["grpc"],
        ports["rest"],
    )
    (config,) = found["ConfigMap"]
    assert {f"/config/{name}" for name in config["data"]} == {
        value for value in flags.values() if value.startswith("/config/")
    }
    assert text_fields(config["data"]["model.config"]) == text_fields(
        read(deploy(served, "docker", tmp_path / "other"))["model.config"]
    )
    for text in config["data"].values():
        text_fields(text)
    mounted = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert mounted.keys() == {volume["name"] for volume in pod["spec"]["volumes"]}
    (claim,) = found["PersistentVolumeClaim"]
    (loader,) = found["Pod"]
    for volumes in (pod["spec"]["volumes"], loader["spec"]["volumes"]):
        assert claim["metadata"]["name"] in [
            v["persistentVolumeClaim"]["claimName"]
            for v in volumes
            if "persistentVolumeClaim" in v
        ]
    (scaler,) = found["HorizontalPodAutoscaler"]
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (3, 5)
    assert "replicas" not in deployment["spec"]
    # A processor a thread of the batcher, and the time to answer before the end.
    limit = int(container["resources"]["limits"]["cpu"])
    batching = dict(text_fields(config["data"]["batching.config"]))
    assert batching["num_batch_threads"] == [("value", limit)]


# serving.kserve.io/v1beta1, of KServe 0.21: the fields that are used, and their types.
PREDICTOR = {
    "minReplicas": int,
    "maxReplicas": int,
    "scaleMetric": str,
    "scaleTarget": int,
    "model": dict,
}
KSERVE_MODEL = {
    "modelFormat": dict,
    "protocolVersion": str,
    "runtimeVersion": str,
    "storageUri": str,
    "args": list,
    "resources": dict,
}


def test_kserve(served, tmp_path):
    found = objects(deploy(served, "kserve", tmp_path / "out"))
    services = found.pop("InferenceService")
    found.pop("Kustomization")
    for items in found.values():
        for item in items:
            valid(item)
    assert [s["metadata"]["name"] for s in services] == ["dense-mlp", "lecture-cnn"]
    for service, folder in zip(services, ("Dense.MLP", "lecture_cnn"), strict=True):
        assert service["apiVersion"] == "serving.kserve.io/v1beta1"
        predictor = service["spec"]["predictor"]
        for part, fields in (
            (predictor, PREDICTOR),
            (predictor["model"], KSERVE_MODEL),
        ):
            assert {key: type(value) for key, value in part.items()} == fields
        model = predictor["model"]
        (claim,) = found["PersistentVolumeClaim"]
        assert model["storageUri"] == f"pvc://{claim['metadata']['name']}/{folder}"
        assert model["runtimeVersion"] == "2.21.0"
        pod = {"name": "kserve-container", "image": "tensorflow/serving:2.21.0"}
        pod |= {"args": model["args"], "resources": model["resources"]}
        valid(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "as-kserve-makes-it"},
                "spec": {"containers": [pod]},
            }
        )


def test_a_validator_finds_what_is_wrong(served, tmp_path):
    """The checks above can fail."""
    validator = pytest.importorskip("kubernetes_validate", reason="as above")
    (item,) = objects(deploy(served, "kubernetes", tmp_path / "out"))["Deployment"]
    item["spec"]["template"]["spec"]["container"] = []
    with pytest.raises(validator.ValidationError):
        valid(item)


@pytest.mark.parametrize("to", ["docker", "kubernetes", "kserve"])
def test_the_readme_names_what_is_there(served, tmp_path, to):
    readme, *files = deploy(served, to, tmp_path / "an out")
    text = readme.read_text(encoding="utf-8")
    for file in files:
        assert f"`{file.relative_to(tmp_path / 'an out')}`" in text
    used = set(re.findall(r"[\w-]+\.(?:yaml|config)", text))
    inside = {"model.config"} if to == "kubernetes" else set()  # in the ConfigMap
    assert used <= {file.name for file in files} | inside
    assert "## What was tried" in text and "tensorflow/serving:2.21.0" in text
    assert f"cd '{tmp_path}/an out'" in text
    commands = re.findall(r"^    (.+)$", text, re.MULTILINE)
    done = subprocess.run(["bash", "-n", "-c", "\n".join(commands)], check=False)
    assert done.returncode == 0
    if to == "kubernetes":  # complete before it has its name
        assert "loader:/models/lecture_cnn/.staging-10\n" in text
        assert "mv /models/lecture_cnn/.staging-10 /models/lecture_cnn/10" in text


def test_following_needs_no_labels(served, tmp_path):
    files = deploy(served, "docker", tmp_path / "out", follow=True, image="mine:1")
    assert "labels" not in read(files)["model.config"]
    assert "latest { num_versions: 1 }" in read(files)["model.config"]
    assert "`mine:1`" in read(files)["README.md"]


def test_nothing_is_written_over(served, tmp_path):
    files = deploy(served, "docker", tmp_path / "out")
    files[1].write_text("mine")
    files[0].unlink()
    with pytest.raises(FileExistsError, match=r"compose\.yaml is there already"):
        deploy(served, "docker", tmp_path / "out")
    assert not files[0].exists() and files[1].read_text() == "mine"
    deploy(served, "docker", tmp_path / "out", replace=True)
    assert files[1].read_text() != "mine"


def test_dollars_in_a_path_are_no_variables(tmp_path):
    saved_model(tmp_path / "$HOME/net/1")
    files = deploy(tmp_path / "$HOME/net", "docker", tmp_path / "out")
    (compose,) = objects(files)["Compose"]
    volume = compose["services"]["serving"]["volumes"][1]
    assert volume["source"] == str(tmp_path / "$HOME/net").replace("$", "$$")


def test_what_cannot_be_deployed(served, tmp_path):
    def refused(match, *args, error=ValueError, **options):
        with pytest.raises(error, match=match):
            deploy(*args, out=tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()

    refused("one of docker, kubernetes, kserve; received 'heroku'", served, "heroku")
    refused("there is no folder", served / "gone", "docker", error=FileNotFoundError)
    refused("holds no version of a SavedModel", served / "notes", "docker")
    refused("no model in .* has a version 3", served, "docker", labels={"stable": 3})
    refused("received 'my label'", served, "docker", labels={"my label": 1})
    refused("without labels", served, "kserve", labels={"stable": 1})
    refused("without labels", served, "kserve", follow=True)
    refused("KServe knows the image", served, "kserve", image="mine:1")
    refused("replicas is 1 or more", served, "kubernetes", replicas=9)
    saved_model(served / "lecture-cnn/1")
    refused("same name but for", served, "kubernetes")
    refused(
        "received the folder 'a b'", saved_model(tmp_path / "a b/1").parent, "docker"
    )


def test_the_command(served, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(app, ["deploy", *map(str, arguments)])

    out = tmp_path / "out"
    told = run(served, "--to", "docker", "--out", out, "--label", "stable=1", "--json")
    files = json.loads(told.output)["files"]
    assert [str(out / "README.md"), str(out / "compose.yaml")] == files[:2]
    assert 'key: "stable" value: 1 ' in (out / "config/model.config").read_text()
    again = run(served, "--to", "docker", "--out", out)
    assert isinstance(again.exception, FileExistsError)
    wrong = run(served, "--to", "docker", "--out", out, "--label", "stable=new")
    assert "--label takes name=number" in str(wrong.exception)
    shown = run(served, "--to", "kserve", "--out", tmp_path / "k")
    assert f"how to run them: {tmp_path / 'k/README.md'}" in shown.output


def test_neither_keras_nor_tensorflow_is_imported():
    code = (
        "import sys, kerascnn.serving.deploying, kerascnn.serving.client; "
        "print({'keras', 'tensorflow', 'numpy'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
