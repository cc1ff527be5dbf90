"""The doorbell: Celery's app, its two queues and how they are rung.

A message only says "look at this row"; it is acknowledged before anything is done, and a lost one costs
seconds, because the sweep in tasks.py rings again. What is done when it rings is there as well. The broker
is a queue inside the same Postgres, or Valkey/Redis where settings.BROKER_URL names one."""

import logging
import mmap
import os

import psycopg
from celery import Celery
from celery.signals import worker_shutting_down
from django.conf import settings
from kombu import Queue
from kombu.exceptions import OperationalError
from psycopg.conninfo import make_conninfo

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "labeler.settings")

logger = logging.getLogger(__name__)

QUEUES = {"execute": "runs", "answer": "interactive", "take_in": "interactive"}
HEARD = "quintet_heard"  # where a worker that was called says so, for whoever listens in the database
# Shared with the pool process that the worker forks: the one hears signals, the other is busy with a task.
_stopping = mmap.mmap(-1, 1)


def _postgres() -> dict:
    """Transport options for the queue in Postgres. A URL, or DATABASE_URL from the environment, would be
    misread where the server listens on a socket; keywords are not."""
    database = settings.DATABASES["default"]
    known = {
        "host": database["HOST"],
        "port": database["PORT"],
        "dbname": database["NAME"],
        "user": database["USER"],
        "password": database["PASSWORD"],
    }
    return {
        "conn_string": make_conninfo(**{name: str(value) for name, value in known.items() if value}),
        "init_extension": False,  # installed as a schema by labeler.postgres.install_queues
        "wait_time_seconds": 0,
        "use_notify": True,
        "pool_size": 4,
        "pool_timeout": 3,
    }


def _redis() -> dict:
    return {"global_keyprefix": "quintet:", "socket_connect_timeout": 3, "socket_timeout": 10}


# Who rings does not stand at a door that stays shut: one try. (A worker's own connection tries for ever.)
ONE_TRY = {"max_retries": 1, "interval_start": 0, "interval_step": 0}

app = Celery("quintet", include=["labeler.tasks"])
app.conf.update(
    broker_url=settings.BROKER_URL or "pgmq://localhost",  # the host is only a word: conn_string decides
    broker_transport_options=ONE_TRY | (_redis() if settings.BROKER_URL else _postgres()),
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_pool_limit=2,
    accept_content=["json"],
    task_serializer="json",
    task_ignore_result=True,
    task_acks_late=False,
    task_queues=[Queue(name) for name in dict.fromkeys(QUEUES.values())],
    task_default_queue="runs",
    task_routes={task: {"queue": queue} for task, queue in QUEUES.items()},
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,  # its queues' names are too long for Postgres
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
)


def ring(task: str, pk: int) -> None:
    """Say that a row waits. Where the broker does not answer nothing is lost: the sweep finds the row."""
    try:
        app.send_task(task, [pk], retry=False)
    except (OperationalError, psycopg.Error, OSError) as error:
        logger.warning("The broker did not take %s(%s), the sweep will: %s", task, pk, error)


@worker_shutting_down.connect
def _say_so(**_) -> None:
    _stopping[0] = 1


def is_stopping() -> bool:
    """Whether this worker was asked to end, so that the task in hand should give its row back."""
    return bool(_stopping[0])
