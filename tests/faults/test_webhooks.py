"""A worker that dies while it delivers: the message comes once more, and is known by its id."""

import os
import signal
from uuid import UUID

from tests.receiver import Receiver
from tests.server import NANO, QUICKLY, Server, wait_until


def test_a_message_that_a_killed_worker_was_sending_is_sent_once_more_under_its_id(nano_server: Server) -> None:
    receiver = Receiver()
    receiver.goes_on.clear()
    with receiver.serving() as url:
        job = nano_server.submit(NANO / "nano" / "bears.wav", callback_url=url, **QUICKLY)
        wait_until(lambda: receiver.got, 60)
        os.kill(nano_server.worker_pid("default"), signal.SIGKILL)
        receiver.goes_on.set()
        wait_until(lambda: len(receiver.got) == 2)
        delivered = "SELECT status, attempts FROM transcription_delivery WHERE job_id = ?"
        wait_until(lambda: nano_server.rows(delivered, UUID(job["id"]).hex) == [("delivered", 1)])
    first, second = receiver.got
    assert first.id == second.id
    assert first.body == second.body
    assert second.told["data"]["id"] == job["id"]
    assert nano_server.job(job["id"])["status"] == "done"
