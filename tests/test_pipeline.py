"""From a recording on disk to a stored transcript."""

import json
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server import NANO
from transcription import errors, jobs
from transcription.models import Job, Section, Worker
from transcription.queue import jobs as queue_jobs
from transcription.sound import audio
from transcription.sound.speech import SpeechFinder
from transcription.whisper.options import TranscriptionOptions
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
    assert job.pcm_paths == []


def a_call(job: Job, folder: Path) -> None:
    """Give a job a recording with a sentence in each of two channels, to be transcribed apart."""
    first, second = (NANO / "nano" / name for name in ("bears.wav", SENTENCE))
    graph = "[0:a]aresample=16000,apad=pad_dur=4[x];[1:a]aresample=16000,adelay=4000[y];"
    command = [audio.ffmpeg_path(), "-v", "error", "-y", "-i", first, "-i", second, "-filter_complex"]
    call = folder / "call.wav"
    subprocess.run([*command, f"{graph}[x][y]join=inputs=2:channel_layout=stereo", call], check=True)
    job.recording.path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(call, job.recording.path)
    Job.objects.update(options=TranscriptionOptions(channels="separate").to_json())


@pytest.mark.parametrize("act", [jobs.delete, end])
def test_a_job_that_goes_leaves_no_sound_of_its_channels(
    job: Job, worker: Worker, tmp_path: Path, act: Callable[[Job], None]
) -> None:
    a_call(job, tmp_path)
    claim = queue_jobs.claim_job(worker)
    assert claim is not None
    with pytest.raises(errors.LeaseLost):
        pipeline.prepare(claim, SpeechFinder(), Meanwhile(lambda: act(Job.objects.get(pk=job.pk))))
    assert job.pcm_paths == []


def test_each_channel_has_its_own_sections_in_the_order_of_time(job: Job, worker: Worker, tmp_path: Path) -> None:
    a_call(job, tmp_path)
    finder = SpeechFinder()
    claim = queue_jobs.claim_job(worker)
    assert claim is not None

    pipeline.prepare(claim, finder, threading.Event())

    cut = Section.objects.filter(job=job).order_by("index").values_list("channel", flat=True)
    assert list(cut) == [1, 2]
    assert sorted(path.name for path in job.pcm_paths) == [f"{job.pk}.pcm-1", f"{job.pk}.pcm-2"]

    queue_jobs.fail(job.pk, errors.WorkerLost(attempts=1))
    assert job.pcm_paths == []
    queue_jobs.retry(job.pk)
    again = queue_jobs.claim_job(worker)
    assert again is not None
    pipeline.prepare(again, finder, threading.Event())
    finder.stop()

    assert Section.objects.filter(job=job).count() == 2
    assert len(job.pcm_paths) == 2
    assert jobs.delete(Job.objects.get(pk=job.pk))
    assert job.pcm_paths == []
