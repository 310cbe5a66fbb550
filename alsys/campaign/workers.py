"""What a campaign's driver is put together from: first frames, the label gate, the pool of workers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from alsys.campaign.plan import Plan
from alsys.control.ports import WorkerPool
from alsys.errors import InputError
from alsys.frames import Arm, Candidate, Frame, Source
from alsys.labeling.gate.gate import LabelGate


def first_frames(plan: Plan) -> Sequence[Candidate]:
    """Free atoms, then frames sampled from the structures."""
    from alsys.exploration.initial import initial_frames
    from alsys.labeling.atoms import free_atom_frames

    numbers = sorted({int(z) for frame in plan.systems.values() for z in frame.numbers})
    first = next(iter(plan.systems))
    atoms = [
        Candidate(frame, Source(first, Arm.ATOM, "free-atom", trajectory=i))
        for i, frame in enumerate(free_atom_frames(numbers))
    ]
    return [*atoms, *initial_frames(plan.config, plan.starts, plan.config.seed)]


def label_gate(plan: Plan) -> LabelGate | None:
    """Who judges labels; None where the campaign takes them as they come."""
    from alsys.labeling.gate.reference_frames import reference_frames
    from alsys.labeling.gate.xtb_check import xtb_check_for

    quality = plan.config.labeling.quality
    if not quality.enabled:
        return None
    return LabelGate(quality, reference_frames(_takable(plan))[0], xtb_check_for(plan.config.labeling))


def _takable(plan: Plan) -> list[Frame]:
    """Start structures that the labeler takes; of a system of which it takes none, the cluster that it gets to see."""
    from alsys.labeling.factory import build_labeler

    labeler = build_labeler(plan.config.labeling)

    def is_taken(frame: Frame) -> bool:
        try:
            labeler.check(frame)
        except InputError:
            return False
        return True

    frames = []
    for name, start in plan.starts.items():
        frames += [frame for frame in start if is_taken(frame)] or [plan.labelled[name]]
    labeler.close()
    return frames


def worker_pool(plan: Plan) -> WorkerPool:
    """The workers, in this process or on Ray, none of them started."""
    config, folder = plan.config, plan.directory.path
    from alsys.actors.placement import worker_specs
    from alsys.exploration.walker_states import FOLDER, WalkerStates, identity_of

    specs = worker_specs(config, plan.starts, plan.level.level_id)
    walkers = WalkerStates(folder / FOLDER, identity_of(config, plan.starts))
    if config.runtime.kind == "in-process":
        from alsys.control.inprocess import InProcessPool

        workers = {name: (spec.role, partial(spec.build_here, folder)) for name, spec in specs.items()}
        return InProcessPool(workers, use_threads=True, restarts=config.runtime.worker_retries, walkers=walkers)
    from alsys.actors.pool import RayPool

    return RayPool(specs, config.runtime, folder, walkers=walkers)
