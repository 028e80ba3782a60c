from raypipe import storage


def test_digest_ignores_the_order_of_keys() -> None:
    assert storage.digest({"a": 1, "b": 2}) == storage.digest({"b": 2, "a": 1})
    assert storage.digest({"a": 1}) != storage.digest({"a": 2})
    assert len(storage.digest([])) == 12
