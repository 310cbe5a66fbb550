"""The unit check of labelled frames: no unit is taken on trust that can be checked.

`examine` looks at a sample of frames, already in eV and Angstrom as their file's units have it, in seven ways:

- *lengths*: distances of nearest neighbours against sums of covalent radii;
- *forces*: against forces of the same frames by GFN2-xTB (C. Bannwarth et al., J. Chem. Theory Comput. 15, 1652
  (2019)), in large boxes GFN1-xTB (S. Grimme et al., ibid. 13, 1989 (2017)): the ratio of their root mean squares tells
  1 from 1.89, 27.2 or 51.4, their cosine the sign and the order of atoms; frames that are too large for xTB are
  represented by a molecule among its neighbours (`clusters`);
- *differences*: of energies of near frames of the same atoms, superposed, against the trapezoid of ``-F dx``, which
  needs no other method and no reference (exact to third order in dx);
- *integrals*: of energies of any frames against a pair potential that was fitted to their forces (`pair_fit`);
- *totals*: against all-electron energies of free atoms after Schwinger, E = -0.768745 Z^(7/3) + Z^2/2 - 0.2699 Z^(5/3)
  Hartree (B.-G. Englert, J. Schwinger, Phys. Rev. A 32, 47 (1985)), good to 1 % for molecules of light elements;
- *spreads*: of energies of the same atoms against those of xTB;
- *stresses*, where there are any (`stress_check`).

A check says that a unit fits, that another one would, or nothing. `judge` puts them together: a contradiction is
refused with the unit that would fit, and what no check speaks for is refused too. What is computed is counted in
evaluations and atoms, never in seconds, so a file has one verdict on all machines. Tolerances and their measurement:
docs/design/020-import.md.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from alsys.errors import InputError
from alsys.interop.file_units import ENERGIES, FORCES, LENGTHS, STRESSES, UnitSet, fitting
from alsys.interop.force_energy_checks import (
    XTB_WORK,
    check_differences,
    check_forces,
    check_lengths,
    check_spreads,
    check_totals,
    is_for_xtb,
    mixed_levels,
    reference_of,
    work_of,
)
from alsys.interop.pair_fit import STRESS_TOLERANCE, check_energies, check_stresses, fit_pairs
from alsys.interop.ratio_check import NOTHING, TOLERANCE, Check, Sample, compared, spaced
from alsys.interop.stress_check import check_strains, check_xtb, together
from alsys.labels import LevelOfTheory
from alsys.potentials.xtb import XTBFailure, XTBMethod, single_point

LEAVE_OUT_STRESS: Final = "--stress-key=none leaves them out"
NO_STRESSES: Final = "no strained cells, no forces that a pair potential can be fitted to, and nothing for GFN-xTB"
_XTB_NAMES: Final = {f"gfn{n}{dash}xtb": f"GFN{n}-xTB" for n in (1, 2) for dash in ("", "-")}
N_OWN: Final = 6
"""Evaluations by the very method that labels are said to be of."""
OWN_COSINE: Final = 0.999
OWN_RATIO: Final = 1.02
MIN_FORCE: Final = 0.05
"""eV/Angstrom; smaller ones depend on how tightly a method is converged."""


@dataclass(frozen=True, slots=True)
class Findings:
    """All checks of a sample; without `has_bonds` it is of free atoms, which have neither lengths nor forces."""

    lengths: Check = NOTHING
    forces: Check = NOTHING
    differences: Check = NOTHING
    integrals: Check = NOTHING
    totals: Check = NOTHING
    spreads: Check = NOTHING
    stresses: Check = NOTHING
    strains: Check = NOTHING
    xtb_stresses: Check = NOTHING
    has_stress: bool = False
    has_bonds: bool = True
    mixed: str = ""

    @property
    def confirmed(self) -> frozenset[str]:
        """Which of ``lengths``, ``forces``, ``energies`` and ``stresses`` the checks confirm."""
        totals, spreads = bool(self.totals.fits), bool(self.spreads.fits)
        differences = bool(self.relation.fits)
        found = {"lengths"} if self.lengths.fits else set()
        if self.forces.fits or (differences and (totals or spreads)):
            found.add("forces")
        by_stress = bool(self.strains.fits) and bool(self.xtb_stresses.fits)
        if totals or spreads or by_stress or (differences and "forces" in found):
            found.add("energies")
        if self.stresses.fits:
            found.add("stresses")
        return frozenset(found)

    @property
    def relation(self) -> Check:
        """Of energies to forces: that of near frames, else the fitted one."""
        return self.differences if self.differences.fits is not None else self.integrals

    @property
    def checks(self) -> tuple[Check, ...]:
        """All of them."""
        return (
            self.lengths,
            self.forces,
            self.differences,
            self.integrals,
            self.totals,
            self.spreads,
            self.stresses,
        )

    @property
    def text(self) -> str:
        """What speaks for the units, in one line."""
        return "; ".join(check.text for check in self.checks if check.fits)


def examine(samples: Sequence[Sample]) -> Findings:
    """All checks on a sample of frames, of which those of one atom say nothing but a total."""
    several = [s for s in samples if s.frame.n_atoms > 1]
    lengths = check_lengths(several)
    totals = check_totals(samples)
    if not several:
        return Findings(totals=totals, has_bonds=False)
    if lengths.fits is False:
        return Findings(lengths=lengths, totals=totals)
    reference, fit = reference_of(several), fit_pairs(several)
    compared_rows = [several[i] for i in reference.rows]
    strains = check_strains(several)
    xtb_stresses = check_xtb(compared_rows, [values.stress for values in reference.values])
    return Findings(
        lengths=lengths,
        forces=check_forces(several, reference),
        differences=check_differences(several),
        integrals=check_energies(several, fit),
        totals=totals,
        spreads=check_spreads(several, reference),
        stresses=together(strains, [xtb_stresses, check_stresses(several, fit)]),
        strains=strains,
        xtb_stresses=xtb_stresses,
        has_stress=any(s.stress is not None for s in samples),
        mixed=mixed_levels(several),
    )


def judge(findings: Findings, units: UnitSet) -> None:
    """Refuses units that do not fit, and units that nothing speaks for.

    Raises:
        InputError: Names the units that would fit, or what is not confirmed.
    """
    if findings.lengths.fits is False:
        wanted = units.length_factor * findings.lengths.factor
        raise _refusal("length unit", units.length, findings.lengths, {"length": fitting(wanted, LENGTHS, 1.4)})
    energy, force = _corrections(findings)
    remedies: dict[str, list[str]] = {}
    if force is not None:
        named = fitting(units.force_factor * force.factor, FORCES, TOLERANCE)
        sign = "-" if units.force_factor * force.factor < 0 else ""
        remedies["force"] = [sign + name for name in named]
    if energy is not None:
        remedies["energy"] = fitting(units.energy_factor * energy.factor, ENERGIES, TOLERANCE)
    if force is not None:
        raise _refusal("force unit", units.force, force, remedies)
    if findings.mixed:  # before energies: two levels may look like another unit
        raise InputError(findings.mixed, field="level", remedy="import each level by itself, with its own --level")
    if energy is not None:
        raise _refusal("energy unit", units.energy, energy, remedies)
    if findings.stresses.fits is False:
        check = findings.stresses
        wanted = units.stress_factor * check.factor
        named = [("-" if wanted < 0 else "") + name for name in fitting(wanted, STRESSES, STRESS_TOLERANCE)]
        raise _refusal("stress unit", units.stress or "ev/angstrom^3", check, {"stress": named}, LEAVE_OUT_STRESS)
    needed = ("lengths", "energies", "forces") if findings.has_bonds else ("energies",)
    missing = [name for name in needed if name not in findings.confirmed]
    if missing:
        unclear = [check.text for check in findings.checks if check.fits is None and check.text]
        why = "; ".join(unclear) or (
            "no near frames of one molecule, no totals with all electrons, and nothing that GFN2-xTB can treat"
        )
        raise InputError(
            f"no check confirms the unit of the {' and the '.join(missing)}: {why}",
            field="units",
            value=str(units),
            remedy="make sure of them and of the order of atoms, then give --trust-units",
        )
    if findings.has_stress and "stresses" not in findings.confirmed:
        raise InputError(
            f"no check confirms unit, sign and volume of the stresses: {findings.stresses.text or NO_STRESSES}",
            field="stress unit",
            value=units.stress or "ev/angstrom^3",
            remedy=f"{LEAVE_OUT_STRESS}, or make sure of all units and give --trust-units",
        )


def check_own_level(samples: Sequence[Sample], level: LevelOfTheory) -> None:
    """Refuses labels that are said to be those of GFN-xTB where GFN-xTB says something else.

    Args:
        samples: In units that were checked.
        level: What they are said to be of; others than plain GFN1-xTB and GFN2-xTB are not checked.

    Raises:
        InputError: Forces are not those of the method.
    """
    name = _XTB_NAMES.get(str(level.spec.get("method", "")).lower())
    if name is None or not set(level.spec) <= {"method", "engine", "accuracy"}:
        return
    usable = [s for s in samples if s.frame.n_atoms > 1 and is_for_xtb(s.frame)]
    mine, theirs = [], []
    for i in spaced(len(usable), N_OWN):
        with contextlib.suppress(XTBFailure):
            theirs.append(single_point(usable[i].frame, XTBMethod(name, accuracy=1.0)).forces.ravel())
            mine.append(usable[i].forces.ravel())
        if work_of(usable[i].frame) * len(theirs) > XTB_WORK:
            break
    if not mine or max(float(np.abs(part).max()) for part in theirs) < MIN_FORCE:
        return
    cosine, ratio = compared(np.concatenate(mine), np.concatenate(theirs))
    if cosine < OWN_COSINE or abs(math.log(ratio)) > math.log(OWN_RATIO):
        raise InputError(
            f"are not those of {name}, whose forces of {len(mine)} frames are {ratio:.3g} times as large (cosine "
            f"{cosine:+.2f}): they are of another level, or charge or multiplicity is wrong",
            field="level",
            value=level.canonical,
            remedy="give the --level that they are of, or --charge and --multiplicity",
        )


def _corrections(findings: Findings) -> tuple[Check | None, Check | None]:
    """What is wrong with energies and with forces; None for nothing."""
    forces, pairs, totals, spreads = findings.forces, findings.relation, findings.totals, findings.spreads
    wrong_forces = forces if forces.fits is False else None
    wrong_energies: Check | None = None
    if totals.fits is False and not spreads.fits and not (pairs.fits and not wrong_forces):
        wrong_energies = totals
    elif pairs.fits is False and forces.fits:
        wrong_energies = Check(False, 1.0 / pairs.factor, pairs.text)
    elif pairs.fits is False and (totals.fits or spreads.fits) and wrong_forces is None:
        wrong_forces = pairs
    elif pairs.fits is False and wrong_forces is not None and not totals.fits:
        if _is_off(forces.factor / pairs.factor):
            wrong_energies = Check(False, abs(forces.factor / pairs.factor), pairs.text)
    elif pairs.fits is None and spreads.fits is False and not totals.fits:
        wrong_energies = spreads
    elif pairs.fits and wrong_forces is not None:  # both off by the same factor
        wrong_energies = Check(False, forces.factor, forces.text)
    if wrong_energies is None and wrong_forces is None and pairs.fits is False:
        wrong_energies = Check(False, 1.0 / pairs.factor, pairs.text)
    return wrong_energies, wrong_forces


def _is_off(factor: float) -> bool:
    return abs(math.log(abs(factor))) > math.log(TOLERANCE)


def _refusal(what: str, said: str, check: Check, remedies: Mapping[str, list[str]], otherwise: str = "") -> InputError:
    options = [f"--{name}-unit={names[0]}" for name, names in remedies.items() if names]
    others = [name for names in remedies.values() for name in names[1:2]]
    remedy = f"it would fit as {' '.join(options)}" if options else "no unit that is known would fit"
    if others and options:
        remedy += f" (or {', '.join(others)})"
    if otherwise:
        remedy += f"; {otherwise}"
    return InputError(f"does not fit: {check.text}", field=what, value=said, remedy=remedy)
