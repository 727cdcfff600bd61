"""What switches make of one push."""

from random import Random

from brokersim.deliveries import deliveries
from brokersim.faults import Fault, FaultKind

TEXT = '{"status":"OPEN"}'


def planned(*kinds, **params):
    faults = [Fault(id=number, kind=kind, params=params) for number, kind in enumerate(kinds)]
    return deliveries(TEXT, faults, Random(1))


def test_without_faults_a_push_goes_out_as_it_is():
    (only,) = planned()

    assert (only.payload, only.delay, only.faults) == (TEXT, 0, ())


def test_a_dropped_push_does_not_go_out_whatever_else_struck():
    assert planned(FaultKind.DROP, FaultKind.DUPLICATE) == ()


def test_copies_follow_at_their_gap():
    copies = planned(FaultKind.DUPLICATE, times=3, gap=0.5)

    assert [(copy.payload, copy.delay) for copy in copies] == [(TEXT, 0), (TEXT, 0.5), (TEXT, 1.0)]
    assert copies[0].faults == ("duplicate",)


def test_delays_add_up():
    assert planned(FaultKind.DELAY, FaultKind.REORDER, seconds=2, wait=0.5)[0].delay == 2.5


def test_a_truncated_push_keeps_its_beginning():
    assert TEXT.startswith(planned(FaultKind.TRUNCATE, keep=0.3)[0].payload)
    assert len(planned(FaultKind.TRUNCATE, keep=0.3)[0].payload) == 5


def test_a_corrupt_push_has_its_length_and_other_letters():
    payload = planned(FaultKind.CORRUPT)[0].payload

    assert len(payload) == len(TEXT)
    assert payload != TEXT
