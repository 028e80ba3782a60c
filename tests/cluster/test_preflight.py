"""What follows from made-up views of a cluster: what ends the run, and which nodes it does without."""

from dataclasses import replace
from typing import Any

import ray

from raypipe.cluster.preflight import judge_nodes
from raypipe.cluster.survey import Node, View

VERSIONS = {"python": "3.11", "ray": ray.__version__, "raypipe": "0.1.0", "torch": "2.14.0"}
VIEW = View(versions=VERSIONS, out=[], unread={}, absent={}, cores=8)
OUT = "s3://bucket/run"
DENIED = "PermissionError: Access Denied"
ELSEWHERE = "it is another place than the driver's"


def node(number: int, **changes: Any) -> Node:
    view = replace(VIEW, **{key: changes.pop(key) for key in list(changes) if hasattr(VIEW, key)})
    name = f"10.0.0.{number}"
    known = {"id": name, "name": name, "resources": {"CPU": 8.0}, "view": view, "beside_driver": number == 1}
    return Node(**(known | changes))


def problems(found: tuple[list[Any], dict[str, str]]) -> list[str]:
    return [finding.found for finding in found[0] if finding.status == "problem"]


def test_nodes_that_agree() -> None:
    assert judge_nodes(OUT, VIEW, [node(number) for number in range(1, 65)]) == ([], {})


def test_versions_that_differ_end_the_run() -> None:
    found = judge_nodes(OUT, VIEW, [node(1), node(2, versions=VERSIONS | {"torch": "2.13.0"})])
    assert problems(found) == ["torch from the driver, 10.0.0.1: 2.14.0; from 10.0.0.2: 2.13.0"]
    assert found[0][0].way_out.startswith("one image")


def test_a_local_folder_that_nobody_shares_ends_the_run() -> None:
    nodes = [node(1), *(node(number, out=[ELSEWHERE]) for number in range(2, 8))]
    found = judge_nodes("/home/me/runs/x", VIEW, nodes)
    assert problems(found) == [
        "/home/me/runs/x is a folder of the driver's machine, which 10.0.0.2, 10.0.0.3, 10.0.0.4 and 3 more can't see"
    ]
    assert "s3://" in found[0][0].way_out
    assert "mount" in found[0][0].way_out


def test_a_shared_mount_that_one_node_lacks_leaves_that_node_out() -> None:
    found = judge_nodes("/mnt/runs/x", VIEW, [node(1), node(2), node(3, out=[ELSEWHERE])])
    assert found[1] == {"10.0.0.3": ELSEWHERE}
    assert problems(found) == []


def test_raylets_on_one_machine_share_its_folders() -> None:
    assert judge_nodes("/home/me/runs/x", VIEW, [node(1), node(2, beside_driver=True)]) == ([], {})


def test_a_driver_that_cannot_write_ends_the_run() -> None:
    driver = replace(VIEW, out=["can't be written to: denied"])
    (text,) = problems(judge_nodes(OUT, driver, [node(1), node(2)]))
    assert text == f"{OUT} from the driver: can't be written to: denied"


def test_faults_of_a_node_leave_it_out_with_all_reasons() -> None:
    nodes = [node(1), node(2), node(3, out=["can't be written to: denied"], clock_error=1200.0)]
    findings, sick = judge_nodes(OUT, VIEW, nodes)
    assert sick == {"10.0.0.3": "can't be written to: denied; the clock is 20 minutes ahead of the driver's"}
    assert [(finding.check, finding.status) for finding in findings] == [("out", "warning"), ("clock", "warning")]
    assert all("10.0.0.3" in finding.found for finding in findings)


def test_an_image_that_others_can_read_leaves_a_node_out() -> None:
    findings, sick = judge_nodes(OUT, VIEW, [node(1), node(2, unread={"s3://photos/a.jpg": DENIED})])
    assert sick == {"10.0.0.2": f"can't read s3://photos/a.jpg ({DENIED}), which others can"}
    assert findings[0].check == "images"


def test_an_image_that_nobody_can_read_is_the_images_fault() -> None:
    unread = {"s3://photos/a.jpg": "FileNotFoundError: no such file"}
    assert judge_nodes(OUT, replace(VIEW, unread=unread), [node(1, unread=unread), node(2, unread=unread)]) == ([], {})


def test_an_image_that_one_node_alone_can_read_leaves_the_others_out() -> None:
    unread = {"/photos/a.jpg": "FileNotFoundError: no such file"}
    _, sick = judge_nodes(OUT, replace(VIEW, unread=unread), [node(1, unread=unread), node(2)])
    assert list(sick) == ["10.0.0.1"]


def test_a_node_whose_process_dies_is_left_out_and_a_late_one_is_only_named() -> None:
    nodes = [node(1), node(2, view="no task could run there: it crashed", silence="died")]
    nodes.append(node(3, view="it didn't answer", silence="late"))
    findings, sick = judge_nodes(OUT, VIEW, nodes)
    assert sick == {"10.0.0.2": "no task could run there: it crashed"}
    assert findings[0].found == "10.0.0.3 did not answer within 30 s and are not checked"


def test_a_node_where_raypipe_is_not_ends_the_run() -> None:
    text = "a task failed there: ModuleNotFoundError: No module named 'raypipe'"
    assert problems(judge_nodes(OUT, VIEW, [node(1), node(2, view=text, silence="failed")])) == [
        f"from 10.0.0.2: {text}"
    ]


def test_a_head_that_runs_nothing_does_not_keep_a_run_alive() -> None:
    head = node(1, resources={})
    found = judge_nodes(OUT, VIEW, [head, node(2, clock_error=900.0), node(3, clock_error=900.0)])
    assert problems(found) == [
        "no node is left: from 10.0.0.2, 10.0.0.3: the clock is 15 minutes ahead of the driver's"
    ]
    assert problems(judge_nodes(OUT, VIEW, [head, node(2, clock_error=900.0), node(3)])) == []


def test_a_node_that_lacks_a_package_is_left_out() -> None:
    findings, sick = judge_nodes(OUT, VIEW, [node(1), node(2, lacking=("onnxruntime",))])
    assert sick == {"10.0.0.2": "onnxruntime not installed"}
    assert [(finding.check, finding.status) for finding in findings] == [("packages", "warning")]
