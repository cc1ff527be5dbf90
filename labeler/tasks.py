"""THE bridge: what a worker is asked to do. `execute` carries out a run, `answer` a request, `take_in` an
import, and a thread beside them sweeps for rows that nobody works on.

A message is only a doorbell, so each task begins by claiming its row; who does not get it, goes. Left out:
what may become of a row (labeler/models), the trainer's process (trainer.py), its lines (follower.py), the
warm child that samples (answers.py)."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from celery.signals import worker_ready
from celery.worker import state as node
from django.db import DatabaseError, connection

from labeler import answers, backbone, capacity, composing
from labeler.celery import HEARD, QUEUES, app, is_stopping
from labeler.follower import Follower
from labeler.intake.work import carry_out as carry_out_import
from labeler.models import Checkpoint, Evaluation, Import, Part, Project, Request, Run, StaleQuintet
from labeler.models.runs import LEASE, FencedOff
from labeler.trainer import PATIENCE, Trainer
from rlhf.config import Refused

HEARTBEAT = 10.0  # seconds
GIVE_UP = LEASE.total_seconds() - 5  # without a renewal: before anybody else may claim the row
TICK = 0.5
SWEEP = 15.0
TRY_AGAIN = 75  # the exit status of a trainer that was interrupted

logger = logging.getLogger(__name__)


class Lease:
    """Keeps a claimed row this attempt's, from threads of its own. When that is no longer sure, `lost` is set
    and `stop` is called, which ends what works under it. The thread that watches the clock knows no database:
    a server that does not answer cannot keep it waiting."""

    def __init__(self, renew: Callable[[], bool], stop: Callable[[], None]):
        self.renew, self.stop = renew, stop
        self.lost, self._over = threading.Event(), threading.Event()
        self._renewed_at = time.monotonic()

    def __enter__(self) -> "Lease":
        for work in (self._keep, self._watch):
            threading.Thread(target=work, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()

    def _keep(self) -> None:
        while not self._over.wait(HEARTBEAT):
            began = time.monotonic()
            try:
                if not self.renew():
                    return self._give_up()
                self._renewed_at = began
            except DatabaseError as error:
                logger.warning("A lease could not be renewed: %s", error)
            finally:
                connection.close()

    def _watch(self) -> None:
        while not self._over.wait(1):
            if time.monotonic() - self._renewed_at > GIVE_UP:
                return self._give_up()

    def _give_up(self) -> None:
        if not self._over.is_set():
            self.lost.set()
            self.stop()


@app.task(name="execute")
def execute(run_id: int) -> None:
    """Carry out the run whose turn it is, or go on with it; as a rule the one that was rung for."""
    run = None if is_stopping() else Run.objects.claim_next(socket.gethostname())
    if run is None:
        return
    logger.info("Run %s: attempt %s.", run.pk, run.attempt)
    trainer = Trainer(run.directory)
    with Lease(run.renew, lambda: trainer.signal(signal.SIGKILL)) as lease:
        try:
            carry_out(run, trainer, lease)
        except FencedOff:
            logger.warning("Run %s no longer belongs to attempt %s.", run.pk, run.attempt)
        finally:
            trainer.signal(signal.SIGKILL)
    for request in Request.objects.claimable():  # it may have waited for this run's memory
        request.ring()
    if run.contenders.exists():
        composing.attend()
    backbone.attend()


def carry_out(run: Run, trainer: Trainer, lease: Lease) -> None:
    """From the claim to the end of the attempt. Raises FencedOff."""
    try:
        run.prepare_directory()
        wait_for_answers(lease)
        trainer.start()
    except (OSError, Refused) as error:
        reason = (
            str(error)
            if isinstance(error, Refused) or not error.strerror
            else f"{error.strerror}: {error.filename}"
        )
        return insist(lambda: end(run, Run.State.FAILED, reason=reason), lease)
    follower = Follower(run)
    interrupted = accompany(run, trainer, follower, lease)
    insist(lambda: conclude(run, trainer, follower, interrupted), lease)


def wait_for_answers(lease: Lease) -> None:
    """Whoever is being answered at this moment may need the memory for a little longer."""
    until = time.monotonic() + PATIENCE
    while Request.objects.being_answered().exists() and time.monotonic() < until and not lease.lost.is_set():
        time.sleep(TICK)


def accompany(run: Run, trainer: Trainer, follower: Follower, lease: Lease) -> bool:
    """Follow the trainer to its end; whether that came because this worker has to go. Raises FencedOff."""
    node_pid, interrupted, away = os.getppid(), False, False
    while not trainer.wait(TICK) and not lease.lost.is_set():
        try:
            follower.catch_up()
            if run.mine().filter(cancel_requested=True).exists():
                trainer.cancel()
            away = False
        except DatabaseError as error:  # the trainer can do without it for as long as the lease lasts
            if not away:
                logger.warning("Run %s is not followed while the database is away: %s", run.pk, error)
            away = True
            connection.close()
        if is_stopping() or os.getppid() != node_pid:  # told to end, or the node was killed over our head
            trainer.interrupt()
            interrupted = True
        trainer.press()
    if lease.lost.is_set():
        raise FencedOff
    return interrupted


def conclude(run: Run, trainer: Trainer, follower: Follower, interrupted: bool) -> None:
    """Read what is left, and write down how it ended. Raises FencedOff."""
    while follower.catch_up(to_the_end=True):
        pass
    if result := trainer.result():
        said = {name: result.get(name) or "" for name in ("reason", "remedy", "field")}
        mark_suggested(run, result)
        return end(run, result["state"], result=result, **said)
    reason, remedy = trainer.how_it_ended()
    if trainer.status == TRY_AGAIN or interrupted:
        run.give_back()
    elif trainer.was_killed:
        run.give_back(lost=True, because=reason, remedy=remedy)
    else:
        end(run, Run.State.FAILED, reason=reason, remedy=remedy)


def end(run: Run, state: str, **said: Any) -> None:
    with run.held() as row:
        if run.kind in (Run.Kind.REWARD, Run.Kind.EVALUATION):
            Evaluation.objects.keep(row)
        row.end(state, **said)
        if state == Run.State.FINISHED and run.kind in (Run.Kind.REWARD, Run.Kind.ROLLOUTS):
            Request.objects.keep_ordered(row.project)
    logger.info("Run %s: %s.%s", run.pk, state, f" {said['reason']}" if said.get("reason") else "")


def mark_suggested(run: Run, result: dict[str, Any]) -> None:
    """The checkpoint that the run proposes to use: for a policy the last one before the crop."""
    proposed = result.get("suggested") or result.get("checkpoint") or ""
    location = f"{run.directory.name}/{proposed}"
    Checkpoint.objects.filter(run=run).update(suggested=False)
    Checkpoint.objects.filter(run=run, location__endswith=location).update(suggested=bool(proposed))


def insist(write: Callable[[], None], lease: Lease) -> None:
    """Write down how it ended even when the database is away for a moment. Raises FencedOff."""
    while not lease.lost.is_set():
        try:
            return write()
        except DatabaseError as error:
            logger.warning("The database does not answer: %s", error)
            connection.close()
            time.sleep(TICK)
    raise FencedOff


@app.task(name="answer")
def answer(request_id: int) -> None:
    """Answer a request, or leave it waiting while a run needs the memory."""
    if is_stopping():
        return
    if (waiting := answers.what_for()) and not Request.objects.needs_no_model(request_id):
        return Request.objects.put_off(request_id, waiting)
    request = Request.objects.claim(request_id)
    if request is None:
        return
    with Lease(request.renew, answers.warm.kill):
        try:
            request.answer_with(answers.answer(request))
        except answers.Unanswerable as unanswerable:
            request.fail(unanswerable.reason, unanswerable.remedy)
        except answers.Later as later:
            request.give_back(str(later))
            for each in Request.objects.others_first(request):
                each.ring()
        except answers.Interrupted:
            request.give_back()
        except DatabaseError:
            raise  # the next attempt may find it there again
        except Exception as error:  # the same would meet the next one
            logger.exception("Request %s could not be answered.", request.pk)
            words = f"{type(error).__name__}: {error}"
            request.fail(words[:500], "The worker's log tells where it happened.")


@app.task(name="take_in")
def take_in(import_id: int) -> None:
    """Import a file, or take out again what it brought. A worker that goes leaves it to the next, and what
    was not finished has never been."""
    found = None if is_stopping() else Import.objects.claim(import_id)
    if found:
        logger.info("Import %s: attempt %s.", found.pk, found.attempt)
        carry_out_import(found, is_stopping)


@app.task(name="hello")
def hello(token: str) -> None:
    """Say in the database that somebody came, to whoever asks how the installation is (doctor.py)."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, %s)", [HEARD, token])


