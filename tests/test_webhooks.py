"""Messages about jobs' ends: written with the end, delivered to a real receiver, tried again, and nowhere else."""

import socket
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.urls import resolve as resolve_path
from django.utils import timezone, translation

from tests.receiver import Receiver
from tests.server import ROOT
from tests.test_addresses import leading_to, unknown
from transcription import errors, history, jobs, webhooks
from transcription.api.serializers import JobSerializer
from transcription.models import Delivery, Job, Webhook, Worker
from transcription.outbound.addresses import Allowed
from transcription.queue import deliveries, sweeper, wakeups
from transcription.queue import jobs as queue_jobs
from transcription.queue.deliveries import DeliveryClaim
from transcription.workers import retention

pytestmark = pytest.mark.django_db(transaction=True)
LOOPBACK = (Allowed.read("127.0.0.1"),)


@pytest.fixture(autouse=True)
def rung(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which queues were rung, in the place of a broker."""
    queues: list[str] = []
    monkeypatch.setattr(wakeups.current_app, "send_task", lambda name, queue, **_: queues.append(queue))
    return queues


@pytest.fixture(autouse=True)
def _loopback_is_allowed(settings: LazySettings) -> None:
    settings.WEBHOOK_ALLOWED_HOSTS = LOOPBACK
    settings.WEBHOOK_TRIES_SECONDS = [0, 30, 120, 600, 3600]


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def url(receiver: Receiver) -> Iterator[str]:
    with receiver.serving() as address:
        yield address


@pytest.fixture
def callback(job: Job, url: str) -> Job:
    """Alice's job, which has the receiver told of its end."""
    job.callback_url = url
    job.save()
    return job


def finish(job: Job, worker: Worker, text: str = "Good day.") -> None:
    Job.objects.filter(pk=job.pk).update(status="finishing")
    claim = queue_jobs.claim_finished_job(worker)
    assert claim is not None
    claim.finish(text=text, language="en")


def claimed(worker: Worker) -> DeliveryClaim:
    claim = deliveries.claim_delivery(worker)
    assert claim is not None
    return claim


def deliver(worker: Worker, **how: Any) -> Delivery:
    claim = claimed(worker)
    webhooks.deliver(claim, **how)
    return Delivery.objects.get(pk=claim.delivery)


def claimed_when_due(worker: Worker) -> DeliveryClaim:
    Delivery.objects.update(next_attempt_at=timezone.now())
    return claimed(worker)


def deliver_when_due(worker: Worker) -> Delivery:
    Delivery.objects.update(next_attempt_at=timezone.now())
    return deliver(worker)


def reasons(delivery: Delivery) -> list[str]:
    return [tried.code for tried in webhooks.tries(delivery)]


# ---------------------------------------------------------------- what is written


def test_a_done_job_is_told_and_signed(
    callback: Job, worker: Worker, receiver: Receiver, alice: User, rung: list[str]
) -> None:
    finish(callback, worker)
    assert rung[-1] == "default"
    delivery = deliver(worker)

    (message,) = receiver.got
    assert message.headers["content-type"] == "application/json"
    assert message.headers["user-agent"] == "Stenograf"
    assert message.is_signed_with(webhooks.of(alice).secret)
    assert not message.is_signed_with(webhooks.make_secret())
    assert abs(int(message.headers["webhook-timestamp"]) - timezone.now().timestamp()) < 60
    assert message.told["id"] == message.id == str(delivery.pk)
    assert message.told["type"] == "job.done"
    assert message.told["created_at"].endswith("Z")
    told = message.told["data"]
    assert told["id"] == str(callback.pk)
    facts = ("name", "status", "error", "language", "duration", "model", "text")
    assert [told[fact] for fact in facts] == ["talk.ogg", "done", None, "en", None, "nano", "Good day."]
    assert (delivery.status, delivery.claim, reasons(delivery)) == ("delivered", None, [""])
    assert webhooks.tries(delivery)[0].status_code == 204


def test_the_links_are_those_of_the_api_from_outside(callback: Job, worker: Worker, settings: LazySettings) -> None:
    settings.PUBLIC_URL = "https://stenograf.example.org/below"
    finish(callback, worker)
    links = Delivery.objects.get().data["links"]
    own = JobSerializer(Job.objects.get()).data["links"]
    absolute = {
        name: {format: settings.PUBLIC_URL + path for format, path in link.items()}
        if isinstance(link, dict)
        else settings.PUBLIC_URL + link
        for name, link in own.items()
    }
    assert {name: absolute[name] for name in links} == links
    assert resolve_path(own["self"])


def test_a_failed_job_is_told_with_its_sentence(callback: Job, worker: Worker, receiver: Receiver) -> None:
    queue_jobs.fail(callback.pk, errors.NoAudio())
    deliver(worker)
    (message,) = receiver.got
    assert message.told["type"] == "job.failed"
    told = message.told["data"]
    assert told["error"] == {"code": "no_audio", "message": errors.NoAudio.sentence}
    assert (told["status"], told["text"]) == ("failed", None)


def test_a_cancelled_job_is_told_once(callback: Job, worker: Worker, receiver: Receiver) -> None:
    assert jobs.cancel(callback)
    assert not jobs.cancel(callback)
    deliver(worker)
    assert [message.told["type"] for message in receiver.got] == ["job.cancelled"]
    assert deliveries.claim_delivery(worker) is None


def test_the_standing_address_and_the_jobs_own_are_told_once_each(callback: Job, alice: User, bob: User) -> None:
    webhooks.point(alice, callback.callback_url)
    webhooks.point(bob, "https://bob.example.org/")
    jobs.cancel(callback)
    assert Delivery.objects.count() == 1
    webhooks.point(alice, "https://alice.example.org/")
    queue_jobs.retry(callback.pk)
    Delivery.objects.all().delete()
    jobs.cancel(callback)
    assert set(Delivery.objects.values_list("url", "owner__username")) == {
        (callback.callback_url, "alice"),
        ("https://alice.example.org/", "alice"),
    }


def test_nobody_is_told_of_a_job_when_nobody_asked(job: Job, alice: User, worker: Worker) -> None:
    webhooks.point(alice, "")
    finish(job, worker)
    assert not Delivery.objects.exists()


def test_an_end_that_is_not_stored_is_not_told(callback: Job, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "note", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        queue_jobs.cancel(callback.pk)
    callback.refresh_from_db()
    assert callback.status == "queued"
    assert not Delivery.objects.exists()


def test_a_text_that_is_a_book_is_left_to_its_link(callback: Job, worker: Worker, receiver: Receiver) -> None:
    finish(callback, worker, "ж" * (webhooks.MOST_TEXT // 2 + 1))
    deliver(worker)
    assert receiver.got[0].told["data"]["text"] is None
    assert receiver.got[0].told["data"]["links"]["transcript"]["txt"].startswith("http://")


def test_a_job_deleted_meanwhile_is_told_without_its_words(callback: Job, worker: Worker, receiver: Receiver) -> None:
    finish(callback, worker)
    key = str(callback.pk)
    jobs.delete(Job.objects.select_related("recording").get())
    deliver(worker)
    told = receiver.got[0].told["data"]
    assert (told["id"], told["status"]) == (key, "done")
    assert (told["name"], told["text"]) == (None, None)


def test_a_renewed_secret_signs_what_waits_already(callback: Job, worker: Worker, receiver: Receiver) -> None:
    before = webhooks.of(callback.owner).secret
    jobs.cancel(callback)
    after = webhooks.renew_secret(callback.owner).secret
    deliver(worker)
    assert before != after
    assert receiver.got[0].is_signed_with(after)
    assert not receiver.got[0].is_signed_with(before)


def test_the_documents_example_of_the_specification_is_signed_as_it_says() -> None:
    """https://github.com/standard-webhooks/standard-webhooks, the vector of its libraries' tests."""
    signature = webhooks.sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


# ---------------------------------------------------------------- tries


def test_what_is_refused_is_tried_again_under_the_same_id(callback: Job, worker: Worker, receiver: Receiver) -> None:
    receiver.answers = [500, 503]
    jobs.cancel(callback)
    first = deliver(worker)
    assert (first.status, reasons(first)) == ("waiting", ["status"])
    assert deliveries.claim_delivery(worker) is None
    deliver_when_due(worker)
    last = deliver_when_due(worker)
    assert (last.status, reasons(last)) == ("delivered", ["status", "status", ""])
    assert [tried.status_code for tried in webhooks.tries(last)] == [500, 503, 204]
    assert len({message.id for message in receiver.got}) == 1
    assert len(receiver.got) == 3
    assert all(message.is_signed_with(webhooks.of(callback.owner).secret) for message in receiver.got)


def test_tries_come_at_their_times_and_end(callback: Job, worker: Worker, receiver: Receiver) -> None:
    receiver.answers = [404] * 5
    jobs.cancel(callback)
    pauses = []
    while Delivery.objects.get().status == "waiting":
        now = timezone.now()
        delivery = deliver_when_due(worker)
        pauses.append((delivery.next_attempt_at - now).total_seconds())
    assert pauses[:4] == pytest.approx([30, 90, 480, 3000], abs=5)  # a try takes a moment
    assert (delivery.status, len(receiver.got)) == ("failed", 5)
    assert delivery.ended_at is not None
    sweeper.sweep()
    Delivery.objects.update(next_attempt_at=timezone.now())
    assert deliveries.claim_delivery(worker) is None


def test_a_test_is_tried_once(alice: User, url: str, receiver: Receiver, worker: Worker) -> None:
    assert webhooks.send_test(alice) is None
    webhooks.point(alice, url)
    receiver.answers = [500]
    assert webhooks.send_test(alice) is not None
    assert deliver(worker).status == "failed"
    assert receiver.got[0].told["type"] == "webhook.test"
    assert receiver.got[0].told["data"] == {}


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(callback: Job, worker: Worker, receiver: Receiver, status: int) -> None:
    receiver.answers = [status]
    jobs.cancel(callback)
    delivery = deliver(worker)
    assert reasons(delivery) == ["redirect"]
    assert f"a redirect ({status}), and none is followed" in webhooks.tries(delivery)[0].error
    assert [message.path for message in receiver.got] == ["/hook"]


@pytest.mark.parametrize("drips", [False, True], ids=["hangs", "drips"])
def test_a_receiver_that_takes_its_time_is_left(
    callback: Job, worker: Worker, receiver: Receiver, settings: LazySettings, drips: bool
) -> None:
    settings.WEBHOOK_TIMEOUT_SECONDS = 1
    receiver.drips = drips
    if not drips:
        receiver.goes_on.clear()
    jobs.cancel(callback)
    delivery = deliver(worker)
    assert reasons(delivery) == ["timeout"]
    assert 1 <= webhooks.tries(delivery)[0].seconds < 3


def test_nobody_there_and_somebody_who_speaks_otherwise(callback: Job, worker: Worker) -> None:
    jobs.cancel(callback)
    with socket.create_server(("127.0.0.1", 0)) as server:
        Delivery.objects.update(url=f"http://127.0.0.1:{server.getsockname()[1]}/")
    assert reasons(deliver(worker)) == ["unreachable"]
    Delivery.objects.update(url="http://nowhere.invalid/")
    Delivery.objects.update(next_attempt_at=timezone.now())
    assert reasons(deliver(worker, resolve=unknown)) == ["unreachable", "unresolved"]


def test_sentences_are_in_the_readers_language_and_have_all_their_places(
    callback: Job, worker: Worker, receiver: Receiver
) -> None:
    receiver.answers = [500]
    jobs.cancel(callback)
    delivery = deliver(worker)
    with translation.override("en"):
        assert webhooks.tries(delivery)[0].error == "The answer was 500. Any from 200 to 299 counts as delivered."


def test_a_try_that_breaks_on_our_side_counts_and_says_so(callback: Job, worker: Worker) -> None:
    jobs.cancel(callback)
    claimed(worker).retry(errors.Problem(detail="OSError: no more files"))
    (tried,) = webhooks.tries(Delivery.objects.get())
    assert tried.error == "Something went wrong on our side: OSError: no more files."


# ---------------------------------------------------------------- where it does not go


def test_a_private_address_is_not_spoken_to_even_when_it_was_saved(
    callback: Job, worker: Worker, receiver: Receiver, settings: LazySettings
) -> None:
    settings.WEBHOOK_ALLOWED_HOSTS = ()
    jobs.cancel(callback)
    assert reasons(deliver(worker)) == ["not_allowed"]
    assert receiver.got == []


def test_a_name_that_leads_to_two_places_is_refused_if_one_is_private(
    callback: Job, worker: Worker, receiver: Receiver, url: str, settings: LazySettings
) -> None:
    settings.WEBHOOK_ALLOWED_HOSTS = ()
    jobs.cancel(callback)
    Delivery.objects.update(url=url.replace("127.0.0.1", "hook.example.org"))
    assert reasons(deliver(worker, resolve=leading_to("8.8.8.8", "127.0.0.1"))) == ["not_allowed"]
    assert receiver.got == []


def test_it_goes_to_the_place_that_was_checked_whatever_the_name_means_a_moment_later(
    callback: Job, worker: Worker, receiver: Receiver, url: str
) -> None:
    """The name is in no resolver of this machine: had it been looked up a second time, nothing would have come."""
    asked = []

    def once(host: str, port: int, **how: Any) -> list[Any]:
        asked.append(host)
        return leading_to("127.0.0.1" if len(asked) == 1 else "127.0.0.99")(host, port, **how)

    jobs.cancel(callback)
    Delivery.objects.update(url=url.replace("127.0.0.1", "hook.invalid"))
    assert reasons(deliver(worker, resolve=once)) == [""]
    assert asked == ["hook.invalid"]
    assert receiver.got[0].headers["host"].startswith("hook.invalid:")


def test_no_proxy_is_asked(callback: Job, worker: Worker, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    jobs.cancel(callback)
    assert deliver(worker).status == "delivered"


def test_a_place_that_does_not_answer_is_passed_over_for_the_next(
    callback: Job, worker: Worker, receiver: Receiver, url: str, settings: LazySettings
) -> None:
    settings.WEBHOOK_ALLOWED_HOSTS = (*LOOPBACK, Allowed.read("127.0.0.9"))
    jobs.cancel(callback)
    Delivery.objects.update(url=url.replace("127.0.0.1", "hook.invalid"))
    assert deliver(worker, resolve=leading_to("127.0.0.9", "127.0.0.1")).status == "delivered"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of hook.invalid, signed by itself, with its key."""
    name = ["-subj", "/CN=hook.invalid", "-addext", "subjectAltName=DNS:hook.invalid"]
    key, file = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *name]
    subprocess.run([*command, "-keyout", str(key), "-out", str(file)], check=True, capture_output=True)
    both = tmp_path / "both.pem"
    both.write_text(key.read_text() + file.read_text())
    return both


@pytest.mark.needs("openssl")
@pytest.mark.parametrize(
    ("name", "is_known", "expected"),
    [("hook.invalid", True, ""), ("hook.invalid", False, "not_secure"), ("other.invalid", True, "not_secure")],
)
def test_a_certificate_is_checked_against_the_name(
    job: Job,
    worker: Worker,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    is_known: bool,
    expected: str,
) -> None:
    if is_known:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    receiver = Receiver()
    with receiver.serving(str(certificate)) as url:
        Job.objects.update(callback_url=url.replace("127.0.0.1", name))
        jobs.cancel(job)
        delivery = deliver(worker, resolve=leading_to("127.0.0.1"))
    assert reasons(delivery) == [expected], webhooks.tries(delivery)
    assert len(receiver.got) == (expected == "")


# ---------------------------------------------------------------- claims


def test_a_claimed_message_is_left_alone_and_its_address_too(callback: Job, worker: Worker, alice: User) -> None:
    jobs.cancel(callback)
    Delivery.objects.create(owner=alice, url=callback.callback_url, type="job.done")
    Delivery.objects.create(owner=alice, url="https://other.example.org/", type="job.done")
    claimed(worker)
    assert deliveries.deliveries_due(8) == 1
    other = claimed(worker)
    assert Delivery.objects.get(pk=other.delivery).url == "https://other.example.org/"
    assert deliveries.claim_delivery(worker) is None


def test_users_take_turns(worker: Worker, alice: User, bob: User) -> None:
    for number in range(3):
        Delivery.objects.create(owner=alice, url=f"https://alice.example.org/{number}", type="job.done")
    Delivery.objects.create(owner=bob, url="https://bob.example.org/", type="job.done")
    owners = [Delivery.objects.get(pk=claimed(worker).delivery).owner for _ in range(4)]
    assert owners == [alice, bob, alice, alice]


def test_the_late_word_of_a_worker_that_was_thought_dead_is_not_taken(callback: Job, worker: Worker) -> None:
    jobs.cancel(callback)
    late = claimed(worker)
    Delivery.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    sweeper.sweep()
    claimed(worker)
    with pytest.raises(errors.LeaseLost):
        late.finish({})
    late.retry_after({})
    late.release()
    delivery = Delivery.objects.get()
    assert (delivery.status, delivery.attempts, delivery.tries) == ("waiting", 1, [])
    assert delivery.claim is not None


def test_a_message_that_waits_is_rung_for_when_it_is_due(callback: Job, rung: list[str]) -> None:
    jobs.cancel(callback)
    rung.clear()
    long_ago = timezone.now() - timedelta(minutes=1)
    Delivery.objects.update(rung_at=long_ago, next_attempt_at=timezone.now() + timedelta(seconds=30))
    sweeper.sweep()
    assert rung == []
    Delivery.objects.update(next_attempt_at=timezone.now())
    sweeper.sweep()
    assert rung == ["default"]


def test_a_worker_that_stops_gives_its_message_back(callback: Job, worker: Worker) -> None:
    jobs.cancel(callback)
    claimed(worker).release()
    assert Delivery.objects.values_list("attempts", "claim").get() == (0, None)


def test_a_delivered_message_is_sent_anew_under_its_id(
    callback: Job, worker: Worker, receiver: Receiver, rung: list[str]
) -> None:
    jobs.cancel(callback)
    deliver(worker)
    rung.clear()
    assert deliveries.replay_delivery(Delivery.objects.get().pk)
    assert rung == ["default"]
    again = deliver(worker)
    assert (again.status, reasons(again)) == ("delivered", ["", ""])
    assert len({message.id for message in receiver.got}) == 1


def test_the_first_try_waits_as_long_as_the_administrator_wants(
    callback: Job, worker: Worker, settings: LazySettings
) -> None:
    settings.WEBHOOK_TRIES_SECONDS = [60, 90]
    now = timezone.now()
    finish(callback, worker)
    assert deliveries.claim_delivery(worker) is None
    delivery = Delivery.objects.get()
    assert timedelta(seconds=60) <= delivery.next_attempt_at - now < timedelta(seconds=65)

    claimed_when_due(worker).retry_after({})
    pause = Delivery.objects.get().next_attempt_at - timezone.now()
    assert timedelta(seconds=25) < pause <= timedelta(seconds=30)
    claimed_when_due(worker).retry_after({})
    assert Delivery.objects.get().status == "failed"


def test_a_test_and_what_is_sent_anew_do_not_wait(
    callback: Job, worker: Worker, alice: User, settings: LazySettings
) -> None:
    settings.WEBHOOK_TRIES_SECONDS = [60, 90]
    jobs.cancel(callback)
    assert deliveries.replay_delivery(Delivery.objects.get().pk)
    assert deliver(worker).status == "delivered"
    webhooks.point(alice, callback.callback_url)
    webhooks.send_test(alice)
    assert deliver(worker).type == "webhook.test"


def test_a_message_being_sent_is_not_sent_anew(callback: Job, worker: Worker) -> None:
    jobs.cancel(callback)
    assert not deliveries.replay_delivery(claimed(worker).delivery)


def test_the_log_forgets_what_ended_long_ago(callback: Job, worker: Worker, alice: User) -> None:
    jobs.cancel(callback)
    deliver(worker)
    waiting = Delivery.objects.create(owner=alice, url="https://alice.example.org/", type="job.done")
    retention.enforce()
    assert Delivery.objects.count() == 2
    Delivery.objects.update(ended_at=timezone.now() - timedelta(days=31))
    Delivery.objects.filter(pk=waiting.pk).update(ended_at=None)
    retention.enforce()
    assert Delivery.objects.get() == waiting


def test_what_a_user_had_sent_goes_with_the_user(callback: Job, alice: User) -> None:
    webhooks.point(alice, "https://alice.example.org/")
    jobs.cancel(callback)
    alice.delete()
    assert not Delivery.objects.exists()
    assert not Webhook.objects.exists()


# ---------------------------------------------------------------- the document


def test_the_documents_own_code_checks_a_message(callback: Job, worker: Worker, receiver: Receiver) -> None:
    """The Python block of docs/webhooks.md, run as it stands there."""
    page = (ROOT / "docs" / "webhooks.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(compile(code, "docs/webhooks.md", "exec"), names)
    jobs.cancel(callback)
    deliver(worker)
    (message,) = receiver.got
    secret = webhooks.of(callback.owner).secret
    told = names["check"](secret, message.headers, message.body)
    assert told["type"] == "job.cancelled"
    for wrong in (
        (webhooks.make_secret(), message.headers, message.body),
        (secret, message.headers, message.body + b" "),
        (secret, message.headers | {"webhook-id": "another"}, message.body),
        (secret, message.headers | {"webhook-timestamp": "1600000000"}, message.body),
    ):
        with pytest.raises(ValueError, match=r"^(not signed|too old)"):
            names["check"](*wrong)


def test_the_document_names_every_reason_and_every_type() -> None:
    page = (ROOT / "docs" / "webhooks.md").read_text()
    assert all(f"`{code}`" in page for code in webhooks.SENTENCES)
    assert all(f"`{kind}`" in page for kind in Delivery.Type.values)
