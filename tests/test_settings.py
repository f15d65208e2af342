"""What settings are made of: any change is noticed."""

from itertools import combinations

from modelward import settings

FILE = b'repository = "https://example.com"'
GIVEN = [
    settings.asked(settings.fingerprint(file, environment, flags), models)
    for file, environment, flags, models in (
        (FILE, {}, {}, ()),
        (FILE + b" ", {}, {}, ()),
        (FILE, {"MODELWARD_CHANNEL": "canary"}, {}, ()),
        (FILE, {"MODELWARD_CHANNEL": "stable"}, {}, ()),
        (FILE, {}, {"channel": "canary"}, ()),
        (FILE, {}, {"channel": ""}, ()),
        (FILE, {}, {"device_id": "canary"}, ()),
        (FILE, {}, {}, ("meter-reader",)),
        (FILE, {}, {}, ("meter-reader", "tokenizer")),
    )
]


def test_every_change_is_noticed():
    for one, other in combinations(GIVEN, 2):
        assert one != other


def test_what_is_no_setting_does_not_matter():
    environment = {"HOME": "/root", "MODELWARD_STATE": "/elsewhere"}
    flags = {"channel": None, "repository": None}
    assert settings.asked(settings.fingerprint(FILE, environment, flags), []) == GIVEN[0]


def test_order_of_models_does_not_matter():
    plain = settings.fingerprint(FILE, {}, {})
    assert settings.asked(plain, ["tokenizer", "meter-reader"]) == GIVEN[-1]
