"""A source is known by its credential and by nothing else."""

import pytest

from connector.errors import Forbidden, Unauthenticated
from connector.receiver.authentication import Authentication, Credentials

TOKENS = {"default": ["old", "new"], "hr": ["hr-1"], "locked": []}


def of_tokens(tokens, *, allow_anonymous=False):
    sources = {name: Credentials(tokens=tuple(each)) for name, each in tokens.items()}
    return Authentication(sources, allow_anonymous=allow_anonymous)


def guarded(**tokens):
    return of_tokens(tokens or TOKENS)


@pytest.mark.parametrize("token", ["old", "new"])
def test_each_of_several_tokens_is_good_while_they_are_rotated(token):
    assert guarded().authenticate("default", token).source == "default"


def test_a_token_that_was_taken_away_is_good_no_more():
    with pytest.raises(Unauthenticated):
        guarded(default=["new"]).authenticate("default", "old")


@pytest.mark.parametrize(
    "presented", [None, "", "ol", "oldx", "Old", " old", "old,new", "öld", "o\udcffld", "old\x00", "x" * 100_000]
)
def test_a_missing_or_wrong_token_is_unauthenticated(presented):
    with pytest.raises(Unauthenticated):
        guarded().authenticate("default", presented)


def test_the_token_of_another_source_is_forbidden():
    with pytest.raises(Forbidden):
        guarded().authenticate("default", "hr-1")
    with pytest.raises(Forbidden):
        guarded().authenticate("hr", "old")


@pytest.mark.parametrize("presented", [None, "old", "hr-1", "nope"])
def test_an_unknown_source_is_unauthenticated_whoever_asks(presented):
    with pytest.raises(Unauthenticated):
        guarded().authenticate("nobody", presented)


@pytest.mark.parametrize("presented", [None, "", "nope"])
def test_a_source_without_a_token_is_locked(presented):
    with pytest.raises(Unauthenticated):
        guarded().authenticate("locked", presented)


def test_no_message_tells_a_token_or_the_one_that_was_presented():
    for source, presented in [("default", "secret-1"), ("hr", "old"), ("nobody", "secret-1"), ("default", None)]:
        with pytest.raises((Unauthenticated, Forbidden)) as caught:
            guarded().authenticate(source, presented)
        assert not any(word in str(caught.value) for word in ("secret-1", "old", "hr-1", "nobody"))


@pytest.mark.parametrize("presented", [None, "", "anything"])
def test_an_open_connector_takes_a_source_without_a_token_from_anyone(presented):
    assert of_tokens({"default": []}, allow_anonymous=True).authenticate("default", presented).source == "default"


def test_an_open_connector_still_guards_a_source_that_has_a_token():
    opened = of_tokens(TOKENS, allow_anonymous=True)

    assert opened.authenticate("locked", None).source == "locked"
    assert opened.authenticate("default", "new").source == "default"
    with pytest.raises(Unauthenticated):
        opened.authenticate("default", None)
    with pytest.raises(Forbidden):
        opened.authenticate("default", "hr-1")


def test_an_open_connector_does_not_know_more_sources():
    with pytest.raises(Unauthenticated):
        of_tokens({"default": []}, allow_anonymous=True).authenticate("nobody", None)


def test_no_sources_at_all_let_nobody_in():
    with pytest.raises(Unauthenticated):
        of_tokens({}, allow_anonymous=True).authenticate("default", "x")
