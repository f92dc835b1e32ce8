"""Producers and consumers of the embedded broker, for processes of their own: nothing of Django is imported here."""

from pathlib import Path

from kombu import Connection

import config.celery  # noqa: F401  it registers the scheme

POLLING = 0.01  # seconds


def connect(folder: Path) -> Connection:
    return Connection("files://", transport_options={"folder": str(folder), "polling_interval": POLLING})


def publish(connection: Connection, *bodies: object) -> None:
    producer = connection.Producer()
    for body in bodies:
        producer.publish(body, routing_key="q")


def produce(folder: Path, numbers: range) -> None:
    with connect(folder) as connection:
        publish(connection, *numbers)


def consume(folder: Path, notes: Path, acknowledging: bool) -> None:
    """Note each message that comes, for ever."""
    with connect(folder) as connection, connection.SimpleQueue("q") as queue, notes.open("a", buffering=1) as lines:
        while True:
            message = queue.get()
            if acknowledging:
                message.ack()
            lines.write(f"{message.payload}\n")
