import pytest

from orderwire.core.survey import QUESTIONS, Answers, broker_demand, read_answers
from orderwire.errors import InvalidRequestError


def test_there_are_five_questions_and_the_first_is_satisfaction():
    assert len(QUESTIONS) == 5
    assert QUESTIONS[0].words == "How satisfied with order updates?"


def test_a_form_is_read_and_what_was_left_out_is_not_there():
    read = read_answers({"satisfaction": "4", "speed": "", "wish": " more ", "other": "x"})

    assert read == Answers(scales={"satisfaction": 4}, words={"wish": "more"})


@pytest.mark.parametrize("given", ["0", "6", "4.5", "four", "٤", "1e0"])
def test_a_number_is_from_one_to_five(given):
    with pytest.raises(InvalidRequestError) as wrong:
        read_answers({"satisfaction": given, "speed": given})

    assert set(wrong.value.problems) == {"satisfaction", "speed"}


def test_satisfaction_is_needed():
    with pytest.raises(InvalidRequestError, match="Answer this one"):
        read_answers({"speed": "3"})


def test_brokers_are_ranked_however_they_are_spelt():
    wishes = ["Fyers", "fyers", " Angel  One", "FYERS", "angel one", "", "Upstox"]
    answers = [Answers(scales={}, words={"next_broker": wish}) for wish in wishes]

    assert broker_demand(answers) == [("fyers", 3), ("angel one", 2), ("Upstox", 1)]
