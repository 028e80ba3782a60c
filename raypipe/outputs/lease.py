"""One writer at a time: a lease on a folder, which its holder renews, and which another one takes over if it dies.

The lease is the file with the highest number in `<folder>/lease/`. The number, its epoch, is taken by creating the
file, which storage lets one process do, and the holder renews its lease by writing the file anew. Whoever finds a lease
watches, by its own clock, whether the file changes: clocks of two machines are never compared.

Two holders never overlap: one that could not renew for three quarters of `takeover`, whatever kept it, has lost its
lease for good, and nobody takes it over before `takeover` has passed without a change. This holds as far as
`storage.create_exclusive` keeps its promise. On a store without conditions, two that start within the same moment may
both begin; the first heartbeat tells one of them that the lease is not its own.
"""

import json
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from raypipe import storage
from raypipe.messages.codes import SURROUNDINGS
from raypipe.processes import Process, this_process
from raypipe.uri import name_of

logger = logging.getLogger(__name__)

LEASE = "lease"
"""Folder, within the folder that is leased, of its lease."""

BEAT = 2.0
"""Seconds between two renewals."""

TAKEOVER = 60.0
"""Seconds without a renewal after which another one takes the lease."""

_EXPIRES = 0.75
"""Part of `takeover` after which the holder itself counts its lease as lost."""


class FolderInUse(RuntimeError):  # noqa: N818 - says what is wrong
    """Another process writes to the folder."""

    exit_code = SURROUNDINGS


class LeaseLost(RuntimeError):  # noqa: N818 - says what happened
    """This process must write no more: another one may have begun."""

    exit_code = SURROUNDINGS


@dataclass(frozen=True, kw_only=True)
class _Record:
    """What a lease's file says."""

    epoch: int
    nonce: str
    holder: str
    process: Process
    started: str
    beat: int = 0
    released: bool = False

    def __str__(self) -> str:
        return f"{self.holder} (process {self.process.pid} on {self.process.host}, since {self.started})"


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, for those who don't want it."""

    text: str
    epoch: int
    started: datetime
    """UTC."""


class Lease:
    """The right to write to a folder, as long as `check` raises nothing."""

    def __init__(self, folder: str, record: _Record, *, renewed: float, expires: float) -> None:
        self._folder, self._record = folder, record
        self._renewed, self._expires = renewed, expires
        self._lost: str | None = None

    @property
    def epoch(self) -> int:
        """Grows by one with every holder; 1 is the folder's first."""
        return self._record.epoch

    def check(self) -> None:
        """Makes sure that this process still holds the lease; asks no storage.

        Raises:
            LeaseLost: if another one has taken it, or may take it because it could not be renewed for too long.
        """
        if self._lost is None and (age := _clock() - self._renewed) > self._expires:
            self._lost = f"was not renewed for {age:.0f} s, because storage was away or this process stood still"
        if self._lost:
            raise LeaseLost(
                f"the lease on {self._folder} {self._lost}: this run stops before it mixes its outputs with another's; "
                "start it again when the folder is free, and it goes on where it was"
            )

    def renew(self) -> None:
        """Writes a heartbeat, unless the lease is lost."""
        began = _clock()
        self.check()
        latest = _latest(self._folder)
        if latest is None:
            self._lost = "was deleted"
        elif latest.nonce != self._record.nonce:
            self._lost = f"was taken over by {latest}"
        self.check()
        self._write(replace(self._record, beat=self._record.beat + 1))
        self.check()  # a renewal that comes too late is none: someone may have begun meanwhile
        self._renewed = began

    def release(self) -> None:
        """Lets the next one in at once, unless the lease is lost."""
        self.check()
        self._write(replace(self._record, released=True))

    def _write(self, record: _Record) -> None:
        storage.write_bytes_atomic(_uri(self._folder, record.epoch), _encode(record))
        self._record = record


