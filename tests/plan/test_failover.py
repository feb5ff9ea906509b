"""Where sub-models go when devices are lost, drained or back."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edvit_tf.plan.failover import DEFAULT_POLICY, Host, Move, Part, free_bytes, options, paused, plan

MB = 1_000_000


def host(name: str, *, memory: int = 100, energy: float = 1000.0) -> Host:
    return Host(
        name,
        name,
        "",
        0.0,
        1e6,
        0,
        drained=False,
        memory_bytes=memory * MB,
        energy_joules=energy,
        joules_per_mac=1e-9,
    )


def lost(one: Host, seconds: float = 60.0) -> Host:
    return replace(one, trouble="it is down", away=seconds, steady=0.0, falls=1)


def part(name: str, home: str, holder: str = "", *, needs: int = 10, macs: int = 10) -> Part:
    anywhere = dict.fromkeys("abcdef", needs * MB)
    return Part(name, macs, home, holder or home, anywhere, {})


A, B, C, D = (host(name) for name in "abcd")
ONE, TWO = part("one", "a"), part("two", "b")


def test_where_all_is_well_nothing_moves() -> None:
    made = plan([ONE, TWO], [A, B, C])
    assert (made.moves, made.paused, made.stuck) == ((), "", {})


def test_what_a_lost_device_held_goes_to_the_one_with_the_most_energy_left() -> None:
    made = plan([ONE, TWO], [lost(A), B, C])
    assert made.moves == (Move("one", "c", "a is lost (it is down)"),)
    rich = replace(B, energy_joules=2000.0)
    assert plan([ONE, TWO], [lost(A), rich, C]).moves[0].device == "b", "a device may hold several"


def test_one_that_is_away_for_a_moment_is_waited_for() -> None:
    assert plan([ONE, TWO], [lost(A, DEFAULT_POLICY.grace - 0.1), B, C]).moves == ()


def test_several_are_spread_and_no_memory_is_promised_twice() -> None:
    parts = [part("one", "a", needs=60), part("two", "a", needs=60), part("three", "b", needs=10)]
    made = plan(parts, [lost(A), host("b", memory=70), C, D])
    assert {move.device for move in made.moves} == {"c", "d"}
    made = plan(parts, [lost(A), host("b", memory=60), C])
    assert [move.device for move in made.moves] == ["c"]
    (reason,) = made.stuck.values()
    assert "b: it has 50.0 MB free and 60.0 are needed" in reason
    assert "c: it has 40.0 MB free" in reason


def test_a_device_that_returns_takes_its_own_back_when_it_has_answered_for_a_while() -> None:
    moved = part("one", "a", "c")
    back = replace(A, falls=1, steady=9.9)
    assert plan([moved, TWO], [back, B, C]).moves == ()
    back = replace(back, steady=10.0)
    assert plan([moved, TWO], [back, B, C]).moves == (Move("one", "a", "a is back"),)


def test_flapping_is_damped() -> None:
    stays = [DEFAULT_POLICY.stay(falls) for falls in range(9)]
    assert stays == [0, 10, 20, 40, 80, 160, 320, 600, 600]
    shaky = replace(C, falls=4)
    made = plan([ONE, TWO], [lost(A), host("b", memory=10), shaky])
    assert "it was lost 4 times lately" in made.stuck["one"]


def test_a_stand_in_that_is_lost_too_is_replaced_and_home_comes_first() -> None:
    moved = part("one", "a", "c")
    assert plan([moved, TWO], [lost(A), B, lost(C), D, host("e"), host("f")]).moves[0].device in "def"
    shaky = replace(A, falls=5, steady=1.0)
    made = plan([moved, TWO], [shaky, B, lost(C), D])
    assert made.moves[0].device == "a", "it has the sub-model already"


def test_half_lost_pauses_everything_and_says_so() -> None:
    made = plan([ONE, TWO], [lost(A), lost(B), C, D])
    assert made.moves == ()
    assert "2 of 4 devices are lost (a, b), so nothing is moved" in made.paused
    assert "fleet remove" in made.paused
    assert plan([ONE, TWO], [lost(A), lost(B), C, D, host("e")]).moves
    assert paused([lost(A), B]), "one of two is half"


def test_a_drained_device_is_emptied_and_given_nothing_and_counts_for_nothing() -> None:
    drained = replace(A, drained=True)
    assert plan([ONE, TWO], [drained, B, C]).moves == (Move("one", "c", "a is being drained"),)
    assert plan([ONE, TWO], [lost(B), replace(C, drained=True), A, D]).moves[0].device in "ad"
    assert not paused([drained, lost(B), C, D])


def test_a_device_that_was_removed_is_left() -> None:
    assert plan([ONE, TWO], [B, C]).moves[0] == Move("one", "c", "its device is not in the fleet any more")


def test_each_device_that_cannot_has_its_reason() -> None:
    awkward = replace(ONE, unfit={"b": "it runs another interpreter"})
    fleet = [A, B, replace(C, drained=True), lost(D), host("e", memory=5), host("f")]
    said = {option.device: option.reason for option in options(awkward, [awkward], fleet)}
    assert said == {
        "a": "",
        "b": "it runs another interpreter",
        "c": "it is being drained",
        "d": "it is down",
        "e": "it has 5.0 MB free and 10.0 are needed",
        "f": "",
    }


NAMES = "abcdef"
HOSTS = st.lists(
    st.builds(
        Host,
        id=st.sampled_from(NAMES),
        name=st.just("x"),
        trouble=st.sampled_from(["", "", "it is slow"]),
        away=st.sampled_from([0.0, 0.0, 0.0, 1.0, 50.0]),
        steady=st.sampled_from([0.0, 5.0, 15.0, 1000.0]),
        falls=st.integers(0, 5),
        drained=st.sampled_from([False, False, True]),
        memory_bytes=st.integers(0, 40),
        energy_joules=st.floats(0, 1e6),
        joules_per_mac=st.floats(0, 1.0),
    ).map(lambda one: replace(one, trouble="it is down", steady=0.0) if one.away else one),
    unique_by=lambda one: one.id,
    max_size=6,
)
PARTS = st.lists(
    st.builds(
        Part,
        id=st.sampled_from(["one", "two", "three", "four", "five"]),
        macs=st.integers(0, 100),
        home=st.sampled_from(NAMES),
        holder=st.sampled_from(NAMES),
        memory_bytes=st.fixed_dictionaries({name: st.integers(0, 20) for name in NAMES}),
        unfit=st.dictionaries(st.sampled_from(NAMES), st.just("it cannot"), max_size=2),
    ),
    unique_by=lambda one: one.id,
    max_size=5,
)


@given(PARTS, HOSTS, st.randoms(use_true_random=False))
def test_whatever_the_fleet_looks_like(parts: list[Part], hosts: list[Host], random: object) -> None:
    made = plan(parts, hosts)
    by_id, after = {one.id: one for one in hosts}, {one.id: one for one in parts}
    taken = set()
    for move in made.moves:
        target, moved = by_id[move.device], after[move.submodel]
        assert not target.trouble
        assert not target.drained
        assert move.device not in moved.unfit
        assert move.device != moved.holder
        assert move.reason
        assert move.submodel not in taken, "one move at a time"
        taken.add(move.submodel)
        after[move.submodel] = replace(moved, holder=move.device)
        if move.device != moved.home:
            assert free_bytes(target, after.values()) >= 0, "memory is not promised twice"
    fleet = [one for one in hosts if not one.drained]
    gone = [one for one in fleet if one.away >= DEFAULT_POLICY.grace]
    assert bool(made.paused) == bool(gone and 2 * len(gone) >= len(fleet))
    assert not (made.paused and (made.moves or made.stuck))
    for each in parts:
        holder = by_id.get(each.holder)
        calls = holder is None or holder.drained or holder.away >= DEFAULT_POLICY.grace
        if calls and not made.paused:
            assert (each.id in taken) != (each.id in made.stuck)
        if not calls and each.holder == each.home:
            assert each.id not in taken
    shuffled, mixed = list(parts), list(hosts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert plan(shuffled, mixed).moves == made.moves


@pytest.mark.parametrize("falls", [0, 1, 1000])
def test_a_stay_is_finite(falls: int) -> None:
    assert DEFAULT_POLICY.stay(falls) <= DEFAULT_POLICY.longest_stay
