"""Who is to blame, by the reports of workers alone: no Ray, and a clock that the tests turn."""

from dataclasses import dataclass, field
from itertools import count

import pytest

from raypipe.cluster.calls import Call, Orders
from raypipe.cluster.starts import FAILED_STARTS
from raypipe.cluster.watch import ALL_SICK_AFTER, FAULTS, LACKED_MEMORY, MOST_DEATHS, SICK_AFTER, Watch

ROWS = ["a", "b", "c"]


@dataclass
class Scene:
    """A watch, a cluster and the time."""

    nodes: set[str] = field(default_factory=lambda: {"n1"})
    now: float = 0.0
    lacked_memory: set[str] = field(default_factory=set)
    """Processes that Ray's memory monitor has ended."""

    def __post_init__(self) -> None:
        self.watch = Watch(
            alive=lambda: set(self.nodes),
            clock=lambda: self.now,
            lacked_memory=lambda worker: worker in self.lacked_memory,
        )
        self.numbers = count()

    def call(self, node: str = "n1", block: str = "block", pool: str = "Stage", gpu: str = "") -> Call:
        place, number = f"{node}/{gpu}" if gpu else node, str(next(self.numbers))
        return Call(number=number, job="job", pool=pool, worker=number, node=node, place=place, block=block)

    def die(
        self, rows: list[str], kill: str, *, node: str = "n1", hang: bool = False, memory: bool = False
    ) -> list[str] | None:
        """A process takes the block, as it is told to; rows that it got through, or None where it died on `kill`."""
        self.now += 1
        call = self.call(node)
        if memory:
            self.lacked_memory.add(call.worker)
        orders = self.watch.begin(call, rows)
        done = [row for row in rows if row not in orders.convicted]
        if kill in done and not orders.alone:
            if hang:
                self.watch.hung(call, "Stage", 5)
            return None
        if orders.alone:
            for row in sorted(done, key=lambda row: (row not in orders.first, row in orders.last)):
                self.now += 0.1
                self.watch.alone(call, row)
                if row == kill:
                    if hang:
                        self.watch.hung(call, "Stage", 5)
                    return None
            self.watch.alone(call, None)
        self.watch.end(call, "passed")
        return done


def pass_block(scene: Scene, node: str = "n1", block: str = "other", pool: str = "Stage", gpu: str = "") -> None:
    call = scene.call(node, block, pool, gpu)
    scene.watch.begin(call, ["x"])
    scene.watch.end(call, "passed")


@pytest.mark.parametrize("killer", ROWS)
@pytest.mark.parametrize(("hang", "deaths"), [(False, range(4, 6)), (True, range(2, 4))])
def test_the_row_is_convicted_on_which_processes_die_alone(killer: str, *, hang: bool, deaths: range) -> None:
    scene, died = Scene(), 0
    while (done := scene.die(ROWS, killer, hang=hang)) is None:
        died += 1
    assert done == [row for row in ROWS if row != killer]
    assert died in deaths
    reason = scene.watch.begin(scene.call(block="next"), [killer]).convicted[killer]
    assert ("no progress for 5 s in Stage" if hang else "its process died") in reason
    assert scene.watch.sick() == {}


def test_one_death_changes_nothing() -> None:
    scene = Scene()
    scene.watch.begin(scene.call(), ROWS)
    orders = scene.watch.begin(scene.call(), ROWS)
    assert not orders.alone
    assert not orders.convicted


def test_the_same_call_asked_twice_is_no_death() -> None:
    scene = Scene()
    call = scene.call()
    for _ in range(5):
        assert not scene.watch.begin(call, ROWS).alone


def test_a_call_that_failed_for_storage_is_no_death() -> None:
    scene = Scene()
    for _ in range(5):
        call = scene.call()
        assert not scene.watch.begin(call, ROWS).alone
        scene.watch.end(call, "failed")


def test_deaths_with_their_nodes_convict_nobody() -> None:
    scene = Scene(nodes={f"n{number}" for number in range(20)})
    for number in range(10):
        scene.watch.begin(scene.call(f"n{number}"), ROWS)
        scene.nodes.discard(f"n{number}")
    assert not scene.watch.begin(scene.call("n10"), ROWS).alone


def test_deaths_of_nodes_that_turn_out_to_be_dead_are_not_counted() -> None:
    scene = Scene(nodes={"n1", "n2", "n3"})
    scene.watch.begin(scene.call("n1"), ROWS)
    scene.watch.begin(scene.call("n2"), ROWS)  # n1 is still believed to be there
    scene.nodes.discard("n1")
    assert not scene.watch.begin(scene.call("n3"), ROWS).alone


