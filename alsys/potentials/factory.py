"""From a committee's state to a committee."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from alsys.config.accelerations import Accelerate, Kernels
from alsys.errors import InputError
from alsys.plugins import POTENTIALS
from alsys.potentials.accelerations import kernels_for
from alsys.potentials.base import Committee, CommitteeState
from alsys.potentials.state_checks import check_fit

if TYPE_CHECKING:
    import torch

    from alsys.potentials.atomic_energies import AtomicEnergies
    from alsys.potentials.compiled import CompiledNequIPCommittee
    from alsys.potentials.nequip import NequIPCommittee


def device_of(name: str) -> torch.device:
    """The device of a name.

    Args:
        name: ``auto`` (the first GPU that this process sees, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        InputError: There is no such GPU here.
    """
    import torch

    from alsys.potentials.devices import CPU

    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return CPU
    device = torch.device("cuda" if name == "auto" else name)
    n_here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= n_here:
        found = f"{n_here} GPUs" if n_here else "no GPU"
        raise InputError(
            f"PyTorch sees {found} here",
            field="device",
            value=name,
            remedy="set it to auto or cpu, or give the worker GPUs",
        )
    return device


def build_committee(
    state: CommitteeState,
    threads: int = 1,
    *,
    is_compiled: bool = False,
    device: str = "cpu",
    accelerate: Accelerate = "none",
    packages: Path | None = None,
) -> Committee:
    """The committee that reads this kind of state, with the baseline it needs; imports only what it needs.

    Args:
        state: Specification and weights.
        threads: Threads of torch in this process.
        is_compiled: Networks are compiled ahead of time; pays where a committee is evaluated many times.
        device: Where networks are evaluated, as of `device_of`. Pairs, potentials of other packages and baselines are
            evaluated on the CPU whatever it is.
        accelerate: Kernels for networks on GPUs; where any are used nothing is compiled.
        packages: Folder of compiled packages; None for the user's cache folder.

    Raises:
        InputError: Unknown kind, a baseline that cannot be evaluated, no such device, or kernels that are not for it.
        EnvironmentProblem: The package of its architecture, of its baseline or of its kernels is missing.
    """
    committee = _build(state, threads, is_compiled, device, accelerate, packages)
    if state.baseline is None:
        return committee
    from alsys.potentials.baseline import DeltaCommittee

    return DeltaCommittee(committee, state)


def atomic_energies_of(state: CommitteeState, threads: int = 1, device: str = "cpu") -> AtomicEnergies:
    """What evaluates energies of the atoms of a committee without a baseline.

    Args:
        state: Specification and weights.
        threads: Threads of torch in this process.
        device: As for `build_committee`.
    """
    from alsys.potentials.atomic_energies import AtomicEnergies

    is_network = state.kind in ("nequip", "allegro")
    return AtomicEnergies(state, threads, device_of(device if is_network else "cpu"))


def chosen(
    state: CommitteeState, members: int | Literal["all"] = "all", dtype: Literal["float32", "float64"] | None = None
) -> CommitteeState:
    """Some members of a committee, in another precision.

    Args:
        state: The committee.
        members: So many, the first ones.
        dtype: Of networks; None for that of the fit.

    Raises:
        InputError: There are not so many members.
    """
    if dtype not in (None, "float32", "float64"):
        raise InputError("is no precision of networks", field="dtype", value=dtype, remedy="float32 or float64")
    if members != "all" and (type(members) is not int or not 1 <= members <= state.n_members):
        raise InputError(
            f"must be 1 to {state.n_members}, or all", field="members", value=members, remedy="ask for what there is"
        )
    kept = state.members if members == "all" else state.members[:members]
    if dtype is None or "dtype" not in state.spec:
        return replace(state, members=kept)
    cast = tuple(
        {name: v.astype(dtype) if np.issubdtype(v.dtype, np.floating) else v for name, v in one.items()} for one in kept
    )
    return replace(state, members=cast, spec={**state.spec, "dtype": dtype})


def is_compiled(
    state: CommitteeState, wanted: bool | Literal["auto"], threads: int, device: str, packages: Path | None = None
) -> bool:
    """Whether a committee is to be compiled: as wanted, with ``auto`` where that was done before."""
    if wanted != "auto" or state.kind not in ("nequip", "allegro"):
        return wanted is True
    from alsys.potentials.compiled import has_package

    return has_package(state.spec, threads, device_of(device), packages)


def _build(
    state: CommitteeState,
    threads: int,
    is_compiled: bool,
    device: str,
    accelerate: Accelerate,
    packages: Path | None,
) -> Committee:
    is_network = state.kind in ("nequip", "allegro")
    if is_network or state.kind == "pair":
        check_fit(state)
    elif state.kind not in POTENTIALS.installed():
        message, remedy = "unknown kind of committee", "one of nequip, allegro, pair; or a newer alsys wrote it"
        if "settings" in state.spec:  # which only potentials of others have
            message = "a model of a potential that is not installed here (entry points `alsys.potentials`)"
            remedy = "install its package, or use the model with the Python of an environment that has it"
        raise InputError(message, field="kind", value=state.kind, remedy=remedy)
    if state.kind == "pair":
        from alsys.potentials.pair import PairCommittee

        return PairCommittee(state)
    where = device_of(device if is_network else "cpu")
    kernels = kernels_for(accelerate, state.kind, where) if is_network else None
    committee = _networks(state, threads, is_compiled and is_network, where, kernels, packages)
    if where.type == "cpu":
        return committee
    from alsys.potentials.device_arrays import DeviceArrays
    from alsys.potentials.on_device import DeviceCommittee

    return DeviceCommittee(committee, state, DeviceArrays(where))


def _networks(
    state: CommitteeState,
    threads: int,
    is_compiled: bool,
    device: torch.device,
    kernels: Kernels | None,
    packages: Path | None,
) -> NequIPCommittee | CompiledNequIPCommittee:
    if is_compiled and kernels is None:
        from alsys.potentials.compiled import CompiledNequIPCommittee

        return CompiledNequIPCommittee(state, threads=threads, folder=packages, device=device)
    from alsys.potentials.nequip import NequIPCommittee

    return NequIPCommittee(state, threads=threads, device=device, kernels=kernels)
