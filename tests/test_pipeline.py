"""From a recording on disk to a stored transcript."""

import json
import shutil
import threading
from collections.abc import Callable

import pytest

from tests.server import NANO
from transcription import errors, jobs
from transcription.models import Job, Worker
from transcription.queue import jobs as queue_jobs
from transcription.sound.speech import SpeechFinder
from transcription.workers import pipeline

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.heavy]

SENTENCE = json.loads((NANO / "nano" / "sentences.json").read_text())[0]["file"]


class Meanwhile(threading.Event):
    """Never set; something happens when it is first asked, which FFmpeg's last beat does."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self.acts = [act]

    def is_set(self) -> bool:
        while self.acts:
            self.acts.pop()()
        return False


def end(job: Job) -> None:
    queue_jobs.fail(job.pk, errors.WorkerLost(attempts=1))


@pytest.mark.parametrize("act", [jobs.delete, end])
def test_a_job_that_goes_while_it_is_prepared_leaves_no_decoded_sound(
    job: Job, worker: Worker, act: Callable[[Job], None]
) -> None:
    job.recording.path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(NANO / "nano" / SENTENCE, job.recording.path)
    claim = queue_jobs.claim_job(worker)
    assert claim is not None
    with pytest.raises(errors.LeaseLost):
        pipeline.prepare(claim, SpeechFinder(), Meanwhile(lambda: act(Job.objects.get(pk=job.pk))))
    assert not job.pcm_path.exists()
