"""`deploy/Dockerfile`, as far as it can be checked without an engine: stages, user, sources, tags, secrets."""

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
KNOWN = {
    "ARG", "FROM", "RUN", "COPY", "WORKDIR", "ENV", "LABEL", "USER", "VOLUME", "HEALTHCHECK", "ENTRYPOINT", "CMD",
}  # fmt: skip


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


def of(program: list[Instruction], word: str, stage: str | None = None) -> list[Instruction]:
    return [i for i in program if i.word == word and stage in (None, i.stage)]


def test_two_stages_on_one_base_that_has_a_version(program: list[Instruction]) -> None:
    assert {i.word for i in program} == KNOWN
    assert [i.stage for i in of(program, "FROM")] == ["build", "runtime"]
    assert {i.rest.partition(" AS ")[0] for i in of(program, "FROM")} == {"${PYTHON_IMAGE}"}
    (base,) = (i.rest for i in program if i.word == "ARG" and i.stage == "")
    assert base == "PYTHON_IMAGE=python:3.11-slim"
    assert ":latest" not in DOCKERFILE.read_text()


def test_compilers_stay_in_the_build_stage(program: list[Instruction]) -> None:
    assert any("build-essential" in i.rest for i in of(program, "RUN", "build"))
    assert not any("build-essential" in i.rest or "pip install" in i.rest for i in of(program, "RUN", "runtime"))
    for i in of(program, "RUN"):
        if "apt-get install" in i.rest:
            assert "rm -rf /var/lib/apt/lists/*" in i.rest


def test_it_runs_as_somebody_who_is_not_root(program: list[Instruction]) -> None:
    (user,) = of(program, "USER")
    assert user.stage == "runtime"
    uid, gid = user.rest.split(":")
    assert int(uid) > 1000
    assert any(f"--uid {uid} --gid {gid}" in i.rest for i in of(program, "RUN", "runtime"))
    after = program[program.index(user) :]
    assert any(i.word == "ENTRYPOINT" for i in after)
    assert not any(i.word == "COPY" for i in after)


def test_every_source_exists_and_reaches_the_builder(program: list[Instruction]) -> None:
    rules = [r for r in (ROOT / ".dockerignore").read_text().splitlines() if r and not r.startswith("#")]
    assert rules[0] == "*", "nothing goes to the builder unless it is named"
    for i in of(program, "COPY"):
        words = i.rest.split()
        if words[0].startswith("--from="):
            assert words[0] == "--from=build"
            continue
        for source in words[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in rules, source
    named = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = {s for i in of(program, "COPY") if "--from" not in i.rest for s in i.rest.split()[:-1]}
    assert named == copied


def test_what_pyproject_needs_is_copied(program: list[Instruction]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    copied = " ".join(i.rest for i in of(program, "COPY", "build")).split()
    for name in ("pyproject.toml", "constraints.txt", project["readme"], *project["license-files"]):
        assert name in copied


def test_packages_are_pinned_and_extras_exist(program: list[Instruction]) -> None:
    (install,) = (i.rest for i in of(program, "RUN") if "pip install" in i.rest)
    assert "--constraint constraints.txt" in install
    assert install.endswith('".[${EXTRAS}]"')
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (default,) = (i.rest.removeprefix("EXTRAS=") for i in of(program, "ARG") if i.rest.startswith("EXTRAS="))
    assert default in extras
    for text in (DOCKERFILE.read_text(), (ROOT / "deploy" / "README.md").read_text()):
        (shown,) = re.findall(r"(dispersion,\w+)", text)
        assert set(shown.split(",")) <= extras.keys()


def test_it_is_this_version(program: list[Instruction]) -> None:
    (label,) = of(program, "LABEL")
    assert f'org.opencontainers.image.version="{alsys.__version__}"' in label.rest
    assert f"-t alsys:{alsys.__version__} ." in DOCKERFILE.read_text()
    assert f"alsys:{alsys.__version__}" in (ROOT / "deploy" / "README.md").read_text()


def test_entrypoint_and_checks_are_alsys(program: list[Instruction]) -> None:
    (entrypoint,) = of(program, "ENTRYPOINT")
    assert json.loads(entrypoint.rest) == ["alsys"]
    (health,) = of(program, "HEALTHCHECK")
    assert json.loads(health.rest.partition("CMD ")[2]) == ["alsys", "doctor"]
    assert [i.rest for i in of(program, "RUN", "runtime")][-1] == "alsys doctor"


def test_it_asks_for_tokens_and_holds_none(program: list[Instruction]) -> None:
    environment = " ".join(i.rest for i in of(program, "ENV"))
    assert "RAY_AUTH_MODE=token" in environment
    assert "OMP_NUM_THREADS=1" in environment
    assert not re.search(r"(?i)(password|secret|_key|auth_token)\w*=", DOCKERFILE.read_text())
    rules = (ROOT / ".dockerignore").read_text().split()
    for private in (".git", ".venv", "campaigns", ".ray", ".aws", ".env"):
        assert not any(fnmatch(private, rule.removeprefix("!")) for rule in rules if rule.startswith("!"))
