"""Does a release fit this device?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from modelward.errors import FormatError, Gate, Refused
from modelward.formats.release import Requirements
from modelward.trust.requirements import Facts, check, satisfies

FACTS = Facts("aarch64", {"onnxruntime": "1.17.1"}.get)
numbers = st.lists(st.integers(0, 12), min_size=1, max_size=4).map(
    lambda parts: ".".join(map(str, parts))
)
clauses = st.builds("{}{}".format, st.sampled_from([">=", "<=", "==", "!=", ">", "<"]), numbers)


@given(numbers, st.lists(clauses, min_size=1, max_size=3).map(", ".join))
def test_agrees_with_packaging_on_plain_versions(version, specifier):
    assert satisfies(version, specifier) == SpecifierSet(specifier).contains(version)


@pytest.mark.parametrize(
    "specifier",
    [
        "",
        ",",
        "1.17",
        ">=",
        ">= 1.17,",
        "~=1.17",
        "===1",
        "==1.*",
        ">=1.17rc1",
        ">=1 .2",
        ">=٣",
        "\n",
    ],
)
def test_specifier_that_makes_no_sense(specifier):
    with pytest.raises(FormatError, match=r"requires\.runtime"):
        satisfies("1.17", specifier)


@pytest.mark.parametrize(
    "version", ["1.17.1", "1.17.1+cu12", "1.17.1rc1", "1.17.1.dev0", "1.17.1 beta"]
)
def test_only_the_leading_numbers_of_a_version_count(version):
    assert satisfies(version, "==1.17.1")


def test_a_version_without_numbers_meets_no_minimum():
    assert not satisfies("unknown", ">=0.1")


@pytest.mark.parametrize(
    "requirements",
    [
        Requirements(),
        Requirements(hardware=("x86_64", "aarch64")),
        Requirements(runtime=(("onnxruntime", ">=1.17, <2"),)),
        Requirements(components=(("base-encoder", "2.1.0"),)),  # other gates see to these
    ],
)
def test_fits(requirements):
    check(requirements, FACTS)


@pytest.mark.parametrize(
    ("requirements", "reason"),
    [
        (Requirements(hardware=("x86_64",)), "made for x86_64, not for aarch64"),
        (Requirements(runtime=(("onnxruntime", ">=1.18"),)), "but 1.17.1 is installed"),
        (Requirements(runtime=(("tensorflow", ">=1"),)), "tensorflow >=1, which is not installed"),
    ],
)
def test_does_not_fit(requirements, reason):
    with pytest.raises(Refused, match=reason) as refusal:
        check(requirements, FACTS)
    assert refusal.value.gate is Gate.RELEASE
    assert refusal.value.advice
