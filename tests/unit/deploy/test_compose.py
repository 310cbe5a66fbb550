"""`deploy/compose.yaml`: ports of this machine alone, images by digest, commands that their programs take."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from alsys.cli import command_line
from alsys.launch.kuberay.images import THIRD_PARTY
from support.compose import FILE, compose, needed

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def test_ports_are_of_this_machine_alone(services: dict[str, dict[str, Any]]) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert {"driver", "mlflow"} <= ports.keys()
    for port in [port for each in ports.values() for port in each]:
        assert port.startswith("127.0.0.1:"), port


def test_images_are_by_digest_and_those_of_kubernetes(services: dict[str, dict[str, Any]]) -> None:
    others = {name: service["image"] for name, service in services.items() if not service["image"].startswith("alsys:")}
    for image in others.values():
        assert re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", image), image
    assert {name: others[name] for name in others if name in THIRD_PARTY} == {
        name: image for name, image in THIRD_PARTY.items() if name in others
    }
    assert "postgres" in others


def test_every_password_is_drawn_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    script = tmp_path / "secrets.sh"
    script.write_text((ROOT / "deploy" / "secrets.sh").read_text())
    file = tmp_path / ".env"
    subprocess.run(["sh", str(script)], check=True, capture_output=True)
    drawn = dict(line.split("=") for line in file.read_text().splitlines())
    assert needed(FILE.read_text()) <= drawn.keys()
    assert len(set(drawn.values())) == len(drawn)
    assert all(len(value) == 64 for value in drawn.values())
    assert file.stat().st_mode & 0o077 == 0
    subprocess.run(["sh", str(script)], check=True, capture_output=True)
    assert dict(line.split("=") for line in file.read_text().splitlines()) == drawn
    assert "/deploy/.env" in (ROOT / ".gitignore").read_text().split()


def test_programs_take_their_commands(services: dict[str, dict[str, Any]]) -> None:
    from ray.scripts.scripts import cli

    (script,) = services["driver"]["command"]
    start, _, run = script.partition(" && exec alsys ")
    args = command_line().parse_args(shlex.split(run))
    mounted = [volume.rpartition(":ro")[0].rpartition(":")[2] for volume in services["driver"]["volumes"]]
    assert args.config in mounted
    cli.commands["start"].make_context("start", shlex.split(start.removeprefix("ray start ")))
    cli.commands["start"].make_context("start", list(services["worker"]["command"]))
    compile(services["bucket"]["command"][0], "bucket", "exec")


def test_mlflow_is_set_as_on_kubernetes(services: dict[str, dict[str, Any]]) -> None:
    files = ROOT / "alsys" / "launch" / "kuberay" / "files" / "mlflow"
    assert (ROOT / "deploy" / "mlflow" / "basic_auth.ini").read_text() == (files / "basic_auth.ini.j2").read_text()
    manifest = (files / "mlflow.yaml.j2").read_text()
    for word in services["mlflow"]["command"]:
        if "artifacts-destination" not in word:
            assert f"- {word}\n" in manifest, word


def test_what_is_mounted_and_waited_for_exists(services: dict[str, dict[str, Any]]) -> None:
    volumes = compose()["volumes"].keys()
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in volumes or (FILE.parent / source).exists(), volume
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other]
    assert services["driver"]["environment"].keys() >= services["worker"]["environment"].keys() == {"RAY_AUTH_TOKEN"}
