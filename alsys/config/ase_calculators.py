"""Which calculators of ASE a campaign file may name, with which parameters.

A campaign file is data: it must not name code, files or commands. So each calculator has its own list of parameters and
their kinds; strings are one of a few choices, a single word, or one line without quotes, backslashes and equal signs
(with which some programs are told to run others).

Commands of programs come from ASE's own configuration (`~/.config/ase/config.ini`, or variables such as
`ASE_NWCHEM_COMMAND`), which belongs to the machine. Importable without ASE.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

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
        path: ``module:class``.
        parameters: Kind of each parameter that may be given.
        required: Those that must be given.
        fixed: Parameters that are always set.
        charge: Parameter that takes the frame's charge; None where only neutral frames are treated.
        multiplicity: Parameter that takes 2S + 1; None where there is none.
        has_spin: Whether spin means anything; a force field treats all multiplicities alike. Without a parameter for
            it, only singlets and free atoms are treated.
        elements: Those that are covered; empty for all.
        is_program: Whether it runs a program in a folder of its own.
    """

    path: str
    parameters: Mapping[str, Kind]
    required: tuple[str, ...] = ()
    fixed: Mapping[str, object] = field(default_factory=dict)
    charge: str | None = None
    multiplicity: str | None = None
    has_spin: bool = True
    elements: tuple[str, ...] = ()
    is_program: bool = False


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
