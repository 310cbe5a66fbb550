"""`deploy/Dockerfile`, as far as it can be checked without an engine: stages, users, sources, compilers, secrets."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

import alsys

ROOT = Path(__file__).parents[3]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
README = ROOT / "deploy" / "README.md"
KNOWN = {
    "ARG", "FROM", "RUN", "COPY", "WORKDIR", "ENV", "LABEL", "USER", "VOLUME", "HEALTHCHECK", "ENTRYPOINT", "CMD",
}  # fmt: skip
IMAGES = ("cuda", "cpu")


@dataclass(frozen=True)
class Instruction:
    stage: str
    word: str
    rest: str


def instructions(text: str) -> list[Instruction]:
    """Instructions with continuation lines joined and comments dropped, each with the name of its stage."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found: list[Instruction] = []
    stage = ""
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            _, _, stage = rest.partition(" AS ")
            assert stage, "every stage has a name"
        found.append(Instruction(stage, word, rest.strip()))
    return found


@pytest.fixture(scope="module")
def program() -> list[Instruction]:
    return instructions(DOCKERFILE.read_text())


def of(program: list[Instruction], word: str, *stages: str) -> list[Instruction]:
    return [i for i in program if i.word == word and (not stages or i.stage in stages)]


def bases(program: list[Instruction]) -> dict[str, str]:
    """What each stage is made from."""
    return {i.stage: i.rest.partition(" AS ")[0] for i in of(program, "FROM")}


def test_stages_on_bases_by_digest(program: list[Instruction]) -> None:
    assert {i.word for i in program} == KNOWN
    assert bases(program) == {
        "base": "${PYTHON_IMAGE}", "source": "base", "packages": "source", "packages-cuda": "source",
        "toolkit": "${CUDA_IMAGE}", "cuda": "base", "cpu": "base",
    }  # fmt: skip
    assert of(program, "FROM")[-1].stage == "cpu", "what a build without --target makes"
    arguments = dict(i.rest.split("=", 1) for i in program if i.word == "ARG" and i.stage == "")
    assert arguments.keys() == {"PYTHON_IMAGE", "CUDA_IMAGE"}
    for image in arguments.values():
        assert re.fullmatch(r"[a-z/]+:[\w.-]+@sha256:[0-9a-f]{64}", image), image


def test_what_runs_has_a_compiler_and_no_package_lists(program: list[Instruction]) -> None:
    (install,) = (i for i in of(program, "RUN") if "apt-get install" in i.rest)
    assert install.stage == "base", "compiled fits are compiled where they run"
    assert " g++ " in install.rest
    assert "rm -rf /var/lib/apt/lists/*" in install.rest
    assert not any("pip install" in i.rest for i in of(program, "RUN", *IMAGES))


def test_cuda_has_its_toolkit_and_a_pytorch_for_it(program: list[Instruction]) -> None:
    copied = {i.rest.split()[-1]: i.rest.split()[0] for i in of(program, "COPY", "cuda")}
    assert copied == {"/usr/local/cuda": "--from=toolkit", "/opt/alsys": "--from=packages-cuda"}
    (environment,) = of(program, "ENV", "cuda")
    assert "CUDA_HOME=/usr/local/cuda" in environment.rest
    assert "NVIDIA_VISIBLE_DEVICES" not in environment.rest, "a pod sees the GPUs that it asked for"
    (check,) = (i.rest for i in of(program, "RUN", "cuda") if "torch.version.cuda" in i.rest)
    assert "startswith('12.')" in check
    assert "cuda:12." in DOCKERFILE.read_text()


@pytest.mark.parametrize("stage", IMAGES)
def test_it_runs_as_somebody_who_is_not_root(stage: str, program: list[Instruction]) -> None:
    (user,) = of(program, "USER", stage)
    uid, gid = user.rest.split(":")
    assert int(uid) > 1000
    assert any(f"--uid {uid} --gid {gid}" in i.rest for i in of(program, "RUN", "base"))
    after = [i for i in program[program.index(user) :] if i.stage == stage]
    assert not any(i.word == "COPY" for i in after)
    assert after[-1].rest.endswith("alsys doctor"), "a build whose packages do not import fails"


def test_every_source_exists_and_reaches_the_builder(program: list[Instruction]) -> None:
    rules = [r for r in (ROOT / ".dockerignore").read_text().splitlines() if r and not r.startswith("#")]
    assert rules[0] == "*", "nothing goes to the builder unless it is named"
    copied = set()
    for i in of(program, "COPY"):
        words = i.rest.split()
        if words[0].startswith("--from="):
            assert words[0].removeprefix("--from=") in bases(program)
            continue
        copied |= set(words[:-1])
    for source in copied:
        assert (ROOT / source).exists(), source
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied


def test_what_pyproject_needs_is_copied(program: list[Instruction]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    copied = " ".join(i.rest for i in of(program, "COPY", "source")).split()
    for name in (
        "pyproject.toml",
        "constraints.txt",
        "constraints-gpu.txt",
        project["readme"],
        *project["license-files"],
    ):
        assert name in copied


@pytest.mark.parametrize("stage", ["packages", "packages-cuda"])
def test_packages_are_pinned_and_extras_exist(stage: str, program: list[Instruction]) -> None:
    (install,) = (i.rest for i in of(program, "RUN", stage))
    assert "--constraint constraints.txt" in install
    assert ("--constraint constraints-gpu.txt" in install) is (stage == "packages-cuda")
    assert install.endswith('".[${EXTRAS}]"')
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (default,) = (set(i.rest.removeprefix("EXTRAS=").split(",")) for i in of(program, "ARG", stage))
    assert default <= extras.keys()
    assert {"dispersion", "objects"} <= default
    assert ("gpu" in default) is (stage == "packages-cuda")
    assert ("mlflow-server" in default) is (stage == "packages"), "MLflow runs on the image for CPUs"
    for text in (DOCKERFILE.read_text(), README.read_text()):
        for shown in re.findall(r"EXTRAS=([\w,-]+)", text):
            assert set(shown.split(",")) <= extras.keys()


def test_it_is_this_version(program: list[Instruction]) -> None:
    (label,) = of(program, "LABEL")
    assert f'org.opencontainers.image.version="{alsys.__version__}"' in label.rest
    assert f"-t alsys:{alsys.__version__} ." in DOCKERFILE.read_text()
    assert f"alsys:{alsys.__version__}" in README.read_text()


def test_entrypoint_and_checks_are_alsys(program: list[Instruction]) -> None:
    (entrypoint,) = of(program, "ENTRYPOINT")
    assert json.loads(entrypoint.rest) == ["alsys"]
    (health,) = of(program, "HEALTHCHECK")
    assert json.loads(health.rest.partition("CMD ")[2]) == ["alsys", "doctor"]
    assert {entrypoint.stage, health.stage} == {"base"}, "both images have it from there"


def test_it_asks_for_tokens_and_holds_none(program: list[Instruction]) -> None:
    environment = " ".join(i.rest for i in of(program, "ENV", "base"))
    assert "RAY_AUTH_MODE=token" in environment
    assert "OMP_NUM_THREADS=1" in environment
    assert not re.search(r"(?i)(password|secret|_key|auth_token)\w*=", DOCKERFILE.read_text())
    rules = (ROOT / ".dockerignore").read_text().split()
    for private in (".git", ".venv", "campaigns", ".ray", ".aws", ".env"):
        assert not any(fnmatch(private, rule.removeprefix("!")) for rule in rules if rule.startswith("!"))
