from raypipe.formats.palette import voc_colors


def test_voc_colours_are_those_of_the_development_kit() -> None:
    colors = voc_colors()
    known = {0: [0, 0, 0], 1: [128, 0, 0], 2: [0, 128, 0], 15: [192, 128, 128], 20: [0, 64, 128], 255: [224, 224, 192]}
    assert {index: colors[index].tolist() for index in known} == known
