"""What stands around the package: scripts, workflows, issue forms, citation and the notes of a release."""

import configparser
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import keras_initkit

ROOT = pathlib.Path(__file__).parents[1]
WORKFLOWS = ROOT / ".github" / "workflows"
FORMS = ROOT / ".github" / "ISSUE_TEMPLATE"

pytestmark = pytest.mark.skipif(not WORKFLOWS.exists(), reason="not in a checkout")


def text(*names):
    return ROOT.joinpath(*names).read_text(encoding="utf-8")


def all_workflows():
    return {path.name: path.read_text(encoding="utf-8") for path in WORKFLOWS.glob("*.yml")}


@pytest.mark.parametrize(
    "command", [["actionlint"], ["shellcheck", ".ci/run", ".ci/tests"]], ids=["workflows", "scripts"]
)
def test_linters_find_nothing(command):
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed; the extra dev has it")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_scripts_and_workflows_run_the_sets_that_there_are():
    sets = set(re.findall(r"^    (\w+)/", text(".ci", "tests"), re.MULTILINE))
    by_script = set(re.findall(r'"\$tests" (\w+)', text(".ci", "run")))
    called = "".join(all_workflows().values()).replace("${{ matrix.keras }}", "oldest\n.ci/tests newest")
    by_workflows = set(re.findall(r'\.ci/tests"? (\w+)$', called, re.MULTILINE))
    assert by_script == sets - {"smoke"}  # of other systems
    assert by_workflows == {"newest", "oldest", "installed", "smoke"}
    for path in re.findall(r"tests/[\w/]+\.py", text(".ci", "tests")):
        assert (ROOT / path).exists(), f".ci/tests: {path}"


def test_the_checks_are_those_of_the_script():
    commands = re.findall(r"- run: ((?:ruff|lint-imports|mypy).*)", all_workflows()["checks.yml"])
    assert len(commands) == 4
    script = text(".ci", "run").replace('"$checkout/pyproject.toml"', "pyproject.toml")
    assert [command for command in commands if command not in script] == []


def test_tests_run_on_the_first_and_the_last_python():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    versions = re.findall(r"Python :: (3\.\d+)", settings["metadata"]["classifiers"])
    assert settings["options"]["python_requires"] == f">={versions[0]},<3.{int(versions[-1][2:]) + 1}"
    assert f'python: ["{versions[0]}", "{versions[-1]}"]' in all_workflows()["tests.yml"]


@pytest.mark.parametrize("path", sorted(set(FORMS.glob("*.yml")) - {FORMS / "config.yml"}), ids=lambda path: path.stem)
def test_issue_forms_are_whole_and_ask_for_the_doctor(path):
    yaml = pytest.importorskip("yaml")
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(form) == {"name", "description", "labels", "body"}
    assert all(set(item) <= {"type", "id", "attributes", "validations"} for item in form["body"])
    asked = [item for item in form["body"] if item["type"] != "markdown"]
    assert {item["type"] for item in asked} <= {"textarea", "dropdown", "input"}
    for field in ("id", "label"):
        values = [item["id"] if field == "id" else item["attributes"]["label"] for item in asked]
        assert len(set(values)) == len(values)
    (doctor,) = [item for item in asked if item["id"] == "doctor"]
    assert "`keras-initkit doctor`" in doctor["attributes"]["label"]
    assert path.stem == "proposal" or doctor["validations"] == {"required": True}


def test_the_citation_is_of_this_version():
    assert f"\nversion: {keras_initkit.__version__}\n" in text("CITATION.cff")


VERSION, ADDRESS = keras_initkit.__version__, "https://git.example/keras-initkit"
# Of each file that a release reads: what stands there, what makes it ready, and what does not.
STATES = {
    "CHANGELOG.md": (rf"\n## {VERSION} \(.*\)", f"\n## {VERSION} (2001-02-03)", f"\n## {VERSION} (unreleased)"),
    "CITATION.cff": (
        r"\nversion: .*(\ndate-released: .*)?",
        f"\nversion: {VERSION}\ndate-released: '2001-02-03'",
        f"\nversion: {VERSION}",
    ),
    "keras_initkit/_version.py": ("$", "", ""),
    "setup.cfg": (r"(\nurl = .*)?\nauthor = ", f"\nurl = {ADDRESS}\nauthor = ", "\nauthor = "),
}


def release(root, tag, unready=""):
    """Runs the script on files that are ready to be released, but for one."""
    for name, (pattern, *state) in STATES.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(re.sub(pattern, state[name == unready], text(name), count=1), encoding="utf-8")
    (root / ".ci").mkdir()
    script = shutil.copy(ROOT / ".ci" / "release_notes.py", root / ".ci")
    return subprocess.run([sys.executable, script, tag, ADDRESS], capture_output=True, text=True)


def test_a_release_prints_its_notes(tmp_path):
    done = release(tmp_path, f"v{VERSION}")
    assert done.returncode == 0, done.stderr
    notes = text("CHANGELOG.md").split("\n## ")[1].partition("\n")[2]
    assert done.stdout.strip() == notes.strip()
    assert len(notes) > 1000


@pytest.mark.parametrize(
    ("tag", "unready", "sentence"),
    [
        ("v9.9.9", "", f"_version.py: got {VERSION}, expected 9.9.9, the tag's version."),
        (f"v{VERSION}", "CHANGELOG.md", f"no heading '## {VERSION} (YYYY-MM-DD)' with the date of the release."),
        (f"v{VERSION}", "CITATION.cff", "CITATION.cff: no line 'date-released: 2001-02-03'."),
        (f"v{VERSION}", "setup.cfg", f"setup.cfg: got url = None, expected {ADDRESS}, where this release is made."),
    ],
)
def test_a_release_is_refused_while_a_file_is_not_ready(tmp_path, tag, unready, sentence):
    done = release(tmp_path, tag, unready)
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == (1 if unready else 3)
