import numpy as np
import pytest

from alsys.dynamics.ramps import Ramp
from alsys.errors import InputError
from alsys.units import BAR


def test_a_ramp_is_linear_between_its_points_and_constant_outside() -> None:
    ramp = Ramp.of([(1.0, 300.0), (2.0, 500.0), (4.0, 100.0)], timestep=0.5, field="temperature")
    steps = np.array([[0, 2_000, 3_000], [4_000, 6_000, 10_000]])
    np.testing.assert_allclose(ramp.at(steps), [[300.0, 300.0, 400.0], [500.0, 300.0, 100.0]], rtol=1e-14)
    assert not ramp.is_constant


def test_a_number_is_a_constant_ramp_in_our_units() -> None:
    ramp = Ramp.of(1000.0, timestep=0.5, field="pressure", unit=BAR)
    assert ramp.is_constant
    assert ramp.at([0, 10**9]) == pytest.approx([6.241509e-4] * 2, rel=1e-6)  # eV/Angstrom^3
    assert Ramp.of([(0, 300), (5, 300)], 1.0, field="t").is_constant


@pytest.mark.parametrize(
    ("schedule", "match"),
    [
        ([], "pairs"),
        ([(0.0, 300.0, 1.0)], "pairs"),
        ([(0.0, 300.0), (1.0,)], "pairs"),
        ([(0.0, "hot")], "pairs"),
        ([(1.0, 300.0), (1.0, 400.0)], "increase"),
        ([(2.0, 300.0), (1.0, 400.0)], "increase"),
        ([(-1.0, 300.0)], "not negative"),
        ([(0.0, float("nan"))], "finite"),
        ([(0.0, 300.0), (1.0, 0.0)], "above 0"),
        (-5.0, "above 0"),
    ],
)
def test_nonsense_names_its_field(schedule: object, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        Ramp.of(schedule, 0.5, field="exploration.ensemble.temperature", above=0.0)  # type: ignore[arg-type]
    assert caught.value.field == "exploration.ensemble.temperature"
    assert "\n" not in str(caught.value)
