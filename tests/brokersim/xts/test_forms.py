from decimal import Decimal

import pytest

from brokersim.orders import OrderType, Terms, Validity
from brokersim.xts import forms
from brokersim.xts.errors import XtsError
from xts_harness import LIMIT_ORDER


def flaws(form, fields):
    with pytest.raises(XtsError) as refused:
        form.read(fields)
    return [(error["field"], error["messages"], error["types"]) for error in refused.value.result["errors"]]


def test_validation_error_is_jois():
    with pytest.raises(XtsError) as refused:
        forms.PLACE.read(LIMIT_ORDER | {"orderSide": "Buy"})

    assert (refused.value.status, refused.value.body()) == (
        400,
        {
            "type": "error",
            "code": "e-property-validation-failed",
            "description": "Bad Request",
            "result": {
                "status": 400,
                "statusText": "Bad Request",
                "errors": [
                    {
                        "field": ["orderSide"],
                        "location": "body",
                        "messages": ['"orderSide" must be one of [BUY, SELL]'],
                        "types": ["any.allowOnly"],
                    }
                ],
            },
        },
    )


@pytest.mark.parametrize(
    ("name", "value", "message", "kind"),
    [
        ("orderSide", None, "is required", "any.required"),
        ("orderQuantity", "x", "must be a number", "number.base"),
        ("orderQuantity", True, "must be a number", "number.base"),
        ("orderQuantity", 0, "must be larger than or equal to 1", "number.min"),
        ("orderQuantity", -5, "must be larger than or equal to 1", "number.min"),
        ("orderQuantity", 1.5, "must be an integer", "number.integer"),
        ("limitPrice", -1, "must be larger than or equal to 0", "number.min"),
        ("limitPrice", "nan", "must be a number", "number.base"),
        ("orderUniqueIdentifier", 5, "must be a string", "string.base"),
    ],
)
def test_flaws(name, value, message, kind):
    assert flaws(forms.PLACE, LIMIT_ORDER | {name: value}) == [([name], [f'"{name}" {message}'], [kind])]


def test_every_missing_field_of_a_modification_is_named():
    assert len(flaws(forms.MODIFY, {})) == 8


@pytest.mark.parametrize("quantity", [50, "50"])
def test_terms_of_a_place_call(quantity):
    fields = LIMIT_ORDER | {
        "orderQuantity": quantity,
        "limitPrice": "800.05",
        "orderType": "STOPLIMIT",
        "stopPrice": 801,
    }

    assert forms.placed_terms(forms.PLACE.read(fields)) == Terms(
        type=OrderType.SL,
        quantity=50,
        price=Decimal("800.05"),
        trigger_price=Decimal(801),
        validity=Validity.DAY,
    )


def test_market_order_has_no_price_whatever_was_sent():
    assert forms.placed_terms(LIMIT_ORDER | {"orderType": "MARKET"}).price == 0


def test_conversion_wants_a_boolean():
    fields = {
        "exchangeSegment": "NSECM",
        "exchangeInstrumentID": 1,
        "oldProductType": "MIS",
        "newProductType": "NRML",
        "isDayWise": "perhaps",
        "targetQty": "2",
    }

    assert flaws(forms.CONVERT, fields)[0][2] == ["boolean.base"]
