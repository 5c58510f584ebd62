from __future__ import annotations

import string
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.image.signed_url import SignatureProblem, SignatureRefused, SigningKeys, sign, verify

NOW = 1_800_000_000
KEYS = SigningKeys({"k1": b"1" * 32}, "k1")
PATH = "/images/image_01j00000000000000000000000/file"
QUERY = sign(KEYS, ["PUT", "HEAD"], PATH, NOW + 60, {"image": "image_01j", "max": 5})


def refusal(query: str, *, method: str = "PUT", path: str = PATH, now: float = NOW, keys: SigningKeys = KEYS) -> str:
    with pytest.raises(SignatureRefused) as refused:
        verify(keys, method, path, query, now)
    return refused.value.problem


def test_claims_come_back() -> None:
    for method in ("PUT", "HEAD"):
        assert verify(KEYS, method, PATH, QUERY, NOW) == {"image": "image_01j", "max": 5}
    assert verify(KEYS, "GET", "/", sign(KEYS, ["GET"], "/", NOW + 1), NOW) == {}


def test_it_is_bound_to_method_path_and_time() -> None:
    assert refusal(QUERY, method="GET") == SignatureProblem.WRONG_METHOD
    assert refusal(QUERY, method="put") == SignatureProblem.WRONG_METHOD
    assert refusal(QUERY, method="PUT,HEAD") == SignatureProblem.WRONG_METHOD
    assert refusal(QUERY, path=PATH + "/") == SignatureProblem.BAD_SIGNATURE
    assert refusal(QUERY, path="/other") == SignatureProblem.BAD_SIGNATURE
    assert refusal(QUERY, now=NOW + 60) == SignatureProblem.EXPIRED
    assert verify(KEYS, "PUT", PATH, QUERY, NOW + 59.9)


def test_keys_rotate() -> None:
    rotated = SigningKeys({"k1": b"1" * 32, "k2": b"2" * 32}, "k2")
    assert verify(rotated, "PUT", PATH, QUERY, NOW)
    new = sign(rotated, ["PUT"], PATH, NOW + 60)
    assert verify(rotated, "PUT", PATH, new, NOW) == {}
    assert refusal(new) == SignatureProblem.UNKNOWN_KEY
    assert refusal(QUERY, keys=SigningKeys({"k1": b"9" * 32}, "k1")) == SignatureProblem.BAD_SIGNATURE


@pytest.mark.parametrize("field", ["kid", "methods", "expires", "claims", "signature"])
def test_no_field_can_be_changed_dropped_or_doubled(field: str) -> None:
    pairs = parse_qsl(QUERY)
    changed = {"kid": "k2", "methods": "DELETE,PUT", "expires": str(NOW + 999), "claims": "e30", "signature": "0" * 64}
    assert refusal(urlencode([(name, changed[name] if name == field else value) for name, value in pairs])) in {
        SignatureProblem.BAD_SIGNATURE, SignatureProblem.UNKNOWN_KEY,
    }  # fmt: skip
    assert refusal(urlencode([pair for pair in pairs if pair[0] != field])) == SignatureProblem.MALFORMED
    assert refusal(urlencode([*pairs, (field, dict(pairs)[field])])) == SignatureProblem.MALFORMED


def test_parts_do_not_run_into_each_other() -> None:
    one = dict(parse_qsl(sign(KEYS, ["PUT"], "/ak", NOW + 60)))
    assert refusal(urlencode(one), path="/a") == SignatureProblem.BAD_SIGNATURE


@pytest.mark.parametrize("query", ["", "&", "a", QUERY + "&x=1", "?" + QUERY, QUERY + "x" * 5000, "kid=%ff", "a=1;b=2"])
def test_malformed_query(query: str) -> None:
    assert refusal(query) == SignatureProblem.MALFORMED


@given(st.text(max_size=300), st.text(max_size=30))
def test_no_query_makes_a_surprise(query: str, path: str) -> None:
    refusal(query, path=path)


@given(st.integers(0, len(QUERY) - 1), st.sampled_from(string.ascii_letters + string.digits + "%&=+-_."))
def test_no_single_change_is_accepted(position: int, character: str) -> None:
    changed = QUERY[:position] + character + QUERY[position + 1 :]
    if parse_qsl(changed) != parse_qsl(QUERY):
        refusal(changed)


@pytest.mark.parametrize(
    ("methods", "path", "expires_at", "claims"),
    [
        ([], "/", 1, {}),
        (["get"], "/", 1, {}),
        (["GET"], "images", 1, {}),
        (["GET"], "/", -1, {}),
        (["GET"], "/", 10**12, {}),
        (["GET"], "/", 1, {"x": "y" * 4000}),
    ],
)
def test_what_no_url_could_carry_is_not_signed(
    methods: list[str], path: str, expires_at: int, claims: dict[str, str | int]
) -> None:
    with pytest.raises(ValueError, match=r"upper-case|too long"):
        sign(KEYS, methods, path, expires_at, claims)


def test_weak_keys_are_refused_and_never_shown() -> None:
    for secrets, current in (({"k": b"x" * 31}, "k"), ({"k": b"x" * 32}, "other"), ({"k k": b"x" * 32}, "k k")):
        with pytest.raises(ValueError, match="key"):
            SigningKeys(secrets, current)
    assert "111" not in repr(KEYS)


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=40) | st.integers(), max_size=4))
def test_the_query_is_escaped(claims: dict[str, str | int]) -> None:
    """As any library would."""
    query = sign(KEYS, ("GET", "HEAD"), "/x", 2_000, claims)
    assert urlencode(parse_qsl(query, strict_parsing=True)) == query
    assert verify(KEYS, "GET", "/x", query, 1_000) == claims
