"""Join tokens: counted, expiring, revocable, also when several use one at once."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edvit_tf.errors import TrustError
from edvit_tf.fleet.keys import KEYS, make_keys
from edvit_tf.fleet.tokens import TOKENS_FILE, Tokens
from edvit_tf.rpc.certificates import utc_now
from edvit_tf.rpc.pairing import CODE_LENGTH, new_code, new_token, read_code, read_token

HOUR = timedelta(hours=1)


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    make_keys(tmp_path)
    return Tokens(tmp_path)


def test_a_token_is_used_as_often_as_it_may_be(tokens: Tokens, tmp_path: Path) -> None:
    token = tokens.issue(b"f" * 32, uses=3, life=HOUR)
    assert tokens.secret(token.id) == token.secret

    def use(_: int) -> bool:
        try:
            tokens.use(token.id)
        except TrustError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(use, range(12))) == 3
    with pytest.raises(TrustError, match="used up"):
        tokens.secret(token.id)
    assert (tmp_path / KEYS / TOKENS_FILE).stat().st_mode & 0o777 == 0o600
    assert not list((tmp_path / KEYS).glob("*.part"))


def test_a_token_expires_and_can_be_revoked(tokens: Tokens) -> None:
    token = tokens.issue(b"f" * 32, life=HOUR)
    with pytest.raises(TrustError, match="expired"):
        tokens.secret(token.id, now=utc_now() + 2 * HOUR)
    tokens.revoke(token.id)
    for wrong in (tokens.secret, tokens.use, tokens.revoke):
        with pytest.raises(TrustError):
            wrong(token.id)


def test_a_device_that_was_given_no_token_is_adopted_and_not_said_to_have_a_wrong_one(tokens: Tokens) -> None:
    with pytest.raises(TrustError, match="fleet adopt"):
        tokens.secret("")


def test_a_token_is_one_word_and_carries_the_authority() -> None:
    token = new_token(bytes(range(32)))
    assert read_token(f" {token}\n") == token
    assert len(str(token)) == 79


@given(st.text(max_size=100))
@example("000000000000")
def test_what_is_no_token_or_code_is_one_sentence(text: str) -> None:
    with pytest.raises(TrustError):
        read_token(text)
    with suppress(TrustError):
        assert len(read_code(text)) == CODE_LENGTH


def test_a_code_is_read_as_people_type_it() -> None:
    code = new_code()
    assert read_code(code) == read_code(f" {code.lower().replace('-', ' ')} ")
    assert read_code("OIL0-1234-5678") == read_code("0110-1234-5678")
