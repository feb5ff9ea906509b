"""Real device processes that are killed, frozen and started again under an aggregator that runs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.fleet.state import FleetState, Known, load
from tests.fleet.fakes import picture, possible_answers
from tests.fleet.processes import DeviceProcess, ThrowAwayFleet, deployed_fleet, frozen
from tests.fleet.serve.asked import png
from tests.fleet.serve.process import edvit, serving, until

pytestmark = [pytest.mark.fleet, pytest.mark.long, pytest.mark.fault]

FAILOVER_SECONDS = 8.0
DOWN_SECONDS = 6.0
REJOIN_SECONDS = 10.0


@pytest.fixture(scope="module", params=["out", "in"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, bundle: Bundle
) -> Iterator[ThrowAwayFleet]:
    """Four devices that hold a bundle for two; once they are called, and once they dial in."""
    names = ["ash", "beech", "cedar", "date"]
    with deployed_fleet(names, tmp_path_factory.mktemp("devices"), bundle, request.param) as fleet:
        yield fleet


def holder(made: ThrowAwayFleet, number: int = 0) -> tuple[DeviceProcess, str]:
    """Who holds a sub-model now, and its id."""
    bundle, deployment = load(made.folder)
    submodel = bundle.manifest.submodels[number].id
    by_id = {device.id: device for device in made.devices}
    return by_id[deployment.holder(submodel)], submodel


def standing(made: ThrowAwayFleet, device: DeviceProcess) -> Known:
    with FleetState(made.folder) as state:
        return next(known for known in state.devices() if known.id == device.id)


def test_a_killed_device_is_replaced_rejoins_and_takes_its_own_back(
    made: ThrowAwayFleet, bundle: Bundle, tmp_path: Path
) -> None:
    data, possible = png(bundle), possible_answers(bundle, picture(bundle))
    with serving(made.folder, tmp_path / "log", *made.listening) as it:
        assert it.classify(data)["complete"]
        victim, submodel = holder(made)
        victim.kill()
        first = it.classify(data)
        assert (first["complete"], first["missing"]) == (False, [submodel])
        took = until(lambda: it.classify(data)["complete"], FAILOVER_SECONDS)
        print(f"failover_seconds: {took:.1f}")  # noqa: T201 (a figure to look at)
        assert it.classify(data)["probabilities"] in possible
        stand_in, _ = holder(made)
        assert stand_in is not victim
        assert standing(made, victim).state == "down"

        victim.start()
        until(lambda: standing(made, victim).state == "up", REJOIN_SECONDS)
        until(lambda: holder(made)[0] is victim, 30.0)
        assert it.classify(data)["complete"]
        with FleetState(made.folder) as state:
            texts = [event.text for event in state.events()]
        assert any("is lost" in text and text.startswith(f"took {submodel}") for text in texts)
        assert any(f"{victim.name} is back" in text for text in texts)


def test_a_frozen_device_is_down_in_time_and_its_late_word_changes_nothing(
    made: ThrowAwayFleet, bundle: Bundle, tmp_path: Path
) -> None:
    data, possible = png(bundle), possible_answers(bundle, picture(bundle))
    with serving(made.folder, tmp_path / "log", *made.listening) as it:
        assert it.classify(data)["complete"]
        victim, submodel = holder(made, 1)
        with frozen(victim):
            until(lambda: standing(made, victim).state == "down", DOWN_SECONDS)
            assert "did not answer" in standing(made, victim).reason
            until(lambda: it.classify(data)["complete"], FAILOVER_SECONDS)
            assert holder(made, 1)[0] is not victim
        for _ in range(20):
            answer = it.classify(data)
            assert answer["complete"]
            assert answer["probabilities"] in possible
        until(lambda: standing(made, victim).state == "up", REJOIN_SECONDS)
        assert submodel in {part.id for part in bundle.manifest.submodels}


def test_an_aggregator_that_is_killed_starts_again_with_all_of_it(
    made: ThrowAwayFleet, bundle: Bundle, tmp_path: Path
) -> None:
    data = png(bundle)
    with serving(made.folder, tmp_path / "log", *made.listening) as it:
        it.classify(data)
        victim, _ = holder(made)
        victim.kill()
        until(lambda: it.classify(data)["complete"], FAILOVER_SECONDS)
        it.process.kill()
        it.process.wait()
    stand_in, _ = holder(made)
    assert stand_in is not victim
    with serving(made.folder, tmp_path / "log", *made.listening) as it:
        until(lambda: it.classify(data)["complete"], REJOIN_SECONDS)
        assert holder(made)[0] is stand_in
        assert json.loads(it.ask("GET", "/healthz")[1])["devices_answering"] == 3
        assert it.stop() == 0
    victim.start()


def test_the_log_of_a_device_is_read_from_afar(made: ThrowAwayFleet, bundle: Bundle, tmp_path: Path) -> None:
    with serving(made.folder, tmp_path / "log", *made.listening) as it:
        until(lambda: it.classify(png(bundle))["complete"], REJOIN_SECONDS)
        device, _ = holder(made)
        status, lines = edvit("fleet", "logs", device.name, "--last", "200", "--state", made.folder)
        assert status == 0
        assert {line["device"] for line in lines} == {device.id}
        assert any(line["message"].startswith(f"{device.name} has started") for line in lines), device.log()
        status, few = edvit("fleet", "logs", device.name, "--last", "1", "--state", made.folder)
        assert (status, len(few)) == (0, 1)


def test_half_lost_moves_nothing(made: ThrowAwayFleet, bundle: Bundle, tmp_path: Path) -> None:
    data = png(bundle)
    with serving(made.folder, tmp_path / "log", *made.listening) as it:
        until(lambda: it.classify(data)["complete"], REJOIN_SECONDS)
        victim, _ = holder(made)
        other = next(device for device in made.devices if device is not victim)
        with frozen(victim), frozen(other), FleetState(made.folder) as state:
            until(lambda: "2 of 4 devices are lost" in state.serving()[1], 12.0)
            assert b"edvit_moves_paused 1.0" in it.ask("GET", "/metrics")[1]
        with FleetState(made.folder) as state:
            until(lambda: state.serving()[1] == "", REJOIN_SECONDS)


def test_an_operator_drains_and_removes_a_device_under_way(
    made: ThrowAwayFleet, bundle: Bundle, tmp_path: Path
) -> None:
    data = png(bundle)
    with serving(made.folder, tmp_path / "log", *made.listening) as it:
        until(lambda: load(made.folder)[1].moved == {}, REJOIN_SECONDS)
        assert it.classify(data)["complete"]
        leaving, submodel = holder(made)
        status, (rows,) = edvit("fleet", "status", "--state", made.folder)
        assert status == 0
        assert {row["name"] for row in rows} == {device.name for device in made.devices}
        assert {row["link"] for row in rows} == {"in" if made.dial else "out"}
        status, (refused,) = edvit("fleet", "remove", leaving.name, "--state", made.folder)
        assert (status, refused["error"]["code"]) == (2, "fleet.holds")
        status, (said,) = edvit("fleet", "drain", leaving.name, "--state", made.folder)
        assert (status, said["holds"]) == (0, [submodel])
        answers = []
        while holder(made)[0] is leaving:
            answers.append(it.classify(data)["complete"])
        assert all(answers), "no gap"
        status, (rows,) = edvit("fleet", "placements", "--state", made.folder)
        (row,) = [row for row in rows if row["submodel"] == submodel]
        assert row["home"] == leaving.id != row["holder"]
        reasons = {option["name"]: option["reason"] for option in row["options"]}
        assert reasons[leaving.name] == "it is being drained"
        status, (said,) = edvit("fleet", "remove", leaving.name, "--state", made.folder)
        assert status == 0
        status, (rows,) = edvit("fleet", "status", "--state", made.folder)
        assert leaving.name not in {row["name"] for row in rows}
        assert it.classify(data)["complete"]
        status, events = edvit("fleet", "logs", "--state", made.folder)
        assert any("was removed" in event["event"] for event in events)
