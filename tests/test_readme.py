"""What the README says of the project is true of it."""

import configparser
import re
from pathlib import Path

import kerascnn
from kerascnn.comparison import board, ranking

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_linked_files_exist():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    local = [link for link in links if "://" not in link]
    assert local
    assert [link for link in local if not (ROOT / link).exists()] == []


def test_the_two_commands_are_there_once():
    commands = [
        line.strip() for line in README.splitlines() if "python3 -m venv" in line
    ]
    assert len(commands) == 2
    assert "kerascnn quickstart" in commands[0] and "pytest" in commands[1]


def test_its_python_names_exist():
    names = set(re.findall(r"kerascnn\.([a-z_]\w*)\(", README))
    assert names
    for name in names:
        assert callable(getattr(kerascnn, name)), name


def test_what_a_gpu_needs_is_all_but_what_tensorflow_and_some_pictures_need():
    (line,) = [line for line in README.splitlines() if "pip install --no-deps" in line]
    listed = line.split('"jax[cuda13]"')[1].split("#")[0].split()
    asked = configparser.ConfigParser()
    asked.read(ROOT / "setup.cfg", encoding="utf-8")
    required = asked["options"]["install_requires"].split()
    names = {re.split(r"[<>=]", one)[0] for one in required}
    elsewhere = {"tensorflow", "tensorflow-datasets", "textalloc", "numpy"}  # jax' own
    assert set(listed) == names - elsewhere


def shown_table(name):
    return README.split(f"<!-- table: {name} -->")[1].split("<!-- end -->")[0].strip()


def test_its_table_of_networks_is_that_of_the_cards():
    shown = shown_table("compare")
    made = kerascnn.compare("lecture_cnn", "dense_mlp", "linear", notes=False)
    table = made.to_markdown().split("\n\n")[0].strip()
    assert table in shown, "paste: kerascnn compare lecture_cnn dense_mlp linear"


def test_its_board_of_accuracies_is_that_of_the_cards():
    """Its first ten rows; all of them are in a file of their own."""
    whole = board().to_markdown().strip()
    first = whole.splitlines()[:12]
    assert "\n".join(first) == shown_table("measured"), "kerascnn models --measured"
    file = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")
    assert whole in file, "paste: kerascnn models --measured --markdown"


def test_the_list_of_networks_is_that_of_the_cards():
    shown = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8").strip()
    made = ranking().to_markdown().strip()
    assert shown == made, "write: kerascnn models --markdown > docs/networks.md"


def test_its_commands_and_their_options_exist():
    from typer.main import get_command

    from kerascnn import cli

    group = get_command(cli.app)
    lines = re.findall(r"(?:^    |`|&& )(?:\S*/)?kerascnn ([^`#\n]+)", README, re.M)
    used = [line.split() for line in lines if "|" not in line]
    assert len(used) > 25
    for words in used:
        command = group
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert command is not group, f"no command: kerascnn {' '.join(words)}"
        known = {option for p in command.params for option in p.opts}
        unknown = [w for w in words if w.startswith("--") and w not in known]
        assert not unknown, (command.name, unknown)


def test_its_words_are_all_commands():
    from typer.main import get_command

    from kerascnn import cli

    (listed,) = re.findall(r"`kerascnn (\w+(?:\s\|\s\w+)+)`", README)
    assert set(re.findall(r"\w+", listed)) == set(get_command(cli.app).commands)