def test_what_kills_every_process_of_a_node_is_the_nodes_fault() -> None:
    scene = Scene(nodes={"n1", "n2"})
    for _ in range(20):
        call = scene.call()
        orders = scene.watch.begin(call, ROWS)
        assert not orders.convicted
        if orders.sick:
            break
        if orders.alone:
            scene.watch.alone(call, min(ROWS, key=lambda row: (row not in orders.first, row in orders.last)))
    assert "whatever row" in scene.watch.sick()["n1"]


def test_the_last_row_of_all_is_convicted_where_it_alone_is_left() -> None:
    scene = Scene()
    died = 0
    while scene.die(["a"], "a") is None:
        died += 1
        assert died < 10
    assert died == 2 + MOST_DEATHS


def test_a_node_with_a_burst_of_faults_is_sick_while_others_get_through() -> None:
    scene = Scene(nodes={"n1", "n2"})
    verdicts = []
    for _ in range(FAULTS):
        call = scene.call()
        scene.watch.begin(call, ROWS)
        verdicts.append(scene.watch.fault(call, "ExpiredToken", of_device=False))
        scene.now += SICK_AFTER / 2
        pass_block(scene, "n2")
    assert verdicts == ["again", "again", "sick"]
    assert scene.watch.sick() == {"n1": "ExpiredToken"}
    assert scene.watch.begin(scene.call(), ROWS).sick == "ExpiredToken"
    assert scene.watch.begin(scene.call("n2"), ROWS).sick is None


def test_faults_everywhere_are_given_longer_to_pass() -> None:
    scene = Scene(nodes={"n1", "n2"})
    while not (sick := scene.watch.sick()):
        for node in sorted(scene.nodes):
            call = scene.call(node, block=node)
            scene.watch.begin(call, ROWS)
            scene.watch.fault(call, "NoCredentialsError", of_device=False)
        scene.now += 5
    assert ALL_SICK_AFTER < scene.now <= ALL_SICK_AFTER + 5
    assert set(sick) == {"n1", "n2"}


def test_rows_that_fail_where_others_get_through_are_tried_elsewhere() -> None:
    scene = Scene(nodes={"n1", "n2"})
    verdicts = []
    for _ in range(FAULTS):
        call = scene.call()
        scene.watch.begin(call, ROWS)
        scene.now += 1
        verdicts.append(scene.watch.fault(call, "AccessDenied", of_device=False))
        scene.now += 1
        pass_block(scene)
    assert verdicts == ["again", "again", "elsewhere"]
    assert scene.watch.sick() == {}


def test_a_row_that_failed_elsewhere_is_convicted_where_others_get_through_there_since() -> None:
    scene = Scene(nodes={"n1", "n2"})
    pass_block(scene, "n2")
    call = scene.call()
    scene.watch.begin(call, ROWS)
    scene.now += 1
    scene.watch.fault(call, "AccessDenied", of_device=False)
    assert not scene.watch.convicts(call, "n2"), "it got through before"
    scene.now += 1
    pass_block(scene, "n2", pool="Writes")
    assert not scene.watch.convicts(call, "n2"), "something else got through"
    pass_block(scene, "n2")
    assert scene.watch.convicts(call, "n2")
    scene.watch.settled(call)
    assert not scene.watch._faulty


def test_a_gpu_that_fails_beside_others_that_work_makes_its_node_sick() -> None:
    scene = Scene(nodes={"n1", "n2"})
    for _ in range(40):
        scene.now += 2
        pass_block(scene, gpu="1")
        pass_block(scene, "n2")
        call = scene.call(gpu="0")
        orders = scene.watch.begin(call, ROWS)
        assert not orders.convicted
        if orders.sick:
            break
        if orders.alone:
            scene.watch.alone(call, min(ROWS, key=lambda row: (row not in orders.first, row in orders.last)))
        scene.watch.fault(call, "CUDA error: unknown", of_device=True)
    assert list(scene.watch.sick()) == ["n1"]


def test_where_nothing_gets_through_any_more_no_row_is_convicted() -> None:
    scene = Scene(nodes={"n1", "n2"})
    pass_block(scene)
    pass_block(scene, "n2")
    for number in range(60):
        scene.now += 1
        call = scene.call(f"n{1 + number % 2}")
        orders = scene.watch.begin(call, ROWS)
        assert not orders.convicted
        if not orders.sick and orders.alone:
            scene.watch.alone(call, min(ROWS, key=lambda row: (row not in orders.first, row in orders.last)))
    assert set(scene.watch.sick()) == {"n1", "n2"}


def test_a_short_outage_of_all_nodes_makes_none_of_them_sick() -> None:
    scene = Scene(nodes={f"n{number}" for number in range(8)})
    pass_block(scene, "n7")
    for second in range(0, 40, 5):
        scene.now = second
        for node in sorted(scene.nodes):
            call = scene.call(node, block=node)
            scene.watch.begin(call, ROWS)
            if second == 5 and node == "n7":
                scene.watch.end(call, "passed")  # fetched before
            else:
                scene.watch.fault(call, "gaierror", of_device=False)
    assert scene.watch.sick() == {}


