from xml.etree import ElementTree as ET

import numpy as np

from raypipe.reports.confusions import MAX_CLASSES, biggest_confusions, heat_map, row_shares, shown_classes

NAMES = ("background", "dog", "cat")


def test_rows_sum_to_one_where_a_class_has_pixels():
    assert row_shares(np.array([[1, 3], [0, 0]])).tolist() == [[0.25, 0.75], [0, 0]]


def test_biggest_confusions_by_hand():
    matrix = np.array([[900, 100, 0], [20, 60, 20], [0, 0, 40]])
    rows = [(row["truth"], row["mask"]) for row in biggest_confusions(matrix, NAMES)]
    # 100 of 160 dog masks are background; 20 of 60 cat masks are dog; 20 of 100 dogs are lost to the background
    assert rows == [("background", "dog"), ("dog", "cat"), ("dog", "background")]
    first = biggest_confusions(matrix, NAMES)[0]
    assert (first["pixels"], first["of_truth"], first["of_mask"]) == (100, 0.1, 0.625)


def test_a_perfect_mask_confuses_nothing():
    assert biggest_confusions(np.diag([5, 5, 0]), NAMES) == []


def test_many_classes_leave_the_background_and_the_worst():
    matrix = np.eye(100, dtype=np.int64) * 10
    matrix[70, 71] = 90
    shown = shown_classes(matrix)
    assert len(shown) == MAX_CLASSES
    assert {0, 70} <= set(shown)
    assert shown_classes(np.diag([1, 0, 1])) == [0, 2]


def test_heat_map_is_an_element_with_texts_and_escaped_names():
    svg = heat_map(np.array([[3, 1], [0, 2]]), ("background", "<b>&"), description='"what"')
    root = ET.fromstring(svg)  # noqa: S314
    assert root.attrib["aria-label"] == '"what"'
    titles = [element.text for element in root.iter() if element.tag.endswith("title")]
    assert titles == [
        "background taken for background: 75.0 %",
        "background taken for <b>&: 25.0 %",
        "<b>& taken for <b>&: 100.0 %",
    ]


def test_an_empty_matrix_is_an_empty_map():
    ET.fromstring(heat_map(np.zeros((3, 3), np.int64), NAMES, description="d"))  # noqa: S314
