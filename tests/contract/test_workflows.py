"""The workflows: what a pull request starts can harm nothing, and what they run is what `make` runs."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40}  # v\d+(\.\d+)*$")
ONLY_ON_A_FORGE = ("gh auth", "helm push ", "cosign sign ", "cosign attest ", "gh release create ")

every = pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def triggers(path):
    return set(read(path)[True])  # YAML 1.1 takes the key `on` for a boolean


def jobs(path):
    return read(path)["jobs"].items()


def commands(path):
    return [step["run"] for _, job in jobs(path) for step in job.get("steps", []) if "run" in step]


def test_there_are_four():
    assert [path.stem for path in WORKFLOWS] == ["ci", "codeql", "nightly", "release"]


@every
def test_an_action_is_pinned_by_digest_with_its_version_beside(workflow):
    used = [line.strip("- ") for line in workflow.read_text(encoding="utf-8").splitlines() if "uses: " in line]
    others = [line for line in used if "uses: ./" not in line]

    assert used
    assert [line for line in others if not PINNED.search(line)] == []


@every
def test_a_step_runs_a_target_of_the_makefile(workflow):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    rest = [line for line in commands(workflow) if not line.startswith(ONLY_ON_A_FORGE)]
    called = [line.removeprefix("make ").removeprefix("--silent ").split()[0] for line in rest]
    chosen = {
        run["target"] for _, job in jobs(workflow) for run in job.get("strategy", {}).get("matrix", {}).get("run", [])
    }

    assert [line for line in rest if not line.startswith("make ")] == []
    assert ({*called} - {'"$TARGET"'}) | chosen <= targets


@every
def test_nothing_is_permitted_but_what_a_job_asks_for(workflow):
    assert read(workflow)["permissions"] == {}
    assert [name for name, job in jobs(workflow) if not job.get("permissions")] == []
    assert [name for name, job in jobs(workflow) if "uses" not in job and "timeout-minutes" not in job] == []


@every
def test_a_pull_request_reaches_no_secret_and_writes_nothing(workflow):
    """But its own findings of CodeQL, where GitHub lets it."""
    assert "pull_request_target" not in triggers(workflow)
    assert "workflow_run" not in triggers(workflow)
    assert "secrets." not in workflow.read_text(encoding="utf-8")
    if "pull_request" not in triggers(workflow):
        return
    asked = {one for _, job in jobs(workflow) for one in job["permissions"].items()}
    assert asked <= {("contents", "read"), ("security-events", "write")}


def test_the_matrix_has_every_python_that_the_package_names():
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["classifiers"]
    named = set(re.findall(r"Python :: (3\.\d+)", " ".join(classifiers)))

    assert named <= set(dict(jobs(WORKFLOWS[0]))["test"]["strategy"]["matrix"]["python"])


def test_no_owner_is_written_into_a_workflow():
    """A fork or another organisation publishes under its own name."""
    assert [
        path.name for path in WORKFLOWS if re.search(r"ghcr\.io/[A-Za-z0-9]", path.read_text(encoding="utf-8"))
    ] == []