def test_who_got_through_is_no_suspect_and_nothing_is_kept_of_blocks_that_are_done() -> None:
    scene = Scene()
    assert scene.die(ROWS, "b") is None
    assert scene.die(ROWS, "b") is None
    assert scene.die(ROWS, "b") is None  # alone, once
    assert scene.die(ROWS, "none") == ROWS
    watch = scene.watch
    assert not watch.begin(scene.call(block="next"), ROWS).alone
    assert not watch._rows
    assert not watch._blocks
    assert not watch._careful


def test_rows_that_all_failed_show_nothing_of_the_node() -> None:
    scene = Scene()
    call = scene.call()
    scene.watch.begin(call, ROWS)
    scene.watch.end(call, "done")
    assert all(seen.passed < 0 for seen in scene.watch._health.values())
    assert not scene.watch._open


def test_the_convicted_are_forgiven() -> None:
    scene = Scene()
    while scene.die(ROWS, "b") is None:
        pass
    assert scene.watch.begin(scene.call(block="next"), ROWS).convicted
    scene.watch.forgive()
    assert not scene.watch.begin(scene.call(block="other"), ROWS).convicted


def test_a_device_that_fails_with_one_row_alone_convicts_it_as_a_death_does() -> None:
    scene = Scene()
    for _ in range(10):
        scene.now += 1
        call = scene.call()
        orders = scene.watch.begin(call, ROWS)
        if orders.convicted:
            break
        for row in ROWS if orders.alone else []:
            scene.watch.alone(call, row)
            if row == "b":
                break
        scene.watch.fault(call, "CUDA error: device-side assert", of_device=True)
    assert orders.convicted == {"b": "CUDA error: device-side assert while it worked on this row alone"}


def test_nodes_may_be_left_out_from_the_start() -> None:
    scene = Scene()
    scene.watch.exclude({"n1": "its clock is off"})
    assert scene.watch.begin(scene.call(), ROWS).sick == "its clock is off"


@pytest.mark.parametrize("killer", ROWS)
def test_a_row_that_takes_all_memory_is_convicted_once_others_got_through_alone_in_between(killer: str) -> None:
    scene, died = Scene(), 0
    while (done := scene.die(ROWS, killer, memory=True)) is None:
        died += 1
    assert done == [row for row in ROWS if row != killer]
    assert died == 4, "twice with others, twice alone"
    reason = scene.watch.begin(scene.call(block="next"), [killer]).convicted[killer]
    assert reason == f"{LACKED_MEMORY} while it worked on this row alone"
    assert scene.watch.sick() == {}


@pytest.mark.parametrize("others_pass", [True, False])
def test_rows_are_innocent_of_memory_that_others_take(*, others_pass: bool) -> None:
    """Whatever begins is ended for the sake of what is at work already, and that gets through."""
    scene = Scene(nodes={"n1", "n2"})
    for number in range(40):
        scene.now += 1
        if others_pass and not number % 3:
            pass_block(scene, "n2")
        call = scene.call(block=str(number % 2))
        scene.lacked_memory.add(call.worker)
        orders = scene.watch.begin(call, ROWS)
        assert not orders.convicted
        if orders.sick:
            break
        if orders.alone:
            scene.watch.alone(call, min(ROWS, key=lambda row: (row not in orders.first, row in orders.last)))
    assert scene.watch.sick() == {"n1": f"{LACKED_MEMORY}, whatever row it works on"}
    assert number >= 2 * MOST_DEATHS, "and not after three deaths"


def test_many_processes_that_lack_memory_at_once_make_no_node_sick() -> None:
    scene = Scene(nodes={"n1", "n2"})
    for number in range(12):
        pass_block(scene, "n2")
        call = scene.call(block=str(number))
        scene.lacked_memory.add(call.worker)
        scene.watch.begin(call, ROWS)
        scene.now += SICK_AFTER
        assert not scene.watch.begin(scene.call(block=str(number)), ROWS).alone
    assert scene.watch.sick() == {}


def start(scene: Scene, node: str, given: str, *, pool: str = "Stage") -> Orders:
    """A process is set up and dies over it."""
    return scene.watch.start(scene.call(node, given, pool))


def set_up(scene: Scene, node: str, *, pool: str = "Stage") -> None:
    call = scene.call(node, f"task on {node}", pool)
    scene.watch.start(call)
    scene.watch.started(call, passed=True)


def deaths(scene: Scene, node: str, given: str, *, pool: str = "Stage") -> int:
    """Processes that die over their set-up until the node is sick."""
    for number in range(20):
        if start(scene, node, given, pool=pool).sick:
            return number
    raise AssertionError("Ray would start them without end")


