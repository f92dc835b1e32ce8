"""Messages that wake workers. They carry no work, so losing or repeating one changes nothing."""

import logging

from celery import current_app
from kombu.exceptions import OperationalError

from transcription.models import Worker

log = logging.getLogger(__name__)

DEFAULT_QUEUE = "default"
DEVICE_QUEUE_PREFIX = "device."

# The names of the tasks in tasks.py, which cannot be imported here: imports point downward.
DEFAULT_TASK = "transcription.work_default"
DEVICE_TASK = "transcription.work_device"


def ring(*queues: str) -> None:
    """Wake the workers of `queues`. If the broker is down this is only logged: the sweeper rings again."""
    for queue in queues:
        task = DEFAULT_TASK if queue == DEFAULT_QUEUE else DEVICE_TASK
        try:
            current_app.send_task(task, queue=queue, ignore_result=True)
        except (OperationalError, OSError, ValueError) as error:  # ValueError: a file of the broker is damaged
            log.warning("could not ring %s: %s", queue, error)


def ring_devices() -> None:
    """Wake every device worker that is alive, with a message each: machines with the same device share a queue."""
    ring(*Worker.alive().filter(kind=Worker.Kind.DEVICE).values_list("queue", flat=True))


def ring_default() -> None:
    """Wake the default worker."""
    ring(DEFAULT_QUEUE)
