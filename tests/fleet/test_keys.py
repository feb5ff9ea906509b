"""The owner's keys: whole or not there, closed to others, refused with a sentence when they are wrong."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from edvit_tf.errors import TrustError
from edvit_tf.fleet.keys import AGGREGATOR_CERTIFICATE, AUTHORITY_KEY, KEYS, load_keys, make_keys
from edvit_tf.rpc.certificates import CERTIFICATE_LIFE, utc_now


def test_what_was_made_is_loaded_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    made = make_keys(tmp_path)
    assert load_keys(tmp_path).credentials == made.credentials
    files = list((tmp_path / KEYS).iterdir())
    assert len(files) == 5
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert (tmp_path / KEYS).stat().st_mode & 0o777 == 0o700


def test_a_passphrase_is_needed_and_must_be_right(tmp_path: Path) -> None:
    made = make_keys(tmp_path, "open sesame")
    assert b"ENCRYPTED" in (tmp_path / KEYS / AUTHORITY_KEY).read_bytes()
    assert load_keys(tmp_path, "open sesame").credentials == made.credentials
    for wrong, sentence in (("", "have a passphrase"), ("sesame", "is wrong")):
        with pytest.raises(TrustError, match=sentence) as caught:
            load_keys(tmp_path, wrong)
        assert caught.value.code == "trust.passphrase"


def test_keys_are_never_replaced(tmp_path: Path) -> None:
    made = make_keys(tmp_path)
    with pytest.raises(TrustError) as caught:
        make_keys(tmp_path)
    assert caught.value.code == "trust.exists"
    assert load_keys(tmp_path).credentials == made.credentials


def test_bad_keys_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="fleet init"):
        load_keys(tmp_path)
    make_keys(tmp_path)
    path = tmp_path / KEYS / AUTHORITY_KEY
    path.chmod(0o644)
    with pytest.raises(TrustError, match="chmod 600"):
        load_keys(tmp_path)
    path.chmod(0o600)
    path.write_text("nothing")
    with pytest.raises(TrustError) as caught:
        load_keys(tmp_path)
    assert caught.value.code == "trust.key"


def test_the_aggregators_certificate_renews_itself(tmp_path: Path) -> None:
    start = utc_now()
    made = make_keys(tmp_path, now=start)
    early = load_keys(tmp_path, now=start + CERTIFICATE_LIFE - timedelta(days=91))
    assert early.credentials == made.credentials
    late = start + CERTIFICATE_LIFE - timedelta(days=89)
    renewed = x509.load_pem_x509_certificate(load_keys(tmp_path, now=late).credentials.certificate)
    assert renewed.not_valid_after_utc > late + CERTIFICATE_LIFE - timedelta(seconds=2)
    kept = (tmp_path / KEYS / AGGREGATOR_CERTIFICATE).read_bytes()
    assert x509.load_pem_x509_certificate(kept) == renewed


def test_a_clock_that_was_wrong_is_named_or_leaves_nothing_behind(tmp_path: Path) -> None:
    make_keys(tmp_path)
    with pytest.raises(TrustError, match="the clock here says") as caught:
        load_keys(tmp_path, now=utc_now() - timedelta(days=2))
    assert caught.value.code == "trust.clock"
    load_keys(
        tmp_path, now=utc_now() + CERTIFICATE_LIFE
    )  # renewed, and not valid yet when the clock is right
    certificate = x509.load_pem_x509_certificate(load_keys(tmp_path).credentials.certificate)
    assert certificate.not_valid_before_utc < utc_now()


def test_a_renewal_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_keys(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edvit_tf.fleet.keys.os.fsync", full)
    with pytest.raises(TrustError, match="No space left on device") as caught:
        load_keys(tmp_path, now=utc_now() + CERTIFICATE_LIFE)
    assert caught.value.code == "trust.write"
    assert len(list((tmp_path / KEYS).iterdir())) == 5, "nothing half-written is left"
