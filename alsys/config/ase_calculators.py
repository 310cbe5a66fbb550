"""Which calculators of ASE a campaign file may name, for labels and as teachers, with which parameters.

A campaign file is data: it must not name code, files or commands. So each calculator has its own list of parameters and
their kinds; strings are one of a few choices, a single word, or one line without quotes, backslashes and equal signs
(with which some programs are told to run others).

Commands of programs come from ASE's own configuration (`~/.config/ase/config.ini`, or variables such as
`ASE_NWCHEM_COMMAND`), weights of learned potentials from where their packages keep them: both belong to the machine.
Importable without ASE.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from alsys.config.section import Section, spelled_word

Kind = Literal["number", "integer", "flag", "word", "text", "numbers"] | tuple[str, ...]
"""A tuple lists the choices."""
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+*(),-]{0,63}")
TEXT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+*(),/ -]{0,199}")
REFUSED = ("..", "//", "extopt", "moread", "compound")
"""Parts of strings that name files or other programs."""
MAX_NUMBERS = 64


@dataclass(frozen=True, slots=True)
class Calculator:
    """One calculator of the allow-list.

    Attributes:
        path: ``module:class``, or another callable that makes one; it may be an attribute of a class.
        parameters: Kind of each parameter that may be given.
        required: Those that must be given.
        fixed: Parameters that are always set.
        charge: Parameter that takes the frame's charge; None where only neutral frames are treated.
        multiplicity: Parameter that takes 2S + 1; None where there is none.
        is_in_info: Whether these two are entries of ``Atoms.info`` instead.
        stress: Parameter that must be true where a stress is wanted; None where there is none.
        has_spin: Whether spin means anything; a force field treats all multiplicities alike. Without a parameter for
            it, only singlets and free atoms are treated.
        elements: Those that are covered; empty for all.
        max_number: Atomic number of the last that is; None for no end.
        is_program: Whether it runs a program in a folder of its own.
        package: Command that installs a learned potential, whose weights are loaded once for many frames; empty for
            other calculators.
        module: What is imported to see whether the package is there; empty for that of `path`.
        is_molecular: Whether it was made for molecules only.
        is_of_one_composition: Whether an object treats only frames of the atoms that it has seen first.
    """

    path: str
    parameters: Mapping[str, Kind]
    required: tuple[str, ...] = ()
    fixed: Mapping[str, object] = field(default_factory=dict)
    charge: str | None = None
    multiplicity: str | None = None
    has_spin: bool = True
    is_in_info: bool = False
    stress: str | None = None
    elements: tuple[str, ...] = ()
    max_number: int | None = None
    is_program: bool = False
    package: str = ""
    module: str = ""
    is_molecular: bool = False
    is_of_one_composition: bool = False


_BISMUTH = 83
_PRECISION = ("float32", "float64")
_AIMNET2 = ("H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "As", "Se", "Br", "I")

_LEARNED: Mapping[str, Calculator] = {
    "aimnet2": Calculator(
        "aimnet.calculators:AIMNet2ASE",
        {"base_calc": ("aimnet2", "aimnet2_b973c", "aimnet2_2025")},
        required=("base_calc",),
        charge="charge",
        elements=_AIMNET2,
        package='pip install "aimnet[ase]"',
    ),
    "aimnet2-nse": Calculator(
        "aimnet.calculators:AIMNet2ASE",
        {},
        fixed={"base_calc": "aimnet2nse"},
        charge="charge",
        multiplicity="mult",
        elements=_AIMNET2,
        package='pip install "aimnet[ase]"',
    ),
    "mace-off": Calculator(
        "mace.calculators:mace_off",
        {"model": ("small", "medium", "large"), "default_dtype": _PRECISION},
        required=("model",),
        elements=("H", "C", "N", "O", "F", "P", "S", "Cl", "Br", "I"),
        package="pip install mace-torch",
    ),
    "mace-omol": Calculator(
        "mace.calculators:mace_omol",
        {"model": ("extra_large",), "default_dtype": _PRECISION},
        required=("model",),
        charge="charge",
        multiplicity="spin",
        is_in_info=True,
        max_number=_BISMUTH,
        package="pip install mace-torch",
        is_molecular=True,
    ),
    "mace-mp": Calculator(
        "mace.calculators:mace_mp",
        {
            "model": ("small", "medium", "large", "medium-mpa-0", "medium-omat-0", "mace-matpes-r2scan-0"),
            "default_dtype": _PRECISION,
        },
        required=("model",),
        has_spin=False,
        package="pip install mace-torch",
    ),
    "so3lr": Calculator(
        "so3lr:So3lrCalculator",
        {"lr_cutoff": "number"},
        required=("lr_cutoff",),
        charge="charge",
        is_in_info=True,
        stress="calculate_stress",
        elements=("H", "C", "N", "O", "F", "P", "S", "Cl"),
        package="pip install git+https://github.com/general-molecular-simulations/so3lr",
        is_of_one_composition=True,
    ),
    "uma": Calculator(
        "fairchem.core:FAIRChemCalculator.from_model_checkpoint",
        {"name_or_path": ("uma-s-1p1", "uma-s-1p2", "uma-s-1p2p1", "uma-m-1p1")},
        required=("name_or_path",),
        fixed={"task_name": "omol"},
        charge="charge",
        multiplicity="spin",
        is_in_info=True,
        max_number=_BISMUTH,
        package="pip install fairchem-core",
        is_molecular=True,
    ),
    "uma-materials": Calculator(
        "fairchem.core:FAIRChemCalculator.from_model_checkpoint",
        {
            "name_or_path": ("uma-s-1p1", "uma-s-1p2", "uma-s-1p2p1", "uma-m-1p1"),
            "task_name": ("omat", "omc", "odac", "oc20"),
        },
        required=("name_or_path", "task_name"),
        has_spin=False,
        package="pip install fairchem-core",
    ),
    "orb": Calculator(
        "alsys.potentials.orb:orb_calculator",
        {
            "model": ("orb_v3_conservative_omol", "orb_v3_direct_omol", "orbmol_v2"),
            "precision": ("float32-high", "float32-highest", "float64"),
            "compile": "flag",
        },
        required=("model",),
        charge="charge",
        multiplicity="spin",
        is_in_info=True,
        max_number=_BISMUTH,
        package="pip install orb-models",
        module="orb_models.forcefield.pretrained",
        is_molecular=True,
    ),
    "orb-materials": Calculator(
        "alsys.potentials.orb:orb_calculator",
        {
            "model": ("orb_v3_conservative_inf_omat", "orb_v3_direct_inf_omat", "orb_v3_conservative_inf_mpa"),
            "precision": ("float32-high", "float32-highest", "float64"),
            "compile": "flag",
        },
        required=("model",),
        has_spin=False,
        package="pip install orb-models",
        module="orb_models.forcefield.pretrained",
    ),
}
"""Pretrained potentials; docs/teachers.md says what each was trained on and the licence of its weights."""

CALCULATORS: Mapping[str, Calculator] = MappingProxyType(
    {
        "emt": Calculator(
            "ase.calculators.emt:EMT",
            {"asap_cutoff": "flag"},
            has_spin=False,
            elements=("H", "C", "N", "O", "Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au"),
        ),
        "lj": Calculator(
            "ase.calculators.lj:LennardJones",
            {"epsilon": "number", "sigma": "number", "rc": "number", "ro": "number", "smooth": "flag"},
            has_spin=False,
        ),
        "morse": Calculator(
            "ase.calculators.morse:MorsePotential",
            {"epsilon": "number", "rho0": "number", "r0": "number", "rcut1": "number", "rcut2": "number"},
            has_spin=False,
        ),
        "tip3p": Calculator(
            "ase.calculators.tip3p:TIP3P", {"rc": "number", "width": "number"}, has_spin=False, elements=("H", "O")
        ),
        "tblite": Calculator(
            "tblite.ase:TBLite",
            {
                "method": ("GFN2-xTB", "GFN1-xTB", "IPEA1-xTB"),
                "accuracy": "number",
                "max_iterations": "integer",
                "electronic_temperature": "number",
            },
            fixed={"verbosity": 0},
            charge="charge",
            multiplicity="multiplicity",
        ),
        "dftb": Calculator(
            "ase.calculators.dftb:Dftb",
            {
                "Hamiltonian_SCC": ("Yes", "No"),
                "Hamiltonian_SCCTolerance": "number",
                "Hamiltonian_MaxSCCIterations": "integer",
                "Hamiltonian_ThirdOrderFull": ("Yes", "No"),
                "kpts": "numbers",
            },
            charge="Hamiltonian_Charge",
            is_program=True,
        ),
        "orca": Calculator(
            "ase.calculators.orca:ORCA",
            {"orcasimpleinput": "text"},
            required=("orcasimpleinput",),
            fixed={"orcablocks": ""},
            charge="charge",
            multiplicity="mult",
            is_program=True,
        ),
        "nwchem": Calculator(
            "ase.calculators.nwchem:NWChem",
            {
                "theory": ("scf", "dft", "mp2"),
                "basis": "word",
                "dft.xc": "word",
                "dft.grid": "word",
                "dft.iterations": "integer",
                "dft.disp": "text",
            },
            required=("theory", "basis"),
            charge="charge",
            multiplicity="dft.mult",
            is_program=True,
        ),
        "psi4": Calculator(
            "ase.calculators.psi4:Psi4",
            {
                "method": "word",
                "basis": "word",
                "reference": ("rhf", "uhf", "rks", "uks"),
                "d_convergence": "number",
                "e_convergence": "number",
            },
            required=("method", "basis"),
            charge="charge",
            multiplicity="multiplicity",
            is_program=True,
        ),
        "mopac": Calculator(
            "ase.calculators.mopac:MOPAC",
            {"method": ("PM7", "PM6", "PM6-D3H4", "AM1", "RM1"), "relscf": "number"},
            required=("method",),
            fixed={"task": "1SCF GRADIENTS"},
            charge="charge",
            is_program=True,
        ),
        "gamess_us": Calculator(
            "ase.calculators.gamess_us:GAMESSUS",
            {
                "contrl.scftyp": "word",
                "contrl.dfttyp": "word",
                "basis.gbasis": "word",
                "basis.ngauss": "integer",
                "basis.ndfunc": "integer",
                "basis.npfunc": "integer",
            },
            charge="contrl.icharg",
            multiplicity="contrl.mult",
            is_program=True,
        ),
        **_LEARNED,
    }
)
"""By name; `alsys doctor` says which of them can run here."""


def check_parameters(calculator: str, parameters: Mapping[str, object]) -> None:
    """Refuses parameters that are not on the list of a calculator, or of another kind.

    Raises:
        ValueError: One line with the parameter and what is allowed.
    """
    allowed = CALCULATORS[calculator]
    for name, value in parameters.items():
        kind = allowed.parameters.get(name)
        if kind is None:
            raise ValueError(f"parameters.{name} is not allowed for {calculator}; {', '.join(allowed.parameters)} are")
        if not _is(kind, value):
            expected = f"one of {', '.join(kind)}" if isinstance(kind, tuple) else _NAMES[kind]
            raise ValueError(f"parameters.{name} must be {expected} (got {value!r})")
    missing = [name for name in allowed.required if name not in parameters]
    if missing:
        raise ValueError(f"parameters.{missing[0]} is required by {calculator}")


_NAMES: Mapping[object, str] = {
    "number": "a number",
    "integer": "an integer",
    "flag": "true or false",
    "word": "one word of letters, digits and _.+*(),-",
    "text": "one line of letters, digits, spaces and _.+*(),/-",
    "numbers": "a list of numbers",
}


def _is(kind: Kind, value: object) -> bool:
    if isinstance(kind, tuple):
        return value in kind
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "number":
        return is_number
    if kind == "integer":
        return is_number and isinstance(value, int)
    if kind == "flag":
        return isinstance(value, bool)
    if kind == "numbers":
        return isinstance(value, list | tuple) and len(value) <= MAX_NUMBERS and all(_is("number", v) for v in value)
    pattern = WORD if kind == "word" else TEXT
    is_clean = isinstance(value, str) and pattern.fullmatch(value) is not None
    return is_clean and not any(part in str(value).lower() for part in REFUSED)


class ASECalculator(Section):
    """A calculator of ASE from an allow-list."""

    kind: Literal["ase"]
    calculator: str = Field(examples=list(CALCULATORS), description=f"One of {', '.join(CALCULATORS)}.")
    parameters: dict[str, Any] = Field(
        {}, description="Parameters on the calculator's allow-list; a dot goes one level down, as in `dft.xc`."
    )

    @model_validator(mode="before")
    @classmethod
    def _in_any_case(cls, data: Any) -> Any:
        """The calculator's name, and those that its parameters take."""
        name = data.get("calculator") if isinstance(data, Mapping) else None
        if not isinstance(name, str) or name.lower() not in CALCULATORS:
            return data
        data, kinds = {**data, "calculator": name.lower()}, CALCULATORS[name.lower()].parameters
        if isinstance(data.get("parameters"), Mapping):
            data["parameters"] = {
                key: spelled_word(kinds[key], value)
                if isinstance(value, str) and isinstance(kinds.get(key), tuple)
                else value
                for key, value in data["parameters"].items()
            }
        return data

    @field_validator("calculator")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in CALCULATORS:
            raise ValueError(f"no such calculator; one of {', '.join(CALCULATORS)}")
        return value

    @model_validator(mode="after")
    def _parameters_are_allowed(self) -> ASECalculator:
        check_parameters(self.calculator, self.parameters)
        return self

    def __str__(self) -> str:
        """Name and parameters, as ``mace-off (model medium)``."""
        given = ", ".join(f"{name} {value}" for name, value in self.parameters.items())
        return f"{self.calculator} ({given})" if given else self.calculator
