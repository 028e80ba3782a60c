"""Equal bytes in every run: of what the stages write, and of the weights after training steps."""

import hashlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from card.report import Report
from card.setting import Method, Mode, Setting, files
from card.training import TASKS, Trainer
from raypipe.stages.base import run_stages


def check_stages(report: Report, setting: Setting) -> None:
    """Files to masks twice, each time with networks that are loaded anew."""
    height, width = setting.sizes.image
    table = files([(height, width), (height, width), (width, height), (5, width), (height, width)])
    ways: list[tuple[Mode, Method]] = [("deterministic", "pamr"), ("throughput", "dcrf")]
    for mode, method in ways:
        with deterministic_ways() as missing:
            tables = [
                run_stages(setting.stages(setting.sizes.checked, mode, method), table, threads=setting.threads)
                for _ in range(2)
            ]
        failed = sum(reason is not None for reason in tables[0]["error_reason"].to_pylist())
        equal = tables[0].equals(tables[1])
        report.check(f"masks of two runs, {mode}, {method}", missing(), demanded="equal bytes", held=equal)
        report.check(f"rows in error, {mode}, {method}", failed, demanded="0", held=failed == 0)


def check_training(report: Report, setting: Setting) -> None:
    """The weights after two steps of every training, which is started twice."""
    for name in TASKS:
        with deterministic_ways() as missing:
            digests = [_digest(name, setting) for _ in range(2)]
        report.check(
            f"weights of two trainings, {name}", missing(), demanded="equal bytes", held=digests[0] == digests[1]
        )


def _digest(name: str, setting: Setting) -> str:
    trainer = Trainer(name, setting.sizes.checked, setting.device, crop_size=setting.sizes.check_side // 16 * 16)
    trainer.steps(trainer.batch(4), 2)
    sha = hashlib.sha256()
    for weight in trainer.network.state_dict().values():
        sha.update(weight.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


@contextmanager
def deterministic_ways() -> Iterator[Callable[[], str]]:
    """Catches torch's warnings; afterwards, the call names the operators that have no deterministic way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield lambda: "; ".join(
            sorted({str(each.message).split(" does not")[0] for each in caught if "determinist" in str(each.message)})
        )
