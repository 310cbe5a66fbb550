"""Malformed files of every kind, made at a fixed seed out of valid ones, and a list of nasty ones by hand.

Each `Case` is a command line on a file. What a mutation does may be harmless, so a case is only wrong where it prints a
traceback, exits with another code than 0, 2 or those it names, takes too long or too much, or runs code.
"""

# ruff: noqa: E501  a table of contents of files

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import random
import re
import shutil
import sqlite3
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import yaml
from ase.build import bulk, molecule
from safetensors.numpy import load, save

from alsys.events import CampaignOpened
from alsys.interop.formats import FORMATS
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import write_bundle
from alsys.potentials.nequip import build_model, weights_of
from alsys.store.zarr import open_writer
from support.labelled import shaken_methanol, snapshot_of

CONFIG: dict[str, Any] = {
    "name": "c",
    "seed": 1,
    "systems": [{"name": "m", "molecule": "CH3OH"}],
    "labeling": {"kind": "analytic"},
    "model": {"kind": "pair", "members": 2, "n_basis": 8},
    "training": {"first_at": 20, "validation_share": 0.1},
    "exploration": {"walkers": 2, "temperatures": [300, 600.0]},
    "stop": {"labels": 40},
    "tracking": {"enabled": False},
    "runtime": {"kind": "in-process"},
}
SUFFIXES = {
    "extxyz": ".xyz",
    "ase-db": ".db",
    "spice": ".h5",
    "ani1x": ".h5",
    "omol25": ".aselmdb",
    "rmd17": ".npz",
    "parquet": ".parquet",
    "qcschema": ".jsonl",
}
NUMBER = re.compile(rb"-?\d+\.?\d*(?:[eE][+-]?\d+)?")
NUMBERS = (
    b"1e999", b"-1e999", b"nan", b"inf", b"1000000000000", b"-1", b"0", b"1e308", b"99999999999999999999999999", b"1e-320",
    b"[1, 2]", b"null", b"x", b"\"1\"", b"true", b"{}", b"", b"0x10", b"1_000", b"\xff\xfe", b"\0", b"$(touch owned)",
)  # fmt: skip
NEQUIP: dict[str, Any] = {
    "elements": ["H", "C", "O"], "r_max": 4.0, "num_layers": 1, "l_max": 1, "num_features": 4, "parity": False,
    "dtype": "float32", "avg_num_neighbors": 8.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One input.

    Attributes:
        name: Kind, what was done to it, number.
        argv: Of `alsys`, or an operation of `run_cases` that begins with ``@``.
        codes: Exit codes that are right.
    """

    name: str
    argv: tuple[str, ...]
    codes: tuple[int, ...] = (0, 2)


# --- mutations


def truncated(content: bytes, rng: random.Random) -> bytes:
    """The first part."""
    return content[: rng.randrange(len(content))]


def flipped(content: bytes, rng: random.Random) -> bytes:
    """One to eight bits the other way round."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def swapped(content: bytes, rng: random.Random) -> bytes:
    """Two lines, or two stretches of bytes, in each other's place."""
    lines = content.split(b"\n")
    if len(lines) > 3 and b"\0" not in content:
        i, j = rng.sample(range(len(lines)), 2)
        lines[i], lines[j] = lines[j], lines[i]
        return b"\n".join(lines)
    size = max(1, min(64, len(content) // 4))
    i, j = sorted(rng.sample(range(0, len(content) - size), 2))
    return content[:i] + content[j : j + size] + content[i + size : j] + content[i : i + size] + content[j + size :]


def renumbered(content: bytes, rng: random.Random) -> bytes:
    """One number huge, NaN, of another type, or gone."""
    found = list(NUMBER.finditer(content))
    if not found or b"\0" in content[:64]:
        offset = rng.randrange(max(1, len(content) - 8))
        value = rng.choice([b"\xff" * 8, b"\0" * 8, struct.pack("<d", float("nan")), struct.pack("<q", 10**12)])
        return content[:offset] + value + content[offset + 8 :]
    match = rng.choice(found)
    return content[: match.start()] + rng.choice(NUMBERS) + content[match.end() :]


def repeated(content: bytes, rng: random.Random) -> bytes:
    """A part of it once more."""
    i, j = sorted(rng.sample(range(len(content)), 2))
    return content[:j] + content[i:j] + content[j:]


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (renumbered, truncated, flipped, swapped, repeated)


def mutants(content: bytes, count: int, seed: str) -> Iterator[tuple[str, bytes]]:
    """Mutated contents with what was done."""
    rng = random.Random(seed)
    for k in range(count):
        mutate = MUTATIONS[k % len(MUTATIONS)]
        yield f"{mutate.__name__}-{k}", mutate(content, rng)


# --- cases


class Maker:
    """Writes files and collects cases.

    Args:
        folder: Where they go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cases: list[Case] = []
        self._n = 0
        self.config = self.path(".yaml")
        self.config.write_text(yaml.safe_dump({**CONFIG, "directory": str(folder / "unused")}))
        self.labelled = shaken_methanol(24)
        self.snapshot = snapshot_of(self.labelled)

    def path(self, suffix: str) -> Path:
        """A new name."""
        self._n += 1
        return self.folder / f"f{self._n:04d}{suffix}"

    def file(self, content: bytes, suffix: str) -> Path:
        """A new file."""
        path = self.path(suffix)
        path.write_bytes(content)
        return path

    def add(self, name: str, *argv: object, codes: tuple[int, ...] = (0, 2)) -> None:
        """A case."""
        self.cases.append(Case(name, tuple(str(word) for word in argv), codes))

    def add_config(self, name: str, content: bytes) -> None:
        """A campaign file."""
        self.add(f"yaml: {name}", "run", self.file(content, ".yaml"), "--dry-run", codes=(0, 2, 4))

    def add_structure(self, name: str, path: Path) -> None:
        """A structure file, in a campaign of its own."""
        systems = [{"name": "s", "file": str(path)}]
        config = self.file(
            yaml.safe_dump({**CONFIG, "systems": systems, "directory": str(self.path(""))}).encode(), ".yaml"
        )
        self.add(f"structure: {name}", "run", config, "--dry-run", codes=(0, 2, 4))

    def add_data(self, name: str, path: Path, *words: object) -> None:
        """A data set, imported into a campaign of its own."""
        config = self.file(yaml.safe_dump({**CONFIG, "directory": str(self.path(""))}).encode(), ".yaml")
        level = () if "ani1x" in words else ("--level", "gfn1-xtb")  # its arrays are named after their level
        self.add(f"data: {name}", "data", "import", config, path, *level, "--trust-units", *words)

    def add_bundle(self, name: str, path: Path, *, is_built: bool = True) -> None:
        """A bundle, which is copied and then built into a calculator."""
        self.add(f"bundle: {name}", "models", "export", path, self.path(""), "--format", "bundle")
        if is_built:
            self.add(f"calculator: {name}", "@calculator", path)


def make_cases(folder: Path) -> list[Case]:
    """All cases, their files in a folder."""
    maker = Maker(folder)
    _configs(maker)
    _structures(maker)
    _data_sets(maker)
    _bundles(maker)
    _campaigns(maker)
    return maker.cases


def _configs(maker: Maker) -> None:
    valid = yaml.safe_dump({**CONFIG, "directory": str(maker.folder / "unused")}, sort_keys=False).encode()
    maker.add_config("valid", valid)
    for what, content in mutants(valid, 40, "yaml"):
        maker.add_config(what, content)
    bomb = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
        b"%c: &%c [%s]\n" % (k, k, b",".join([b"*%c" % (k - 1)] * 9)) for k in range(98, 107)
    )
    nasty = {
        "alias bomb": bomb + b"name: *j\n",
        "alias bomb in systems": bomb + b"systems: [*j, *j]\nname: x\n",
        "merge bomb": b"a: &a {x: 1}\n"
        + b"".join(b"%c: &%c {<<: [%s]}\n" % (k, k, b",".join([b"*%c" % (k - 1)] * 9)) for k in range(98, 108)),
        "alias of itself": b"name: &a [*a]\n",
        "mapping of itself": b"&a {name: *a, systems: *a}\n",
        "code": b'name: !!python/object/apply:os.system ["touch owned"]\n',
        "code by new": b'name: !!python/object/new:os.system ["touch owned"]\n',
        "code in labeling": valid.replace(b"kind: analytic", b"kind: analytic\n  _target_: os.system"),
        "nested": b"[" * 10_000,
        "nested mappings": b"".join(b" " * k + b"a:\n" for k in range(300)),
        "flow mappings": b"{a: " * 5000,
        "large": b"# " + b"x" * 100 + b"\n" + b"- 1\n" * 3_000_000,
        "long line": b"name: " + b"x" * 20_000_000,
        "many keys": b"".join(b"k%d: 1\n" % k for k in range(60_000)),
        "null": valid.replace(b"seed: 1", b"seed: \0"),
        "not utf-8": valid.replace(b"name: c", b"name: \xff\xfe\x80"),
        "utf-16": valid.decode().encode("utf-16"),
        "huge integer": valid.replace(b"seed: 1", b"seed: " + b"9" * 100_000),
        "infinity": valid.replace(b"labels: 40", b"labels: .inf"),
        "not a number": valid.replace(b"600.0", b".nan"),
        "1e999": valid.replace(b"600.0", b"1.0e+999"),
        "many walkers": valid.replace(b"walkers: 2", b"walkers: 1000000000000"),
        "many members": valid.replace(b"members: 2", b"members: 1000000000"),
        "many basis functions": valid.replace(b"n_basis: 8", b"n_basis: 1000000000000"),
        "sexagesimal": valid.replace(b"labels: 40", b"labels: 1:1:1"),
        "empty key": valid + b"? \n: 1\n",
        "list key": valid + b"? [1, 2]\n: 1\n",
        "two documents": valid + b"---\n" + valid,
        "tab": b"\tname: c\n",
        "binary": bytes(range(256)) * 40,
        "long smiles": valid.replace(b"molecule: CH3OH", b"smiles: " + b"C" * 50_000),
        "nested smiles": valid.replace(b"molecule: CH3OH", b"smiles: " + b"C(" * 20_000 + b"C" + b")" * 20_000),
        "rings of smiles": valid.replace(b"molecule: CH3OH", b'smiles: "' + b"C%99" * 5000 + b'"'),
        "many copies": valid.replace(b"molecule: CH3OH", b"bulk: {formula: Cu, repeat: [10000, 10000, 10000]}"),
        "code as a path": valid.replace(b"molecule: CH3OH", b'file: "| touch owned"'),
    }
    for name, content in nasty.items():
        maker.add_config(name, content)
    fifo = maker.path(".yaml")
    os.mkfifo(fifo)
    maker.add("yaml: fifo", "run", fifo, "--dry-run", codes=(2,))
    maker.add("yaml: device", "run", "/dev/zero", "--dry-run", codes=(2,))
    maker.add("yaml: folder", "run", maker.folder, "--dry-run", codes=(2,))
    maker.add("yaml: name", "run", "a" * 5000, "--dry-run", codes=(2,))
    maker.add("yaml: set", "run", maker.config, "--dry-run", "--set", "seed=" + "[" * 5000, codes=(2,))
    maker.add("yaml: set a bomb", "run", maker.config, "--dry-run", "--set", "seed=[&a [1,1], *a", codes=(2,))


def _structures(maker: Maker) -> None:
    methanol = molecule("CH3OH")
    crystal = bulk("NaCl", "rocksalt", a=5.64)
    samples: dict[str, bytes] = {}
    for suffix, form, atoms in (
        (".xyz", "xyz", methanol), (".extxyz", "extxyz", crystal), (".pdb", "proteindatabank", methanol),
        (".cif", "cif", crystal), (".vasp", "vasp", crystal), (".gen", "gen", methanol), (".xsf", "xsf", crystal),
        (".res", "res", crystal), (".coord", "turbomole", methanol), (".traj", "traj", methanol),
    ):  # fmt: skip
        path = maker.path(suffix)
        ase.io.write(path, atoms, format=form)
        samples[suffix] = path.read_bytes()
    samples[".sdf"] = MOLFILE
    for suffix, content in samples.items():
        maker.add_structure(f"valid {suffix}", maker.file(content, suffix))
        for what, mutant in mutants(content, 6, suffix):
            maker.add_structure(f"{suffix} {what}", maker.file(mutant, suffix))
    huge = b"1000000000000"
    symmetry = b"loop_\n_symmetry_equiv_pos_as_xyz\n" + b"'x,y,z+1/7'\n" * 20_000
    nasty = {
        "xyz count": (".xyz", huge + b"\n\nH 0 0 0\n"),
        "xyz negative": (".xyz", b"-5\n\nH 0 0 0\n"),
        "xyz nan": (".xyz", b"2\n\nH nan 0 0\nH 0 0 inf\n"),
        "xyz 1e999": (".xyz", b"2\n\nH 1e999 0 0\nH 0 0 1\n"),
        "xyz width": (".extxyz", b'1\nProperties=species:S:1:pos:R:999999999999 Lattice="1 0 0 0 1 0 0 0 1"\nH 0 0 0\n'),
        "xyz comment": (".extxyz", b"1\n" + b"a={" * 200_000 + b"\nH 0 0 0\n"),
        "xyz quotes": (".extxyz", b'1\n' + b'"' * 200_001 + b"\nH 0 0 0\n"),
        "xyz nested json": (".extxyz", b"1\na=" + b"[" * 50_000 + b"]" * 50_000 + b"\nH 0 0 0\n"),
        "xyz _JSON": (".extxyz", b"1\nProperties=species:S:1:pos:R:3 a=_JSON " + b"[" * 50_000 + b"\nH 0 0 0\n"),
        "xyz many atoms": (".xyz", b"200000\n\n" + b"H 0 0 0\n" * 200_000),
        "pdb serials": (".pdb", b"HETATM99999999999  O   HOH A   1       0.000   0.000   0.000\n"),
        "pdb cell": (".pdb", b"CRYST1 1e99 1e99 1e99 90 90 90\nATOM      1  C   LIG A   1       0.000   0.000   0.000\n"),
        "pdb long": (".pdb", b"ATOM  " + b"9" * 5_000_000),
        "cif symmetry": (".cif", CIF.replace(b"SYMMETRY\n", symmetry)),
        "cif numbers": (".cif", CIF.replace(b"SYMMETRY\n", b"").replace(b"_cell_length_a 4.0", b"_cell_length_a 1e999")),
        "cif group": (".cif", CIF.replace(b"SYMMETRY\n", b"_space_group_IT_number 999999999999\n")),
        "cif loops": (".cif", b"data_x\n" + b"loop_\n_a\n" * 50_000),
        "cif quotes": (".cif", b"data_x\n_a\n;" + b"x\n" * 200_000),
        "cif code": (".cif", CIF.replace(b"SYMMETRY\n", b"loop_\n_symmetry_equiv_pos_as_xyz\n'__import__(\"os\").system(\"touch owned\")'\n")),
        "vasp counts": (".vasp", b"H\n1.0\n1 0 0\n0 1 0\n0 0 1\nH\n" + huge + b"\nDirect\n0 0 0\n"),
        "vasp scale": (".vasp", b"H\n1e999\n1 0 0\n0 1 0\n0 0 1\nH\n1\nDirect\n0 0 0\n"),
        "vasp species": (".vasp", b"H\n1.0\n1 0 0\n0 1 0\n0 0 1\n" + b"H " * 200_000 + b"\n" + b"1 " * 200_000 + b"\nDirect\n0 0 0\n"),
        "gen count": (".gen", huge + b" C\nH\n1 1 0 0 0\n"),
        "xsf count": (".xsf", b"CRYSTAL\nPRIMVEC\n1 0 0\n0 1 0\n0 0 1\nPRIMCOORD\n" + huge + b" 1\nH 0 0 0\n"),
        "xsf grid": (".xsf", b"ANIMSTEPS 999999999\nCRYSTAL\nPRIMVEC\n1 0 0\n0 1 0\n0 0 1\nPRIMCOORD\n1 1\nH 0 0 0\n"),
        "mol count": (".mol", MOLFILE.replace(b"  6  5", b"999999")),
        "mol bonds": (".mol", MOLFILE.replace(b"  1  2  1", b"  1 99  1")),
        "mol v3000": (".mol", MOLV3.replace(b"COUNTS 2 1", b"COUNTS 999999999 999999999")),
        "mol ring": (".mol", MOLFILE.replace(b"  1  2  1", b"  1  1  1")),
        "traj shape": (".traj", samples[".traj"].replace(b"[6, 3]", b"[9999999999, 3]").replace(b"[6,3]", b"[9999999999,3]")),
        "traj class": (".traj", samples[".traj"].replace(b"__ndarray__", b"__complex__")),
        "not utf-8": (".xyz", b"1\n\xff\xfe\xfd\nH 0 0 0\n"),
        "null": (".xyz", b"1\n\0\nH\0 0 0 0\n"),
        "pickle": (".xyz", pickle.dumps(_Owned())),
        "binary": (".pdb", bytes(range(256)) * 100),
        "gzip": (".xyz", zlib.compress(b"1\n\nH 0 0 0\n")),
    }  # fmt: skip
    for name, (suffix, content) in nasty.items():
        maker.add_structure(name, maker.file(content, suffix))
    fifo, listening = maker.path(".xyz"), maker.path(".xyz")
    os.mkfifo(fifo)
    os.mknod(listening, stat.S_IFSOCK | 0o600)
    device, loop = maker.path(".xyz"), maker.path(".xyz")
    device.symlink_to("/dev/zero")
    loop.symlink_to(loop)
    directory = maker.path(".xyz")
    directory.mkdir()
    for name, path in (
        ("fifo", fifo), ("socket", listening), ("device", device), ("loop", loop), ("folder", directory),
    ):  # fmt: skip
        maker.add_structure(name, path)
    good = maker.path(".xyz")
    good.symlink_to(maker.file(samples[".xyz"], ".xyz"))
    maker.add_structure("symbolic link", good)


def _data_sets(maker: Maker) -> None:
    from support.labelled import GFN1

    samples: dict[str, bytes] = {}
    for name, suffix in SUFFIXES.items():
        path = maker.path(suffix)
        known = FORMATS[name]
        known.write(maker.snapshot, path, (known.is_of_one_level and known.level) or GFN1)
        samples[name] = path.read_bytes()
        maker.add_data(f"valid {name}", path, "--format", name)
        for what, content in mutants(samples[name], 10, name):
            maker.add_data(f"{name} {what}", maker.file(content, suffix), "--format", name)
    path = maker.path(".json")
    FORMATS["ase-db"].write(maker.snapshot, path, GFN1)
    for what, content in mutants(path.read_bytes(), 10, "json"):
        maker.add_data(f"json {what}", maker.file(content, ".json"))
    deepmd = maker.path("")
    FORMATS["deepmd"].write(maker.snapshot, deepmd, GFN1)
    rng = random.Random("deepmd")
    for k in range(10):
        copy = maker.path("")
        shutil.copytree(deepmd, copy)
        file = rng.choice(sorted(p for p in copy.rglob("*") if p.is_file() and p.stat().st_size > 8))
        mutate = MUTATIONS[k % len(MUTATIONS)]
        file.write_bytes(mutate(file.read_bytes(), rng))
        maker.add_data(f"deepmd {file.name} {mutate.__name__}-{k}", copy)
    _nasty_arrays(maker, deepmd)
    _nasty_hdf5(maker)
    _nasty_databases(maker, samples)
    huge = b"1000000000000"
    text = samples["extxyz"]
    for name, content in {
        "extxyz count": huge + b"\n" + text,
        "extxyz columns": text.replace(b"pos:R:3", b"pos:R:999999999999"),
        "extxyz energy": re.sub(rb"energy=-?[\d.]+", b"energy=1e999", text),
        "extxyz infinity": re.sub(rb"energy=-?[\d.]+", b"energy=inf", text),
        "extxyz charge": text.replace(b"charge=0", b"charge=1000000000000000000000"),
        "extxyz level": text.replace(b"level=", b"level=" + b"{" * 100_000),
        "extxyz no end": text.rstrip(b"\n")[:-9],
        "extxyz quotes": b'1\nenergy="' + b"\\" * 1_000_000 + b"\nH 0 0 0 0 0 0\n",
        "extxyz backtracking": b"1\n" + b"a" * 100_000 + b"\nH 0 0 0 0 0 0\n",
        "extxyz line": b"9" * 10_000_000,
    }.items():
        maker.add_data(name, maker.file(content, ".xyz"))
    maker.add("data: level bomb", "data", "import", maker.config, path, "--level", maker.file(b"[" * 50_000, ".json"))
    maker.add("data: level", "data", "import", maker.config, path, "--level", "{" + '"a":{' * 5000, codes=(2,))
    maker.add("data: level object", "data", "import", maker.config, path, "--level", maker.file(b"a: !!python/name:os.system\n", ".yaml"))  # fmt: skip
    maker.add("data: device", "data", "import", maker.config, "/dev/zero", "--format", "extxyz", codes=(2,))
    fifo = maker.path(".xyz")
    os.mkfifo(fifo)
    maker.add("data: fifo", "data", "import", maker.config, fifo, codes=(2,))
    maker.add("data: certify fifo", "certify", maker.config, "--frames", fifo, codes=(2,))
    maker.add("data: certify count", "certify", maker.config, "--frames", maker.file(huge + b"\n\nH 0 0 0\n", ".xyz"), codes=(2,))  # fmt: skip
    for what, content in mutants(text, 8, "certify"):
        maker.add(f"data: certify {what}", "certify", maker.config, "--n", "1", "--frames", maker.file(content, ".xyz"), codes=(0, 2, 4))  # fmt: skip


def _nasty_arrays(maker: Maker, deepmd: Path) -> None:
    def npy(header: bytes, body: bytes = b"") -> bytes:
        padded = header + b" " * (63 - (len(header) + 10) % 64) + b"\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + body

    def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", method) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return target.getvalue()

    shape = b"{'descr': '<f8', 'fortran_order': False, 'shape': (%s), }"
    good = {"nuclear_charges.npy": npy(shape.replace(b"<f8", b"|u1") % b"1,", b"\x02"), "energies.npy": npy(shape % b"1,", b"\0" * 8)}  # fmt: skip
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in good.items():
            archive.writestr(name, content)
        with archive.open("coords.npy", "w") as member:
            member.write(npy(shape % b"40000000, 1, 3"))
            for _ in range(60):
                member.write(bytes(16_000_000))
        archive.writestr("forces.npy", b"")
    nasty = {
        "npz bomb": bomb.getvalue(),
        "npz shape": zipped({**good, "coords.npy": npy(shape % b"1000000000000, 1, 3"), "forces.npy": b""}),
        "npz negative": zipped({**good, "coords.npy": npy(shape % b"-1, 1, 3"), "forces.npy": b""}),
        "npz header": zipped({**good, "coords.npy": npy(b"{'descr': '<f8', 'shape': __import__('os').system('touch owned')}")}),
        "npz nested header": zipped({**good, "coords.npy": npy(b"(" * 30_000)}),
        "npz pickle": zipped({**good, "coords.npy": npy(shape.replace(b"<f8", b"|O") % b"1,", pickle.dumps(_Owned()))}),
        "npz text": zipped({**good, "coords.npy": b"1 2 3\n", "forces.npy": b"1 2 3\n"}),
        "npz outside": zipped({**good, "../../coords.npy": b""}),
        "npz pickled": pickle.dumps(_Owned()),
    }  # fmt: skip
    for name, content in nasty.items():
        maker.add_data(name, maker.file(content, ".npz"), "--format", "rmd17")
    for name, file, content in (
        ("deepmd types", "type.raw", b"-1\n" * 6),
        ("deepmd many types", "type.raw", b"999999999999\n" * 6),
        ("deepmd map", "type_map.raw", b"Xx\n" * 3),
        ("deepmd text", "type.raw", bytes(range(256))),
        ("deepmd array", "set.000/energy.npy", npy(shape % b"1000000000000,")),
        ("deepmd pickle", "set.000/energy.npy", pickle.dumps(_Owned())),
    ):
        copy = maker.path("")
        shutil.copytree(deepmd, copy)
        for target in copy.rglob(Path(file).name):
            target.write_bytes(content)
        maker.add_data(name, copy)
    copy = maker.path("")
    shutil.copytree(deepmd, copy)
    for target in list(copy.rglob("energy.npy")):
        target.unlink()
        os.mkfifo(target)
    maker.add_data("deepmd fifo", copy)


def _nasty_hdf5(maker: Maker) -> None:
    import h5py

    def written(fill: Callable[[Any], None]) -> Path:
        path = maker.path(".h5")
        with h5py.File(path, "w") as file:
            fill(file)
        return path

    def molecule_of(file: Any, n: Any = 4, **positions: Any) -> Any:
        group = file.create_group("water")
        group["atomic_numbers"] = np.array([8, 1, 1])
        group["smiles"] = [b"O"]
        if positions:
            group.create_dataset("conformations", **positions)
            n = group["conformations"].shape[0]
        else:
            group["conformations"] = np.random.default_rng(0).normal(size=(n, 3, 3))
        for name, shape in (("dft_total_energy", (n,)), ("dft_total_gradient", (n, 3, 3))):
            if n <= 10_000:
                group[name] = np.zeros(shape)
            else:
                group.create_dataset(name, shape=shape, dtype="f8", chunks=(1024, *shape[1:]), compression="gzip")
        return group

    def external(file: Any) -> None:
        molecule_of(file, shape=(4, 3, 3), dtype="f8", external=[("/dev/zero", 0, h5py.h5f.UNLIMITED)])

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout(shape=(4, 3, 3), dtype="f8")
        layout[:] = h5py.VirtualSource("/dev/zero", "x", shape=(4, 3, 3))
        group = molecule_of(file)
        del group["conformations"]
        group.create_virtual_dataset("conformations", layout)

    def linked(file: Any) -> None:
        group = molecule_of(file)
        del group["conformations"]
        group["conformations"] = h5py.ExternalLink("/dev/zero", "/x")

    def soft(file: Any) -> None:
        group = molecule_of(file)
        del group["conformations"]
        group["conformations"] = h5py.SoftLink("/water/conformations")

    def circles(file: Any) -> None:
        for k in range(6):
            file.create_group(f"g{k}")
        for k in range(6):
            for other in range(6):
                file[f"g{k}/l{other}"] = file[f"g{other}"]

    def references(file: Any) -> None:
        group = molecule_of(file)
        del group["conformations"]
        group.create_dataset("conformations", data=np.array([file.ref] * 4, dtype=h5py.ref_dtype), dtype=h5py.ref_dtype)

    def many(file: Any) -> None:
        for k in range(3000):
            file.create_group(f"g{k:05d}")

    big = {"dtype": "f8", "compression": "gzip"}
    for name, fill in {
        "sparse": lambda file: molecule_of(file, shape=(10**9, 3, 3), chunks=(1024, 3, 3), **big),
        "large chunk": lambda file: molecule_of(file, shape=(10**8, 3, 3), chunks=(10**7, 3, 3), **big),
        "wide": lambda file: molecule_of(file, shape=(4, 10**8, 3), chunks=(1, 10**6, 3), **big),
        "external storage": external,
        "virtual": virtual,
        "external link": linked,
        "link to itself": soft,
        "circles": circles,
        "references": references,
        "many groups": many,
        "text": lambda file: molecule_of(file, data=np.array([[["x"] * 3] * 3] * 4, dtype="S1")),
        "complex": lambda file: molecule_of(file, data=np.zeros((4, 3, 3), dtype="c16")),
        "not a number": lambda file: molecule_of(file, data=np.full((4, 3, 3), np.nan)),
        "scalar": lambda file: file.create_dataset("atomic_numbers", data=1),
    }.items():
        maker.add_data(f"hdf5 {name}", written(fill), "--format", "spice")

    def bomb(file: Any) -> None:
        group = molecule_of(file, shape=(300_000, 3, 3), chunks=(100_000, 3, 3), **big)
        for each in group.values():
            if each.shape and each.shape[0] == 300_000:
                each[...] = np.zeros(each.shape)

    maker.add_data("hdf5 bomb", written(bomb), "--format", "spice")


def _nasty_databases(maker: Maker, samples: dict[str, bytes]) -> None:
    def changed(*statements: str) -> Path:
        path = maker.file(samples["ase-db"], ".db")
        connection = sqlite3.connect(path)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()
        return path

    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x AS id, "
    with contextlib.closing(sqlite3.connect(maker.file(samples["ase-db"], ".db"))) as connection:
        columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(systems)") if name != "id"]
    nasty = {
        "sqlite view": ("ALTER TABLE systems RENAME TO s", f"CREATE VIEW systems AS {endless} {', '.join(f'x AS {name}' for name in columns)} FROM c"),
        "sqlite count": ("ALTER TABLE systems RENAME TO s", "CREATE VIEW systems AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) AS id, " + ", ".join(f"1 AS {name}" for name in columns) + " FROM c"),
        "sqlite cross view": ("ALTER TABLE systems RENAME TO s", f"CREATE VIEW systems AS SELECT a.id, {', '.join(f'a.{name}' for name in columns)} FROM s a, s b, s c, s d, s e, s f"),
        "sqlite blob": ("UPDATE systems SET positions = zeroblob(50000000)",),
        "sqlite short": ("UPDATE systems SET positions = zeroblob(7)",),
        "sqlite text": ("UPDATE systems SET numbers = 'text', energy = 'text'",),
        "sqlite energy": ("UPDATE systems SET energy = 9e999",),
        "sqlite data": ("UPDATE systems SET data = '" + "[" * 100_000 + "'",),
        "sqlite object": ("UPDATE systems SET data = '{\"__ase_objtype__\": \"os\", \"charge\": 0}'",),
        "sqlite pairs": ("UPDATE systems SET key_value_pairs = '{\"charge\": 1e999}'",),
        "sqlite trigger": ("CREATE TRIGGER t AFTER UPDATE ON systems BEGIN SELECT load_extension('x'); END",),
        "sqlite version": ("UPDATE information SET value = 'x' WHERE name = 'version'",),
        "sqlite id": ("UPDATE systems SET id = 9223372036854775800 + id % 3 WHERE id < 3",),
        "sqlite wal": ("PRAGMA journal_mode = WAL",),
    }  # fmt: skip
    for name, statements in nasty.items():
        maker.add_data(name, changed(*statements), "--format", "ase-db")

    import lmdb

    def packed(*rows: tuple[bytes, bytes]) -> Path:
        path = maker.path(".aselmdb")
        with (
            lmdb.open(str(path), subdir=False, lock=False, map_size=2**27) as environment,
            environment.begin(write=True) as transaction,
        ):
            for key, value in rows:
                transaction.put(key, value)
        return path

    row = (
        b'{"numbers": [1], "positions": [[0, 0, 0]], "energy": %s, "forces": [[0, 0, 0]], "pbc": [false, false, false]}'
    )
    array = b'{"numbers": [1], "positions": {"__ndarray__": [[1000000000000, 3], "float64", [0]]}}'
    for name, rows in {
        "lmdb bomb": [(b"1", zlib.compress(b" " * 100_000_000))],
        "lmdb nested": [(b"1", zlib.compress(b"[" * 100_000))],
        "lmdb pickle": [(b"1", pickle.dumps(_Owned()))],
        "lmdb energy": [(b"1", row % b"1e999")],
        "lmdb array": [(b"1", array)],
        "lmdb key": [(b"9" * 400, row % b"1")],
        "lmdb keys": [(b"\xff\xfe", b"x")],
    }.items():
        maker.add_data(name, packed(*rows), "--format", "omol25")
    content = packed((b"1", row % b"1"), (b"2", b"x" * 200_000)).read_bytes()
    for size in (4096, 8192, 10_000, 20_000):
        maker.add_data(f"lmdb cut at {size}", maker.file(content[:size], ".aselmdb"), "--format", "omol25")


def _bundles(maker: Maker) -> None:
    rng = np.random.default_rng(0)
    from alsys.potentials.pair import PairModelSpec

    pair_spec = {"elements": ["H", "C", "O"], "r_max": 4.0, "n_basis": 6}
    n_kinds = PairModelSpec(pair_spec).n_kinds
    pair_member = {"coefficients": rng.normal(size=6 * n_kinds), "shifts": np.zeros(3)}
    pair = maker.path("")
    write_bundle(
        pair, CommitteeState(1, "pair", pair_spec, (pair_member, pair_member)), {"metrics": {"force_mae": 0.1}}
    )
    nequip = maker.path("")
    weights = weights_of(build_model(NEQUIP))
    write_bundle(nequip, CommitteeState(1, "nequip", NEQUIP, (weights, weights)), {"metrics": {"force_mae": 0.1}})
    maker.add_bundle("valid nequip", nequip)

    def copied(source: Path, change: Callable[[Path], None], *, is_summed: bool = True) -> Path:
        copy = maker.path("")
        shutil.copytree(source, copy)
        change(copy)
        if is_summed:
            names = sorted(p.name for p in copy.iterdir() if p.name != "SHA256SUMS" and p.is_file())
            lines = [f"{hashlib.sha256((copy / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
            (copy / "SHA256SUMS").write_text("".join(lines))
        return copy

    draw = random.Random("bundle")
    for k in range(20):
        mutate, name = MUTATIONS[k % 5], ("model.json", "member_00.safetensors", "SHA256SUMS", "card.json")[k % 4]

        def change(folder: Path, mutate: Any = mutate, name: str = name) -> None:
            (folder / name).write_bytes(mutate((folder / name).read_bytes(), draw))

        maker.add_bundle(
            f"{name} {mutate.__name__}-{k}", copied(nequip, change, is_summed=k % 3 > 0 and name != "SHA256SUMS")
        )

    def with_model(**changes: Any) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            model = json.loads((folder / "model.json").read_text())
            spec = changes.pop("spec", {})
            model |= changes
            if isinstance(spec, dict) and isinstance(model["spec"], dict):
                model["spec"] |= spec
            if model["spec"].keys() - NEQUIP.keys():
                model["format"] = 3
            (folder / "model.json").write_text(json.dumps(model))

        return change

    def with_weights(change_arrays: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            arrays = load((folder / "member_00.safetensors").read_bytes())
            change_arrays(arrays)
            (folder / "member_00.safetensors").write_bytes(save(arrays))

        return change

    def first(value: float) -> Callable[[dict[str, Any]], Any]:
        def set_(arrays: dict[str, Any]) -> None:
            name = next(n for n, a in arrays.items() if a.dtype.kind == "f" and a.size > 1)
            array = arrays[name].copy()
            array.flat[0] = value
            arrays[name] = array

        return set_

    def header(content: bytes, size: int | None = None) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            data = struct.pack("<Q", len(content) if size is None else size) + content
            (folder / "member_00.safetensors").write_bytes(data)

        return change

    def sparse(name: str) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            with (folder / name).open("wb") as file:
                file.truncate(10**12)

        return change

    def replaced(name: str, make: Callable[[Path], None]) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            (folder / name).unlink()
            make(folder / name)

        return change

    nasty: dict[str, Callable[[Path], None]] = {
        "nan weight": with_weights(first(float("nan"))),
        "infinite weight": with_weights(first(float("inf"))),
        "no weights": with_weights(lambda arrays: arrays.clear()),
        "integers": with_weights(lambda arrays: arrays.update({k: v.astype(np.int64) for k, v in arrays.items()})),
        "half": with_weights(lambda arrays: arrays.update({k: v.astype(np.float16) for k, v in arrays.items()})),
        "doubles": with_weights(lambda arrays: arrays.update({k: v.astype(np.float64) for k, v in arrays.items()})),
        "flat": with_weights(lambda arrays: arrays.update({k: v.reshape(-1) for k, v in arrays.items()})),
        "more": with_weights(lambda arrays: arrays.update(other=np.zeros(3))),
        **{f"cutoff {value}": with_model(spec={"r_max": value}) for value in (float("nan"), float("inf"), -4.0, 0.0, 1e6, "x", None, [4.0])},
        **{f"layers {value}": with_model(spec={"num_layers": value}) for value in (-1, 0, 10**9, 1e999, "x", 2)},
        **{f"l_max {value}": with_model(spec={"l_max": value}) for value in (-1, 50, 10**9)},
        **{f"features {value}": with_model(spec={"num_features": value}) for value in (0, 10**9, [4, 4, 4], "x", [10**9, 10**9])},
        **{f"neighbours {value}": with_model(spec={"avg_num_neighbors": value}) for value in (0.0, -1.0, float("nan"), 1e999)},
        **{f"dtype {value}": with_model(spec={"dtype": value}) for value in ("float16", "int8", "object", "os.system", 3)},
        **{f"elements {value}": with_model(spec={"elements": value}) for value in ([], ["Xx"], "HCO", ["H"] * 3, ["H", "C", "O"] * 1000, None)},
        "bessels": with_model(spec={"num_bessels": 10**9}),
        "mlp": with_model(spec={"radial_mlp_width": 10**9}),
        "mlp depth": with_model(spec={"radial_mlp_depth": 10**9}),
        "cutoff power": with_model(spec={"polynomial_cutoff_p": -3}),
        "cutoffs": with_model(spec={"cutoffs": {"H-C": float("nan")}}),
        "negative cutoffs": with_model(spec={"cutoffs": {"H-C": -1.0}}),
        "target": with_model(spec={"_target_": "os.system"}),
        "spec list": with_model(spec=None, kind=["nequip"]),
        "kind": with_model(kind="os.system"),
        **{f"members {value}": with_model(n_members=value) for value in (0, -1, 10**12, 1e999, "x", None)},
        "version": with_model(version=10**400),
        "format": with_model(format=[1]),
        "baseline": with_model(format=2, baseline={"kind": "os.system"}),
        "deep model": lambda folder: (folder / "model.json").write_bytes(b"[" * 100_000) and None,
        "deep card": lambda folder: (folder / "card.json").write_bytes(b'{"a":' * 100_000) and None,
        "card list": lambda folder: (folder / "card.json").write_bytes(b"[1]") and None,
        "header size": header(b"{}", 2**63),
        "header of spaces": header(b" " * 1000),
        "deep header": header(b'{"a":' * 50_000),
        "offsets": header(b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'),
        "overflow": header(b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'),
        "negative": header(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[-4,0]}}'),
        "dtype": header(b'{"a":{"dtype":"O","shape":[1],"data_offsets":[0,1]}}'),
        "pickle": lambda folder: (folder / "member_00.safetensors").write_bytes(pickle.dumps(_Owned())) and None,
    }  # fmt: skip
    for name, change in nasty.items():
        maker.add_bundle(name, copied(nequip, change))
    for name, change in {
        "sparse weights": sparse("member_00.safetensors"),
        "sparse sums": sparse("SHA256SUMS"),
        "sparse model": sparse("model.json"),
        "fifo": replaced("member_00.safetensors", lambda path: os.mkfifo(path)),
        "fifo of sums": replaced("SHA256SUMS", lambda path: os.mkfifo(path)),
        "device": replaced("model.json", lambda path: path.symlink_to("/dev/zero")),
        "folder": replaced("model.json", lambda path: path.mkdir()),
        "sums outside": lambda folder: (folder / "SHA256SUMS").write_text(f"{'0' * 64}  ../../etc/passwd\n") and None,
        "sums of nothing": lambda folder: (folder / "SHA256SUMS").write_text("\n\n") and None,
        "sums null": lambda folder: (folder / "SHA256SUMS").write_bytes(b"0" * 64 + b"  a\0b\n") and None,
    }.items():
        maker.add_bundle(name, copied(nequip, change, is_summed=False), is_built=False)
    for name, change in {
        "pair nan": with_weights(first(float("nan"))),
        "pair basis": with_model(spec={"n_basis": 10**12}),
        "pair elements": with_model(spec={"elements": ["Zz"]}),
        "pair cutoff": with_model(spec={"r_max": -1.0}),
        "pair infinite cutoff": with_model(spec={"r_max": float("inf")}),
        "pair few": with_weights(lambda arrays: arrays.popitem()),
    }.items():
        maker.add_bundle(name, copied(pair, change))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/model/package_metadata.txt", b"a" * 50_000_000)
    package = target.getvalue()
    for name, content in {
        "package bomb": package, "package text": b"text", "package cut": package[:100],
        "package aliases": _package(b"a: &a [1,1]\nb: &b [*a,*a]\natom_types: *b\n"),
        "package code": _package(b"atom_types: !!python/object/apply:os.system ['touch owned']\n"),
        "package types": _package(b"atom_types: {0: Xx}\n"), "package nested": _package(b"[" * 20_000),
    }.items():  # fmt: skip
        path = maker.file(content, ".nequip.zip")
        maker.add(f"bundle: {name}", "models", "import", path, maker.path(""), "--trust-code", codes=(2,))
    fifo = maker.path(".nequip.zip")
    os.mkfifo(fifo)
    maker.add("bundle: package fifo", "models", "import", fifo, maker.path(""), "--trust-code", codes=(2,))


def _package(metadata: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("m/model/package_metadata.txt", metadata)
    return target.getvalue()


def _campaigns(maker: Maker) -> None:
    from alsys.config import parse_config
    from alsys.config.load import config_hash

    campaign = maker.path("")
    config = parse_config({**CONFIG, "directory": str(campaign)})
    writer = open_writer(campaign / "store.zarr")
    writer.stage(events=[CampaignOpened(t=1.0, epoch=1, config_hash=config_hash(config), version="test")])
    writer.commit()
    writer.close()
    record = {
        "config": config.model_dump(mode="json"),
        "config_hash": config_hash(config),
        "alsys": "0",
        "versions": {},
    }
    (campaign / "campaign.json").write_text(json.dumps(record))

    def copied() -> Path:
        copy = maker.path("")
        shutil.copytree(campaign, copy)
        return copy

    def special(path: Path, name: str) -> None:
        path.unlink(missing_ok=True)
        if name == "fifo":
            os.mkfifo(path)
        elif name == "device":
            path.symlink_to("/dev/zero")
        elif name == "folder":
            path.mkdir()
        else:
            with path.open("wb") as file:
                file.truncate(10**12)

    deep, wide = b'{"config":' * 50_000, json.dumps({"config": {"name": "x" * 10_000_000}}).encode()
    for what, content in [
        *mutants((campaign / "campaign.json").read_bytes(), 14, "record"),
        ("deep", deep),
        ("wide", wide),
    ]:
        copy = copied()
        (copy / "campaign.json").write_bytes(content)
        maker.add(f"record: {what}", "status", copy)
    for name in ("fifo", "device", "folder", "sparse"):
        copy = copied()
        special(copy / "campaign.json", name)
        maker.add(f"record: {name}", "status", copy)
    head = (campaign / "store.zarr" / "HEAD").read_bytes()
    for what, content in [*mutants(head, 14, "head"), ("deep", deep), ("null", b"\0" * 100), ("list", b"[]")]:
        copy = copied()
        (copy / "store.zarr" / "HEAD").write_bytes(content)
        maker.add(f"head: {what}", "data", "info", copy, codes=(0, 2, 4))
    for name in ("fifo", "device", "folder", "sparse"):
        copy = copied()
        special(copy / "store.zarr" / "HEAD", name)
        maker.add(f"head: {name}", "data", "info", copy, codes=(2, 4))
    request = json.dumps({"kind": "retract", "frames": ["0" * 32], "labels": [], "reason": "because"}).encode()
    nasty = {
        "deep": deep, "list": b"[]", "text": b'"retract"', "kind": b'{"kind": "os.system", "version": 1}',
        "kind list": b'{"kind": ["retract"]}', "keys": b'{"kind": "rollback", "__class__": "os.system"}',
        "number": b'{"kind": "rollback", "version": 1e999}', "version": b'{"kind": "rollback", "version": "x"}',
        "long": b'{"kind": "rollback", "version": ' + b"9" * 10_000 + b"}", "null": b"\0" * 100, "utf-8": b"\xff\xfe\xfd",
        "frames": b'{"kind": "retry", "frames": 5}', "frame": b'{"kind": "retry", "frames": [[[]]]}',
        "failure": b'{"kind": "retry", "failure": {}}', "all": b'{"kind": "retry", "is_all": "no"}',
        "reason": b'{"kind": "retract", "reason": 7, "frames": ["x"]}', "empty": b"",
        "labels": b'{"kind": "retract", "reason": "x", "labels": {"a": 1}}',
    }  # fmt: skip
    for what, content in [*mutants(request, 15, "request"), *nasty.items()]:
        copy = copied()
        (copy / "requests").mkdir()
        (copy / "requests" / "00000000000000000001-0.request.json").write_bytes(content)
        maker.add(f"request: {what}", "rollback", copy, "--timeout", "5")
    for name in ("fifo", "device", "folder", "sparse"):
        copy = copied()
        (copy / "requests").mkdir()
        special(copy / "requests" / "00000000000000000001-0.request.json", name)
        maker.add(f"request: {name}", "rollback", copy, "--timeout", "5")
    item = json.dumps({"number": 1, "kind": "publish", "version": 1, "bundle": "models/v0001", "card": {"metrics": {"a": 1.0}}}).encode()  # fmt: skip
    nasty = {
        "deep": deep, "list": b"[]", "card": b'{"card": 5}', "null": b"\0" * 50, "empty": b"", "utf-8": b"\xff\xfe",
        "card list": b'{"card": [1, 2]}', "wide": wide, "number": b'{"card": {"metrics": {"a": 1e999}}}',
    }  # fmt: skip
    for what, content in [*mutants(item, 15, "outbox"), *nasty.items()]:
        copy = copied()
        (copy / "outbox").mkdir()
        (copy / "outbox" / "000001-publish-v0001.json").write_bytes(content)
        maker.add(f"outbox: {what}", "@outbox", copy)
    for name in ("fifo", "device", "folder", "sparse"):
        copy = copied()
        (copy / "outbox").mkdir()
        special(copy / "outbox" / "000001-publish-v0001.json", name)
        maker.add(f"outbox: {name}", "@outbox", copy)


class _Owned:
    """Leaves a file behind where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch owned",)


MOLFILE = b"""methanol
  test

  6  5  0  0  0  0  0  0  0  0999 V2000
   -0.0470    0.6640    0.0000 C   0  0
   -0.0470   -0.7580    0.0000 O   0  0
   -1.0920    0.9830    0.0000 H   0  0
    0.4370    1.0720    0.8920 H   0  0
    0.4370    1.0720   -0.8920 H   0  0
    0.8740   -1.0460    0.0000 H   0  0
  1  2  1  0
  1  3  1  0
  1  4  1  0
  1  5  1  0
  2  6  1  0
M  END
$$$$
"""
MOLV3 = b"""hydrogen
  test

  0  0  0     0  0            999 V3000
M  V30 BEGIN CTAB
M  V30 COUNTS 2 1 0 0 0
M  V30 BEGIN ATOM
M  V30 1 H 0 0 0 0
M  V30 2 H 0 0 0.74 0
M  V30 END ATOM
M  V30 BEGIN BOND
M  V30 1 1 1 2
M  V30 END BOND
M  V30 END CTAB
M  END
"""
CIF = b"""data_x
_cell_length_a 4.0
_cell_length_b 4.0
_cell_length_c 4.0
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
SYMMETRY
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na1 Na 0 0 0
Cl1 Cl 0.5 0.5 0.5
"""
