"""Settings of a server whose broker loses a fifth of the messages and gives near a third twice."""

import random
from typing import Any

from config.settings import *  # noqa: F403
from config.settings import CELERY_BROKER_URL

if CELERY_BROKER_URL.startswith("redis"):
    from kombu.transport import redis as broker
else:
    from config import file_broker as broker

LOST, DOUBLED = 0.2, 0.3


class Channel(broker.Channel):
    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:
        chance = random.random()
        for _ in range(0 if chance < LOST else 2 if chance < LOST + DOUBLED else 1):
            super()._put(queue, payload, **kwargs)


class Transport(broker.Transport):
    Channel = Channel


CELERY_BROKER_TRANSPORT = "tests.faults.lossy:Transport"
