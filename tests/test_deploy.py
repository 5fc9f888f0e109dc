"""The ready files for TensorFlow Serving elsewhere: read by parsers and schemas."""

import http.server
import json
import re
import subprocess
import threading
from pathlib import Path

import pytest

from kerascnn.serving import client

yaml = pytest.importorskip("yaml", reason="reading YAML needs PyYAML")

DEPLOY = Path(__file__).parents[1] / "docs" / "deploy"
CONFIGS = {path.name: path for path in (DEPLOY / "config").iterdir()}


def objects(name):
    """Every object of a YAML file, by its kind."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    found = list(yaml.safe_load_all(text))
    assert len({item["kind"] for item in found}) == len(found)
    return {item["kind"]: item for item in found}


def text_fields(file):
    """Read a protocol buffer's text form: nested lists of (name, value)."""
    text = re.sub("#.*", "", file.read_text(encoding="utf-8"))
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


def flags_of(arguments):
    return dict(flag.removeprefix("--").split("=") for flag in arguments)


def valid(item):
    """Hold an object against Kubernetes' own schema; unknown fields are errors."""
    validator = pytest.importorskip(
        "kubernetes_validate", reason="checking objects needs kubernetes-validate"
    )
    validator.validate(item, "1.37", strict=True)


def compose():
    content = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    return content["services"]["serving"]


def test_the_model_server_is_configured():
    ((_, models),) = text_fields(CONFIGS["model.config"])
    ((_, model),) = models
    assert dict(model)["name"] == "lecture_cnn"
    assert dict(model)["base_path"] == "/models/lecture_cnn"
    ((_, served),) = dict(model)["model_version_policy"]
    assert served == [("versions", 1)]
    assert dict(dict(model)["version_labels"]) == {"key": "stable", "value": 1}
    batching = text_fields(CONFIGS["batching.config"])
    sizes = [value for name, value in batching if name == "allowed_batch_sizes"]
    assert sizes == sorted(sizes)
    assert dict(batching)["max_batch_size"] == [("value", sizes[-1])]
    assert sizes[-1] >= client.BATCH
    assert dict(text_fields(CONFIGS["monitoring.config"]))


def test_compose():
    service = compose()
    mounts = {volume["target"]: volume for volume in service["volumes"]}
    assert mounts["/models"]["source"] == "./served"
    assert all(mount["read_only"] for mount in mounts.values())
    # What the server is pointed at is there, and the ports are those it opens.
    flags = flags_of(service["command"])
    pointed = {value for value in flags.values() if value.startswith("/config/")}
    assert pointed == {f"/config/{name}" for name in CONFIGS}
    assert service["ports"] == [
        f"127.0.0.1:{flags[flag]}:{flags[flag]}" for flag in ("port", "rest_api_port")
    ]


def test_the_health_check_asks_for_metadata():
    """The shell's HTTP runs against a server that answers 200, then 404."""
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
    cmd, *command = compose()["healthcheck"]["test"]
    assert cmd == "CMD"
    command[-1] = command[-1].replace("8501", str(server.server_port))
    codes = [subprocess.run(command, check=False).returncode for _ in range(2)]
    server.shutdown()
    server.server_close()
    assert codes[0] == 0 and codes[1] != 0
    assert asked == ["/v1/models/lecture_cnn/metadata"] * 2


def test_kubernetes():
    found = {**objects("storage.yaml"), **objects("kubernetes.yaml")}
    for item in found.values():
        valid(item)
    deployment, service, claim = (
        found[kind] for kind in ("Deployment", "Service", "PersistentVolumeClaim")
    )
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert service["spec"]["selector"] == pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {p["targetPort"] for p in service["spec"]["ports"]} == set(ports)
    # The server is told the same as under Compose.
    assert container["args"] == compose()["command"]
    flags = flags_of(container["args"])
    assert int(flags["port"]) == ports["grpc"]
    assert int(flags["rest_api_port"]) == ports["rest"]
    mounted = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert mounted.keys() == {volume["name"] for volume in pod["spec"]["volumes"]}
    for volumes in (pod["spec"]["volumes"], found["Pod"]["spec"]["volumes"]):
        claims = [v.get("persistentVolumeClaim", {}).get("claimName") for v in volumes]
        assert claim["metadata"]["name"] in claims
    target = found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert target["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]
    # A processor a thread of the batcher.
    limit = int(container["resources"]["limits"]["cpu"])
    batching = dict(text_fields(CONFIGS["batching.config"]))
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


def test_kserve():
    service = objects("kserve.yaml")["InferenceService"]
    assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", service["metadata"]["name"])
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    predictor = service["spec"]["predictor"]
    model = predictor["model"]
    for part, fields in ((predictor, PREDICTOR), (model, KSERVE_MODEL)):
        assert {key: type(value) for key, value in part.items()} == fields
    claim = objects("storage.yaml")["PersistentVolumeClaim"]
    assert model["storageUri"] == f"pvc://{claim['metadata']['name']}/lecture_cnn"
    pod = {"name": "kserve-container", "image": "tensorflow/serving"}
    pod |= {"args": model["args"], "resources": model["resources"]}
    valid(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "as-kserve-makes-it"},
            "spec": {"containers": [pod]},
        }
    )


def test_a_validator_finds_what_is_wrong():
    """The checks above can fail."""
    validator = pytest.importorskip("kubernetes_validate", reason="as above")
    item = objects("kubernetes.yaml")["Deployment"]
    item["spec"]["template"]["spec"]["container"] = []
    with pytest.raises(validator.ValidationError):
        valid(item)


def test_one_tag_in_all_files_and_on_the_page():
    pattern = r"tensorflow/serving:([\d.]+)|runtimeVersion: \"([\d.]+)\""
    files = [*DEPLOY.glob("*.yaml"), DEPLOY / "README.md"]
    tags = {
        "".join(found) for f in files for found in re.findall(pattern, f.read_text())
    }
    assert tags == {"2.21.0"}


def test_the_page_names_what_is_there():
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([^)]+)\)", text))
    there = {str(p.relative_to(DEPLOY)) for p in DEPLOY.rglob("*") if p.is_file()}
    assert linked == there - {"README.md"}
    commands = re.findall(r"^    (.+)$", text, re.MULTILINE)
    applied = {name for c in commands for name in re.findall(r"-f ([\w.]+)", c)}
    assert applied == {"storage.yaml", "kubernetes.yaml", "kserve.yaml"}
    done = subprocess.run(["bash", "-n", "-c", "\n".join(commands)], check=False)
    assert done.returncode == 0
