import threading
import time

from raypipe import progress


def test_only_work_can_stall() -> None:
    assert progress.seconds_stalled() == 0
    with progress.working():
        time.sleep(0.02)
        assert progress.seconds_stalled() >= 0.02
        with progress.waiting():
            time.sleep(0.02)
            assert progress.seconds_stalled() == 0
            with progress.working():
                assert progress.seconds_stalled() < 0.02
            assert progress.seconds_stalled() == 0
        assert progress.seconds_stalled() < 0.02
    assert progress.seconds_stalled() == 0


def test_what_gets_on_says_so_and_where() -> None:
    with progress.working():
        time.sleep(0.02)
        progress.tick("ComputeCams")
        assert progress.seconds_stalled() < 0.02
        progress.tick()
        assert progress.where() == "ComputeCams"


def test_who_waits_without_having_worked_hides_nobody_elses_stall() -> None:
    waits, done = threading.Event(), threading.Event()

    def wait() -> None:
        with progress.waiting():
            waits.set()
            done.wait()

    with progress.working():
        thread = threading.Thread(target=wait)
        thread.start()
        waits.wait()
        time.sleep(0.02)
        assert progress.seconds_stalled() >= 0.02
        done.set()
        thread.join()
