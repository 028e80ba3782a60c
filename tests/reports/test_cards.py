from raypipe.reports.cards import columns_of, sample_cards


def test_samples_beyond_the_limit_are_counted(make_sample):
    samples = [make_sample(str(number)) for number in range(5)]
    one, _ = sample_cards(samples[:1], {})
    size = sum(len(picture) for picture in one["best"][0]["pictures"].values())
    cards, num_left_out = sample_cards(iter(samples), {}, max_bytes=2 * size - 1)
    assert [card["image_id"] for card in cards["best"]] == ["0", "1"]
    assert num_left_out == 3


def test_columns_are_those_that_any_card_has(make_sample):
    cards, _ = sample_cards([make_sample(mask=None, segment=None), make_sample(mask=None, truth=None)], {})
    assert columns_of(cards) == ["photograph", "CAM", "affinity", "random walk", "segmenter", "truth"]
    assert columns_of({"best": []}) == []
