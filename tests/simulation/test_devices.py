import math

import numpy as np
import pytest

from hanse.core import InvalidInput, Key
from hanse.core.exchange import pack, unpack
from hanse.simulation import heavy_tailed, ideal, unstable

KEY = Key.from_seed(1)
MANY = [KEY.fold_in("party", n).fold_in("device") for n in range(3000)]


def durations(devices, party=3):
    return [devices.duration_s(party, key) for key in MANY]


@pytest.mark.parametrize(
    "devices", [ideal(), heavy_tailed(2.0, 0.5), unstable(0.3, heavy_tailed()), unstable(0.5)]
)
def test_how_long_a_ticket_takes_follows_from_its_key(devices):
    drawn = durations(devices)
    assert drawn == durations(devices) == durations(unpack(pack(devices)))
    assert all(takes is None or 0 < takes < math.inf for takes in drawn)


def test_ideal_devices_take_a_second():
    assert set(durations(ideal())) == {1.0}


@pytest.mark.parametrize(("median_s", "sigma"), [(1.0, 1.0), (20.0, 0.3), (0.1, 2.0)])
def test_durations_are_log_normal(median_s, sigma):
    logs = np.log(durations(heavy_tailed(median_s, sigma))) - math.log(median_s)
    assert abs(logs.mean()) < 5 * sigma / math.sqrt(len(MANY))
    assert logs.std() == pytest.approx(sigma, rel=0.08)


def test_without_spread_everybody_is_as_fast():
    assert set(durations(heavy_tailed(3.0, 0.0))) == {3.0}


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 1.0])
def test_that_fraction_of_tickets_is_lost(fraction):
    lost = durations(unstable(fraction)).count(None) / len(MANY)
    assert abs(lost - fraction) <= 5 * math.sqrt(fraction * (1 - fraction) / len(MANY))


def test_who_drops_out_is_independent_of_how_fast_it_is():
    fast, unreliable = durations(heavy_tailed()), durations(unstable(0.5, heavy_tailed()))
    stayed = [takes is not None for takes in unreliable]
    assert [takes for takes, stays in zip(fast, stayed, strict=True) if stays] == [t for t in unreliable if t]
    assert abs(np.corrcoef(np.log(fast), stayed)[0, 1]) < 0.1


def test_a_party_with_a_name_drops_out_as_clients_do():
    assert durations(unstable(0.3), "hospital") == durations(unstable(0.3))


@pytest.mark.parametrize(
    "make",
    [
        lambda: heavy_tailed(0.0),
        lambda: heavy_tailed(-1.0),
        lambda: heavy_tailed(float("nan")),
        lambda: heavy_tailed(1.0, -0.1),
        lambda: heavy_tailed(1.0, float("nan")),
        lambda: unstable(-0.1),
        lambda: unstable(1.1),
        lambda: unstable(float("nan")),
    ],
)
def test_devices_that_can_not_be_are_refused(make):
    with pytest.raises(InvalidInput, match="write a"):
        make()
