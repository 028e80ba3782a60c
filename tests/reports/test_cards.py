from raypipe.reports.cards import COLUMNS, columns_of, draw_columns, sample_cards


def test_samples_beyond_the_limit_are_counted(make_sample):
    samples = [make_sample(str(number)) for number in range(5)]
    one, _ = sample_cards(samples[:1])
    size = sum(len(picture) for picture in one["best"][0]["pictures"].values())
    cards, num_left_out = sample_cards(iter(samples), max_bytes=2 * size - 1)
    assert [card["image_id"] for card in cards["best"]] == ["0", "1"]
    assert num_left_out == 3


def test_columns_are_those_that_any_card_has(make_sample):
    cards, _ = sample_cards([make_sample(mask=None, segment=None), make_sample(mask=None, truth=None)])
    assert columns_of(cards) == ["photograph", "CAM", "affinity", "random walk", "segmenter", "truth"]
    assert columns_of({"best": []}) == []


def test_columns_have_one_size(make_sample):
    pictures = draw_columns(make_sample(size=(480, 640)))
    assert tuple(pictures) == COLUMNS
    assert {picture.shape for picture in pictures.values()} == {(240, 320, 3)}


def test_what_is_missing_is_none(make_sample):
    pictures = draw_columns(make_sample(affinity=None, mask=None, segment=None, truth=None))
    assert [name for name, picture in pictures.items() if picture is None] == [
        "affinity",
        "refined",
        "segmenter",
        "truth",
    ]
