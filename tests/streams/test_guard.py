import threading
import time

from raypipe.streams.guard import Gate


def test_calls_run_together_unless_one_wants_to_be_alone() -> None:
    gate, inside, seen = Gate(), [], []
    lock = threading.Lock()

    def call(number: int, *, alone: bool) -> None:
        with gate.entered(alone=alone):
            with lock:
                inside.append(number)
                seen.append((alone, len(inside)))
            time.sleep(0.05)
            with lock:
                inside.remove(number)

    threads = [threading.Thread(target=call, args=(number,), kwargs={"alone": number % 3 == 0}) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(seen) == 9
    assert all(number == 1 for alone, number in seen if alone)
    assert max(number for _, number in seen) > 1