@contextmanager
def hold(folder: str, *, holder: str, beat: float = BEAT, takeover: float = TAKEOVER) -> Iterator[Lease]:
    """Holds the lease on a folder while the block runs, in one process at a time, and renews it in a thread.

    A lease whose holder has ended, cleanly or provably, is taken at once. Otherwise this waits: until the holder is
    seen alive, or has shown no sign of life for `takeover`.

    Args:
        folder: URI of what is written to.
        holder: who holds it, in words; others read it when they are refused.
        beat: seconds between two renewals.
        takeover: seconds without a renewal after which the lease is taken over; the same for all that use the folder.

    Yields:
        The lease; its `check` belongs before everything that must not be done by two.

    Raises:
        FolderInUse: another process holds the lease and is alive.
        ValueError: the lease's file can't be read.
    """
    lease = _acquire(folder, holder, poll=beat / 2, takeover=takeover)
    ended = threading.Event()
    thread = threading.Thread(target=_keep, args=(lease, ended, beat), name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        ended.set()
        thread.join(timeout=5 * beat)  # storage that doesn't answer must not keep the run from ending
        if thread.is_alive():
            logger.warning("the lease on %s can't be released, for storage doesn't answer", folder)
        else:
            _release(lease)


def find_holder(folder: str) -> Holder | None:
    """Who writes to a folder now, as far as its lease tells; None where nobody does.

    A holder on another machine that has ended without a word still stands there.
    """
    latest = _latest(folder)
    if latest is None or latest.released or latest.process.has_ended():
        return None
    return Holder(str(latest), latest.epoch, datetime.fromisoformat(latest.started))


def check_epoch(folder: str, epoch: int) -> None:
    """Makes sure that no later holder has begun: for tasks of a holder, which can't ask its lease.

    Raises:
        LeaseLost: if one has.
    """
    epochs = _epochs(folder)
    if epochs and epochs[-1] > epoch:
        raise LeaseLost(f"{folder}: another run (number {epochs[-1]}) has begun, and this one (number {epoch}) is over")


def _release(lease: Lease) -> None:
    try:
        with suppress(LeaseLost):  # there is nothing to release; who needs to know has called `check`
            lease.release()
    except Exception as error:  # noqa: BLE001 - each storage has errors of its own; the outputs are complete without it
        logger.warning("a lease can't be released, so that the next run waits for a while: %r", error)


def _keep(lease: Lease, ended: threading.Event, beat: float) -> None:
    """Renews a lease until it ends or is lost."""
    failing = False
    while not ended.wait(beat):
        try:
            lease.renew()
            failing = False
        except LeaseLost as error:
            logger.error("%s", error)  # noqa: TRY400 - the thread's trace says nothing
            return
        except Exception as error:  # noqa: BLE001 - each storage has errors of its own; how long they last decides
            if not failing:
                logger.warning("a lease could not be renewed, which is tried again every %g s: %r", beat, error)
            failing = True


def _acquire(folder: str, holder: str, *, poll: float, takeover: float) -> Lease:
    watched: _Record | None = None
    since = 0.0
    while True:
        looked = _clock()
        try:
            latest = _latest(folder)
        except FileNotFoundError:  # it was taken over between the listing and the look into it
            time.sleep(poll)
            continue
        silent = watched is not None and latest == watched and looked - since >= takeover
        if latest is None or latest.released or latest.process.has_ended() or silent:
            record = _Record(
                epoch=latest.epoch + 1 if latest else 1,
                nonce=uuid.uuid4().hex,
                holder=holder,
                process=this_process(),
                started=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            if _take(folder, record):
                if latest and not latest.released:
                    logger.warning("%s is taken over from %s, which has ended or stands still", folder, latest)
                return Lease(folder, record, renewed=looked, expires=_EXPIRES * takeover)
        elif watched is None:
            watched, since = latest, _clock()
            logger.warning(
                "%s is held by %s: this run waits; it ends once the other is seen alive, and takes over after %g s "
                "without a sign of life",
                *(folder, latest, takeover),
            )
        elif latest != watched:
            raise FolderInUse(
                f"{folder} is written to by {latest}, which is alive: wait until it is done, stop it, or give another "
                "`out`"
            )
        time.sleep(poll)


def _take(folder: str, record: _Record) -> bool:
    """Creates the file of an epoch, and deletes those before it; False if another one was faster."""
    if not storage.create_exclusive(_uri(folder, record.epoch), _encode(record)):
        return False
    epochs = _epochs(folder)
    # Whoever stood still since it looked may create a file that two later holders have had and deleted.
    outdated = [each for each in epochs if each < epochs[-1]]
    for epoch in outdated:
        with suppress(FileNotFoundError):
            storage.delete(_uri(folder, epoch))
    return record.epoch == epochs[-1]


def _latest(folder: str) -> _Record | None:
    """The record of who holds the lease, or held it last; None where nobody ever did."""
    epochs = _epochs(folder)
    if not epochs:
        return None
    uri = _uri(folder, epochs[-1])
    try:
        content = json.loads(storage.read_bytes(uri))
        return _Record(**content | {"process": Process(**content["process"])})
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{uri} is no lease ({error!r}): delete it once no run writes to {folder} any more") from error


def _epochs(folder: str) -> list[int]:
    uris = storage.list_files(storage.join(folder, LEASE), suffix=".json")
    return [int(name_of(uri).removesuffix(".json")) for uri in uris]


def _uri(folder: str, epoch: int) -> str:
    return storage.join(folder, LEASE, f"{epoch:08d}.json")


def _encode(record: _Record) -> bytes:
    return json.dumps(asdict(record), indent=1).encode()


def _clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # unlike other clocks it goes on while the machine sleeps