def test_the_only_node_on_which_processes_die_over_their_setup_is_sick() -> None:
    scene = Scene()
    assert deaths(scene, "n1", "actor") == FAILED_STARTS
    assert scene.watch.sick() == {"n1": "its process died while it was set up for Stage, 3 times in a row"}
    assert scene.watch.begin(scene.call(), ROWS).sick


def test_deaths_over_the_setup_count_together_whichever_actor_dies() -> None:
    scene = Scene()
    for number in range(FAILED_STARTS):
        start(scene, "n1", f"actor {number}")
        orders = start(scene, "n1", f"actor {number}")
    assert orders.sick


def test_the_setup_says_what_ended_it() -> None:
    scene = Scene()
    for _ in range(FAILED_STARTS):
        call = scene.call(block="actor")
        scene.lacked_memory.add(call.worker)
        scene.watch.start(call)
    assert LACKED_MEMORY in (start(scene, "n1", "actor").sick or "")
    scene = Scene()
    for _ in range(FAILED_STARTS):
        call = scene.call(block="actor")
        scene.watch.start(call)
        scene.watch.hung(call, "setup", 600)
    assert "no progress for 600 s in setup" in (start(scene, "n1", "actor").sick or "")


def test_who_gets_through_the_setup_starts_the_count_anew() -> None:
    scene = Scene()
    for number in range(10):
        for _ in range(FAILED_STARTS):
            start(scene, "n1", f"actor {number}")
        set_up(scene, "n1")
    assert scene.watch.sick() == {}
    assert scene.watch.given_up() == []


def test_deaths_over_the_setup_with_their_node_count_for_nothing() -> None:
    scene = Scene(nodes={f"n{number}" for number in range(20)})
    for number in range(19):
        start(scene, f"n{number}", "actor")
        scene.nodes.discard(f"n{number}")
    assert not start(scene, "n19", "actor").sick


def test_the_setup_that_fails_on_one_node_alone_makes_it_sick() -> None:
    scene = Scene(nodes={"n1", "n2", "n3"})
    set_up(scene, "n2")
    assert deaths(scene, "n1", "actor") == FAILED_STARTS
    assert list(scene.watch.sick()) == ["n1"]
    assert scene.watch.given_up() == []


def test_the_setup_that_fails_everywhere_is_given_up_after_two_nodes() -> None:
    scene = Scene(nodes={f"n{number}" for number in range(64)})
    deaths(scene, "n1", "actor 1")
    assert scene.watch.given_up() == [], "another node may get through"
    deaths(scene, "n2", "actor 2")
    (reason,) = scene.watch.given_up()
    assert "its process died while it was set up for Stage" in reason
    assert len(scene.watch.sick()) == 2


def test_the_setup_is_not_given_up_while_another_node_is_at_it() -> None:
    scene = Scene(nodes={f"n{number}" for number in range(64)})
    call = scene.call("n9", "slow")
    scene.watch.start(call)
    deaths(scene, "n1", "actor 1")
    deaths(scene, "n2", "actor 2")
    assert scene.watch.given_up() == []
    scene.watch.started(call, passed=True)
    deaths(scene, "n3", "actor 3")
    assert scene.watch.given_up() == []
    assert len(scene.watch.sick()) == 3


def test_a_node_that_is_sick_already_gets_no_process() -> None:
    scene = Scene(nodes={f"n{number}" for number in range(64)})
    scene.watch.exclude({"n9": "its clock is off"})
    assert start(scene, "n9", "actor 9").sick == "its clock is off"
    deaths(scene, "n1", "actor 1")
    deaths(scene, "n2", "actor 2")
    assert scene.watch.given_up(), "nobody is at it on n9"


def test_another_pool_that_is_set_up_says_nothing() -> None:
    scene = Scene(nodes={"n1", "n2"})
    set_up(scene, "n1", pool="Fetch")
    assert deaths(scene, "n1", "actor") == FAILED_STARTS


@pytest.mark.parametrize(("elsewhere", "pool"), [("n2", "Stage"), ("n2", "Other"), ("n1", "Stage"), (None, "Stage")])
def test_an_error_of_the_setup_is_the_nodes_where_others_had_none(elsewhere: str | None, pool: str) -> None:
    scene = Scene(nodes={"n1", "n2"})
    if elsewhere is not None:
        set_up(scene, elsewhere, pool=pool)
    call = scene.call()
    scene.watch.start(call)
    is_nodes = (elsewhere, pool) == ("n2", "Stage")
    assert scene.watch.refused(call, "ValueError: no checkpoint") == is_nodes
    assert (scene.watch.sick() != {}) == is_nodes


def test_a_setup_that_is_tried_again_with_the_first_rows_is_no_death() -> None:
    scene = Scene()
    for _ in range(10):
        call = scene.call(block="actor")
        assert not scene.watch.start(call).sick
        scene.watch.started(call, passed=False)