# The sweep


@worker_ready.connect
def begin_to_sweep(sender: Any, **_: Any) -> None:
    """From the node's main process, which no task can keep busy. A second "ready" (after the broker was away)
    finds the thread there."""
    names = {thread.name for thread in threading.enumerate()}
    if "sweep" not in names:
        queues = set(sender.app.amqp.queues.consume_from)
        threading.Thread(target=_keep_sweeping, args=[queues], name="sweep", daemon=True).start()


def _keep_sweeping(queues: set[str]) -> None:
    if QUEUES["execute"] in queues:
        try:
            capacity.tell()
        except OSError as error:
            logger.warning("What this machine has could not be told: %s", error)
    while not is_stopping():
        try:
            sweep(queues)
        except DatabaseError as error:
            logger.warning("The sweep comes again when the database does: %s", error)
        except Exception:  # one row that nobody expected must not end the sweep for all others
            logger.exception("The sweep met something odd, and comes again.")
        finally:
            connection.close()
        time.sleep(SWEEP)


def sweep(queues: set[str]) -> None:
    """Ring for every row of these queues that waits, its message lost or its worker dead; then look at the
    face-offs, take rounds that run by themselves further, and bring what was ranked into the sums of
    agreement. A node that is busy does none of it: who is idle does it."""
    if node.active_requests:
        return
    if QUEUES["answer"] in queues:
        for request in Request.objects.claimable():
            request.ring()
        Request.objects.end_stale()
        Request.objects.prune()
        Part.objects.prune()
        for each in Import.objects.claimable():
            each.ring()
    if QUEUES["execute"] in queues:
        for project in Project.objects.filter(keep_waiting__gt=0, start__isnull=False):
            Run.objects.top_up(project)
        for run in Run.objects.claimable().in_turn():
            run.ring()
    composing.attend()
    backbone.attend()
    if StaleQuintet.objects.exists():
        from labeler.agreement.folding import fold_all  # with numpy, which nothing else here needs

        fold_all()
