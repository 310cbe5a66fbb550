"""A campaign from Python: run it, stop it half way, go on, give it more labels, use its data and its model.

    python examples/campaign.py [FOLDER]

The toy campaign takes half a minute: its "quantum chemistry" is a pair potential. Change the file that is opened for a
real one.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from alsys import Campaign, load_calculator, open_dataset
from alsys.events import Event, LabelAccepted

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "toy.yaml"


def main() -> None:
    """Does all that the page `docs/python.md` tells of."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="alsys-example-")) / "toy"
    settings = {"directory": folder, "runtime.kind": "in-process", "tracking.enabled": False, "stop.labels": 40}

    # Opening checks everything that can be checked; nothing is written yet.
    campaign = Campaign.open(CONFIG, overrides=settings)
    print(campaign.plan.estimate())

    # Events come once they are on disk. Half way, the campaign is asked to stop.
    accepted = 0

    def on_event(event: Event) -> None:
        nonlocal accepted
        accepted += isinstance(event, LabelAccepted)
        if accepted == 20:
            campaign.request_stop()

    result = campaign.run(on_event=on_event)
    print(f"{result.state} ({result.reason}) with {result.n_labels} labels")

    # The folder is the campaign: it goes on without its file, and for more labels than were planned.
    campaign = Campaign.open(folder)
    result = campaign.run(labels=50)
    print(f"{result.state} ({result.reason}) with {result.n_labels} labels, champion v{result.champion:04d}")

    # The data, as a version that can be cited.
    data = open_dataset(folder)
    atoms = data.select("random").to_ase()
    print(f"{data}, of which {len(atoms)} in the random arm; energies in xarray: {data.to_xarray().energy.shape}")
    earlier = campaign.dataset(version=data.version // 2)
    print(f"since version {earlier.version}: {len(earlier.diff(data).added)} frames more")

    # The model, by hand or by name.
    molecule = atoms[0].copy()
    molecule.calc = campaign.champion.calculator()
    print(f"labelled {atoms[0].get_potential_energy():.4f} eV, predicted {molecule.get_potential_energy():.4f} eV")
    same = atoms[0].copy()
    same.calc = load_calculator(campaign.models[campaign.champion.name].path)
    assert same.get_potential_energy() == molecule.get_potential_energy()


if __name__ == "__main__":
    main()
