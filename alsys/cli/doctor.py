"""`alsys doctor` and `alsys config schema`: what this machine has, and what a campaign file may say."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from alsys.cli.checks import MIN_FREE_GB, Check
from alsys.cli.cluster_checks import checks_of_cluster
from alsys.config.described import resolved, root, values_of

REQUIRED = ("numpy", "ase", "torch", "nequip", "pyscf", "tblite", "rdkit", "ray", "zarr", "mlflow", "matscipy")
OPTIONAL = ("pyscf-dispersion", "packmol", "xarray", "skala", "torchani", "nequip-allegro")


def doctor(args: argparse.Namespace) -> int:
    """Prints the diagnosis; exit code 3 where something needed is missing."""
    checks = [*_checks(), *(checks_of_cluster(args.address) if args.address else ())]
    is_ok = all(check.is_ok is not False for check in checks)
    if args.json:
        sys.stdout.write(json.dumps({"ok": is_ok, "checks": [asdict(check) for check in checks]}) + "\n")
    else:
        for check in checks:
            mark = {True: "ok", False: "MISSING", None: "-"}[check.is_ok]
            sys.stdout.write(f"{mark:8}{check.name:20}{check.detail}\n")
    return 0 if is_ok else 3


def config_schema(args: argparse.Namespace) -> int:
    """Prints every field of a campaign file."""
    if args.json:
        sys.stdout.write(json.dumps(root(), indent=1) + "\n")
        return 0
    for line in _describe(root(), ""):
        sys.stdout.write(line + "\n")
    return 0


def _checks() -> Iterator[Check]:
    version = platform.python_version()
    yield Check("python", sys.version_info >= (3, 11), version)
    yield Check("cores", None, f"{os.cpu_count()}, {psutil.virtual_memory().total / 2**30:.0f} GB of memory")
    free = shutil.disk_usage(".").free / 2**30
    yield Check("disk", free >= MIN_FREE_GB, f"{free:.0f} GB free in this folder, fsync {_fsync_ms():.1f} ms")
    for name in REQUIRED:
        yield _package(name, is_required=True)
    for name in OPTIONAL:
        yield _package(name, is_required=False)
    yield from _light()
    yield _gpu()
    yield from _engines()
    yield Check("threads", None, f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}; workers set their own")


def _package(name: str, *, is_required: bool) -> Check:
    try:
        version = metadata.version(name)
        if is_required:
            importlib.import_module(name)
    except metadata.PackageNotFoundError:
        return Check(name, False if is_required else None, "not installed")
    except Exception as error:  # a broken installation fails in any way
        return Check(name, False, f"does not import: {type(error).__name__}: {error}")
    return Check(name, True, version)


def _light() -> Iterator[Check]:
    """alsys-model beside alsys: the last to be installed has overwritten the other's files, and takes them along."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        version = metadata.version("alsys-model")
        yield Check("alsys-model", False, f"{version} is here too: pip uninstall alsys-model, then install alsys again")


def _gpu() -> Check:
    try:
        import torch
    except ImportError:
        return Check("gpu", None, "torch is missing")
    if not torch.cuda.is_available():
        return Check("gpu", None, "none; everything runs on the CPU")
    return Check("gpu", None, torch.cuda.get_device_name(0))


def _engines() -> Iterator[Check]:
    """Which optional engines can label here, and parts of other packages, which are listed, not imported."""
    from alsys.config.ase_calculators import CALCULATORS
    from alsys.labeling.device import gpu_problem
    from alsys.plugins import PLUGIN_KINDS
    from alsys.potentials.ase_single_points import calculator_problem

    problem = gpu_problem()
    yield Check("labels on GPUs", None, problem or "gpu4pyscf")
    able: list[str] = []
    unable: list[str] = []
    for name, calculator in CALCULATORS.items():
        with tempfile.TemporaryDirectory() as folder:
            example = dict.fromkeys(calculator.required, "x")
            (unable if calculator_problem(name, example, folder) else able).append(name)
    yield Check("kind: ase", None, f"{', '.join(able)}; not here: {', '.join(unable)}")
    for kind in PLUGIN_KINDS:
        parts = [f"{name} ({where})" for name, where in kind.installed().items()]
        yield Check(kind.group, None, ", ".join(parts) or "no part of another package is installed")


def _fsync_ms() -> float:
    with tempfile.NamedTemporaryFile(dir=Path.cwd()) as file:
        started = time.perf_counter()
        for _ in range(5):
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
        return (time.perf_counter() - started) / 5 * 1e3


def _describe(node: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, field in node.get("properties", {}).items():
        path, target = f"{prefix}{name}", resolved(field)
        is_list = target.get("type") == "array"
        note = " [may change on resume]" if field.get("operational") else ""
        section = resolved(target.get("items", {})) if is_list else target
        if variants := [resolved(variant) for variant in section.get("oneOf", ())]:
            if is_list:
                yield f"{path}: list{note}  {field.get('description', '')}".rstrip()
            for variant in variants:
                kind = variant["properties"]["kind"]["const"]
                yield f"{path}{'[]' if is_list else ''}: {{kind: {kind}}}  {_first_line(variant)}"
                yield from _describe(variant, f"{path}[{kind}].")
        elif "properties" in section:
            said = f" list{note}  {field.get('description', '')}" if is_list else f"  {_first_line(section)}"
            yield f"{path}:{said}".rstrip()
            yield from _describe(section, f"{path}{'[]' if is_list else ''}.")
        elif "const" not in field:  # the kind of a section, which has been said
            default = f" = {json.dumps(field['default'])}" if "default" in field else " (required)"
            yield f"{path}: {values_of(field)}{default}{note}  {field.get('description', '')}".rstrip()
            yield from _describe(_group(target, node), f"{path}.NAME.")


def _group(mapping: dict[str, Any], around: dict[str, Any]) -> dict[str, Any]:
    """What a group of workers may set: of the fields of a mapping's entries, those that the section around it has."""
    entries = [resolved(entry) for entry in mapping.get("patternProperties", {}).values()]
    fields = {name: field for entry in entries for name, field in entry.get("properties", {}).items()}
    return {"properties": {name: field for name, field in fields.items() if name in around["properties"]}}


def _first_line(node: dict[str, Any]) -> str:
    return str(node.get("description", "")).split("\n")[0]
