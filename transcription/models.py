"""The database's tables.

A row's status changes only by a conditional UPDATE, whose row count says whether it took effect.
"""

import hashlib
import secrets
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from transcription import clock, errors, sentences
from transcription.whisper.options import TranscriptionOptions

AnyUser = AbstractBaseUser | AnonymousUser
Row = TypeVar("Row", bound=models.Model)


class Worker(models.Model):
    """A Celery worker process; alive while its heartbeat is younger than a lease."""

    class Kind(models.TextChoices):
        DEFAULT = "default", _("everything that needs no engine")
        DEVICE = "device", _("one device")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(_("kind"), max_length=10, choices=Kind.choices)
    queue = models.CharField(_("queue"), max_length=40)
    device = models.CharField(_("device"), max_length=20, blank=True)
    hostname = models.CharField(_("machine"), max_length=255)
    pid = models.PositiveIntegerField("PID")
    # As `processes` identifies it. The database has defaults because an older version may still insert rows.
    pid_namespace = models.CharField(max_length=100, blank=True, default="", db_default="", editable=False)
    pid_started = models.PositiveBigIntegerField(default=0, db_default=0, editable=False)
    engine = models.CharField(_("engine"), max_length=30, blank=True)
    model_loaded = models.CharField(_("loaded model"), max_length=100, blank=True)
    compute_types = models.JSONField(_("types of numbers"), default=list)  # those its device supports
    threads = models.PositiveSmallIntegerField(_("CPU threads"), default=0)  # the most it may use
    device_name = models.CharField(_("name of the device"), max_length=200, blank=True)
    memory_total_mb = models.PositiveIntegerField(_("memory of the device, MB"), null=True)
    memory_used_mb = models.PositiveIntegerField(_("memory in use, MB"), null=True)
    utilization = models.PositiveSmallIntegerField(_("load of the device, %"), null=True)
    model_states = models.JSONField(_("models"), default=dict)  # {"base": "loaded" | "loading" | "error"}
    started_at = models.DateTimeField(_("started"), db_default=Now())
    heartbeat_at = models.DateTimeField(_("last heartbeat"), db_default=Now(), db_index=True)

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        ordering = ("queue", "-started_at")

    def __str__(self) -> str:
        return f"{self.queue}@{self.hostname}:{self.pid}"

    @classmethod
    def alive(cls) -> models.QuerySet["Worker"]:
        """The workers whose last heartbeat is younger than a lease."""
        return cls.objects.filter(heartbeat_at__gt=clock.after(-settings.LEASE_SECONDS))


class Claimable(models.Model):
    """Work that one worker at a time holds, for as long as it renews its lease.

    `claim` is a fencing token, new at each claim: a write that names an old one changes nothing.
    """

    claim = models.UUIDField(null=True, editable=False)
    worker = models.ForeignKey(Worker, null=True, on_delete=models.SET_NULL, related_name="+", verbose_name=_("worker"))
    lease_until = models.DateTimeField(null=True, db_index=True)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    next_attempt_at = models.DateTimeField(db_default=Now())
    rung_at = models.DateTimeField(db_default=Now())  # when a wake-up was last sent for it

    class Meta:
        abstract = True


class OwnedQuerySet(models.QuerySet[Row]):
    """Rows that have an owner. Views read them through `for_user`, so another user's rows do not exist for them."""

    def for_user(self, user: AnyUser) -> Self:
        return self.filter(owner_id=user.pk) if user.is_authenticated else self.none()


class Recording(models.Model):
    """An uploaded file and what FFmpeg says about it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="recordings", verbose_name=_("owner")
    )
    original_name = models.CharField(_("file name"), max_length=255)
    bytes = models.PositiveBigIntegerField(_("bytes"))
    sha256 = models.CharField("SHA-256", max_length=64, db_index=True)
    container = models.CharField(_("container"), max_length=60, blank=True)
    codec = models.CharField(_("codec"), max_length=40, blank=True)
    sample_rate = models.PositiveIntegerField(_("sample rate, Hz"), null=True)
    channels = models.PositiveSmallIntegerField(_("channels"), null=True)
    has_video = models.BooleanField(_("has a picture"), default=False)
    duration = models.FloatField(_("duration, s"), null=True)
    peaks = models.JSONField(_("loudness for the player"), null=True, editable=False)  # 0-100, at equal intervals
    tracks = models.PositiveSmallIntegerField(_("tracks with sound"), null=True)
    created_at = models.DateTimeField(_("added"), default=timezone.now, db_index=True)
    removed_at = models.DateTimeField(_("sound removed"), null=True)  # when retention deleted the file; the rows stay

    objects = OwnedQuerySet.as_manager()

    class Meta:
        verbose_name = _("recording")
        verbose_name_plural = _("recordings")
        ordering = ("-created_at",)
        indexes = [models.Index(fields=("owner", "-created_at", "-id"))]

    def __str__(self) -> str:
        return self.original_name

    @property
    def path(self) -> Path:
        """The file; the user's name for it is never part of the path."""
        return settings.RECORDINGS_DIR / str(self.pk)


class Tag(models.Model):
    """A user's label for jobs."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(_("name"), max_length=50)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ("name",)
        constraints = [models.UniqueConstraint(fields=("owner", "name"), name="one_tag_a_name")]

    def __str__(self) -> str:
        return self.name


class Batch(models.Model):
    """Jobs that were submitted together."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(_("name"), max_length=255, blank=True)
    created_at = models.DateTimeField(_("added"), default=timezone.now)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-id")

    def __str__(self) -> str:
        return self.name or str(self.pk)


class Upload(models.Model):
    """A file that is uploaded in chunks (tus). It stays in UPLOADS_DIR until a job takes it or it expires."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    original_name = models.CharField(max_length=255)
    bytes = models.PositiveBigIntegerField()  # of the whole file
    offset = models.PositiveBigIntegerField(default=0)  # how many bytes have arrived
    sha256 = models.CharField(max_length=64, blank=True)  # of the whole file, once it has arrived
    metadata = models.TextField(blank=True)  # Upload-Metadata as the client sent it
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(db_index=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.original_name

    @property
    def path(self) -> Path:
        """The file; the user's name for it is never part of the path."""
        return settings.UPLOADS_DIR / f"{self.pk}.part"

    @property
    def is_complete(self) -> bool:
        return self.offset == self.bytes

    # The rest makes it a `jobs.StoredFile`.

    @property
    def name(self) -> str:
        return self.original_name

    @property
    def size(self) -> int:
        return self.bytes

    def temporary_file_path(self) -> str:
        return str(self.path)


class Job(Claimable):
    """One request to transcribe a recording.

    The default worker claims the job to prepare it and again to finish it. In between the job is unclaimed, and device
    workers claim its sections.
    """

    class Status(models.TextChoices):
        QUEUED = "queued", _("queued")
        DOWNLOADING = "downloading", _("downloading the model")
        PREPARING = "preparing", _("preparing")
        TRANSCRIBING = "transcribing", _("transcribing")
        FINISHING = "finishing", _("finishing")
        DONE = "done", _("done")
        FAILED = "failed", _("failed")
        CANCELLED = "cancelled", _("cancelled")

    class Priority(models.IntegerChoices):
        HIGH = 1, _("high")
        NORMAL = 0, _("normal")
        LOW = -1, _("low")

    ENDED = (Status.DONE, Status.FAILED, Status.CANCELLED)
    UNFINISHED = (Status.QUEUED, Status.DOWNLOADING, Status.PREPARING, Status.TRANSCRIBING, Status.FINISHING)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="jobs", verbose_name=_("owner")
    )
    recording = models.ForeignKey(Recording, on_delete=models.CASCADE, related_name="jobs", verbose_name=_("recording"))
    name = models.CharField(_("name"), max_length=255)
    notes = models.TextField(_("notes"), blank=True)
    tags = models.ManyToManyField(Tag, blank=True, related_name="jobs", verbose_name=_("tags"))
    batch = models.ForeignKey(Batch, null=True, blank=True, on_delete=models.SET_NULL, related_name="jobs")
    status = models.CharField(_("status"), max_length=12, choices=Status.choices, default=Status.QUEUED)
    progress = models.FloatField(_("progress, 0-1"), default=0)

    priority = models.SmallIntegerField(_("priority"), choices=Priority.choices, default=Priority.NORMAL)
    model = models.CharField(_("model"), max_length=100)  # a catalogue name or a folder's name
    options = models.JSONField(_("options"))  # TranscriptionOptions, frozen when the job was submitted
    asked_engine = models.CharField(_("engine asked for"), max_length=30, blank=True)  # empty: any
    asked_device = models.CharField(_("device asked for"), max_length=20, blank=True)  # or a kind of device; empty: any
    is_to_be_improved = models.BooleanField(_("to be improved by a language model"), default=False)
    callback_url = models.CharField(_("address to tell its end"), max_length=2000, blank=True)
    warnings = models.JSONField(_("warnings"), default=list)
    # Recognise a request that a client sends again (`jobs.RequestKey`); empty for endpoints without idempotency.
    request_digest = models.CharField(max_length=64, blank=True, editable=False)
    idempotency_key = models.CharField(max_length=255, blank=True, editable=False)
    error_code = models.CharField(_("error code"), max_length=40, blank=True)
    error_values = models.JSONField(default=dict)
    # The code of the problem that the job waits for to pass, such as a full disk; empty if there is none.
    waiting_for = models.CharField(_("waits for"), max_length=40, blank=True)

    track = models.PositiveSmallIntegerField(_("track"), null=True)  # of the recording, the decoded one, from 1
    # [[start, end], …] in the recording's time: laid end to end they are the PCM. None: one span, from 0 to its end.
    sound_spans = models.JSONField(null=True, editable=False)
    language = models.CharField(_("language"), max_length=10, blank=True)  # detected or requested
    language_probability = models.FloatField(_("language probability"), null=True)
    text = models.TextField(_("text"), blank=True)  # with improvements and edits
    searchable = models.TextField(blank=True, editable=False)  # name, notes and text through `search.folded`
    engine = models.CharField(_("engine"), max_length=30, blank=True)
    device = models.CharField(_("device"), max_length=20, blank=True)
    versions = models.JSONField(_("versions"), default=dict)  # {"faster-whisper": "1.2.1", ...}
    weights_sha256 = models.CharField(_("SHA-256 of the weights"), max_length=64, blank=True)

    created_at = models.DateTimeField(_("added"), default=timezone.now)
    preparing_at = models.DateTimeField(_("preparing since"), null=True)
    transcribing_at = models.DateTimeField(_("transcribing since"), null=True)
    finishing_at = models.DateTimeField(_("finishing since"), null=True)
    finished_at = models.DateTimeField(_("ended"), null=True)
    processing_seconds = models.FloatField(_("processing, s"), default=0)  # without the time it waited
    served_at = models.DateTimeField(null=True)  # when one of its sections was last begun: ends its owner's turn
    latest_start = models.DateTimeField(db_default=Now(), editable=False)  # from then on no later job goes first

    objects = OwnedQuerySet.as_manager()

    class Meta:
        verbose_name = _("job")
        verbose_name_plural = _("jobs")
        ordering = ("-created_at", "-id")
        indexes = [
            models.Index(fields=("owner", "-created_at", "-id")),
            models.Index(fields=("owner", "status", "-created_at", "-id")),
            models.Index(fields=("owner", "name", "id")),
            models.Index(fields=("status", "-created_at")),
            models.Index(fields=("status", "next_attempt_at", "created_at")),
            models.Index(fields=("owner", "served_at")),
            models.Index(fields=("owner", "preparing_at")),
            models.Index(fields=("owner", "request_digest")),
            models.Index(fields=("owner", "idempotency_key")),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_ended(self) -> bool:
        """Whether no worker of this version works on it; true for a status that only another version knows."""
        return self.status not in self.UNFINISHED

    @property
    def unknown_status_message(self) -> str:
        """A sentence about a status of another version, in the reader's language; empty for a known status."""
        if self.status in self.Status:
            return ""
        sentence = gettext(
            "Its status is `%(status)s`, which this version does not know. Update Stenograf, or transcribe it again."
        )
        return sentence % {"status": self.status}

    @property
    def known_priority(self) -> Priority:
        """The priority, or the nearest one that this version knows."""
        return self.Priority(min(self.Priority.HIGH, max(self.Priority.LOW, self.priority)))

    @property
    def transcription_options(self) -> TranscriptionOptions:
        return TranscriptionOptions.from_json(self.options)

    @property
    def answered_language(self) -> str | None:
        """The language for an answer: the one that was heard or asked for, or "" where nobody speaks."""
        return self.language if self.language or "no_speech" in self.warnings else self.transcription_options.language

    @property
    def problem(self) -> type[errors.Problem] | None:
        """What went wrong, or None."""
        return errors.by_code(self.error_code) if self.error_code else None

    @property
    def error_message(self) -> str:
        """What went wrong, as a sentence in the reader's language; empty if nothing did."""
        return _error_message(self)

    @property
    def waiting_message(self) -> str:
        """What an unfinished job waits for, as a sentence in the reader's language; empty if it does not wait."""
        if not self.waiting_for or self.is_ended:
            return ""
        return sentences.describe_waiting(self.waiting_for)

    @property
    def pcm_path(self) -> Path:
        """The decoded sound, 16 kHz mono s16le. It exists from preparing to the job's end."""
        return self.pcm_path_of(0)

    def pcm_path_of(self, channel: int) -> Path:
        """The decoded sound of one channel alone; 0 is all of them."""
        return settings.RECORDINGS_DIR / (f"{self.pk}.pcm-{channel}" if channel else f"{self.pk}.pcm")

    @property
    def pcm_paths(self) -> list[Path]:
        """All files of decoded sound that there are now, also those of an interrupted FFmpeg."""
        return list(settings.RECORDINGS_DIR.glob(f"{self.pk}.pcm*"))

    @classmethod
    def move(cls, job_id: uuid.UUID, to: Status, *, since: tuple[Status, ...], **changes: Any) -> bool:
        """Move a job to the status `to` if its status is one of `since`; return whether it was."""
        return bool(cls.objects.filter(pk=job_id, status__in=since).update(status=to, **changes))


class Section(Claimable):
    """A part of a recording that is decoded on its own. Times are in seconds of the recording."""

    class Status(models.TextChoices):
        QUEUED = "queued", _("queued")
        TRANSCRIBING = "transcribing", _("transcribing")
        DONE = "done", _("done")

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="sections")
    index = models.PositiveIntegerField()
    start = models.FloatField()
    end = models.FloatField()
    spans = models.JSONField()  # [[start, end], …]: the parts that are decoded, without long silences
    speech = models.JSONField(
        null=True
    )  # [[start, end], …]: the stretches in it that have speech; None: not looked for
    channel = models.PositiveSmallIntegerField(db_default=0)  # of the recording, from 1; 0: all of them, mixed
    seconds = models.FloatField()  # the total length of the spans
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.QUEUED, db_index=True)
    transcribed = models.FloatField(default=0)  # how many of its seconds are decoded
    engine = models.CharField(max_length=30, blank=True)
    device = models.CharField(max_length=20, blank=True)
    versions = models.JSONField(default=dict)  # the engine's: {"faster-whisper": "1.2.1", ...}
    processing_seconds = models.FloatField(default=0)  # of the decoding that succeeded
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("job", "index")
        indexes = [models.Index(fields=("device", "-finished_at"))]
        constraints = [models.UniqueConstraint(fields=("job", "index"), name="one_section_a_place")]

    def __str__(self) -> str:
        return f"{self.job_id} {self.index}"


class Download(Claimable):
    """A model to fetch, because jobs wait for it or a user requested it. The row is deleted when the model is here."""

    model = models.CharField(_("model"), max_length=100, primary_key=True)  # a catalogue name
    progress = models.FloatField(_("progress, 0-1"), default=0)
    is_asked_for = models.BooleanField(_("asked for"), default=False)  # by a user, not only by jobs
    error_code = models.CharField(_("error code"), max_length=40, blank=True)  # if set, no worker tries it again
    error_values = models.JSONField(default=dict)
    created_at = models.DateTimeField(_("added"), default=timezone.now)

    class Meta:
        verbose_name = _("download")
        verbose_name_plural = _("downloads")
        ordering = ("created_at", "model")

    def __str__(self) -> str:
        return self.model

    @property
    def error_message(self) -> str:
        """What went wrong, as a sentence in the reader's language; empty if nothing did."""
        return _error_message(self)


def _error_message(row: Job | Download) -> str:
    """The sentence of a row's error code, which another version may have stored."""
    if not row.error_code:
        return ""
    values = row.error_values if isinstance(row.error_values, dict) else {}
    return sentences.translate(errors.by_code(row.error_code).sentence, {"code": row.error_code, **values})


# The order of a job's segments. Two channels speak in turns, and a passage may be decoded after a later one.
BY_TIME = ("start", "end", "section__index", "index")


class Segment(models.Model):
    """A stretch of speech and its text, with openai-whisper's names. Times are in seconds of the recording."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="segments")
    section = models.ForeignKey(Section, on_delete=models.CASCADE, related_name="segments")
    index = models.PositiveIntegerField()  # within its section
    start = models.FloatField()
    end = models.FloatField()
    text = models.TextField()
    seek = models.PositiveIntegerField()
    tokens = models.JSONField()
    temperature = models.FloatField()
    avg_logprob = models.FloatField()
    compression_ratio = models.FloatField()
    no_speech_prob = models.FloatField()
    words = models.JSONField(null=True)  # [{"word", "start", "end", "probability"}] if requested
    language = models.CharField(max_length=8, blank=True, db_default="")  # empty: the job's
    # `text` and `words` keep what the engine decoded; these take precedence over them.
    improved_text = models.TextField(null=True)  # by a language model
    edited_text = models.TextField(null=True)  # by a person
    edited_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("job", *BY_TIME)
        constraints = [models.UniqueConstraint(fields=("section", "index"), name="one_segment_a_place")]

    def __str__(self) -> str:
        return self.reads

    @property
    def reads(self) -> str:
        """The current text: as edited, else as improved, else as decoded."""
        return next(text for text in (self.edited_text, self.improved_text, self.text) if text is not None)


class Event(models.Model):
    """Something that happened to a job, with its reason."""

    at = models.DateTimeField(_("time"), default=timezone.now, db_index=True)
    job = models.ForeignKey(Job, null=True, on_delete=models.CASCADE, related_name="events", verbose_name=_("job"))
    kind = models.CharField(_("kind"), max_length=20)
    message = models.TextField(_("message"), blank=True)

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind


class Share(models.Model):
    """A link that lets whoever has it read a transcript. Only the SHA-256 of its secret is stored."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="shares")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    has_audio = models.BooleanField(default=True)  # whether the link also gives the recording
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"{self.job_id} until {self.expires_at:%Y-%m-%d %H:%M}"


class Webhook(models.Model):
    """The address that gets a message at the end of each of a user's jobs, and the secret that signs the messages."""

    owner = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="webhook", verbose_name=_("owner")
    )
    url = models.CharField(_("address"), max_length=2000, blank=True)  # empty: only callback_url of a job is used
    secret = models.CharField(max_length=100, editable=False)  # whsec_ and base64, as Standard Webhooks has it
    created_at = models.DateTimeField(default=timezone.now)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        verbose_name = _("webhook")
        verbose_name_plural = _("webhooks")

    def __str__(self) -> str:
        return self.url or "-"


class Delivery(Claimable):
    """A message to send, and the log of its tries. Its id is the webhook-id."""

    class Status(models.TextChoices):
        WAITING = "waiting", _("waiting")
        DELIVERED = "delivered", _("delivered")
        FAILED = "failed", _("failed")

    class Type(models.TextChoices):
        DONE = "job.done", _("a job is done")
        FAILED = "job.failed", _("a job failed")
        CANCELLED = "job.cancelled", _("a job was cancelled")
        TEST = "webhook.test", _("a test")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", verbose_name=_("owner")
    )
    job = models.ForeignKey(Job, null=True, on_delete=models.SET_NULL, related_name="deliveries", verbose_name=_("job"))
    url = models.CharField(_("address"), max_length=2000)
    type = models.CharField(_("type"), max_length=30, choices=Type.choices)
    # The job when it ended, without its name and text: these are read on sending, so deleting the job deletes them.
    data = models.JSONField(default=dict)
    status = models.CharField(_("status"), max_length=10, choices=Status.choices, default=Status.WAITING, db_index=True)
    tries = models.JSONField(_("tries"), default=list)  # [{"at", "seconds", "status_code", "code", "values"}]
    created_at = models.DateTimeField(_("added"), default=timezone.now)
    ended_at = models.DateTimeField(_("ended"), null=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        verbose_name = _("delivery")
        verbose_name_plural = _("deliveries")
        ordering = ("-created_at", "-id")
        indexes = [models.Index(fields=("owner", "-created_at", "-id"))]
        constraints = [
            models.UniqueConstraint(
                fields=("url",),
                condition=models.Q(claim__isnull=False, status="waiting"),
                name="one_message_an_address",
            )
        ]

    def __str__(self) -> str:
        return f"{self.type} -> {urlsplit(self.url).hostname}"  # the rest of the URL may be secret


class ApiToken(models.Model):
    """An API key. Only its SHA-256 is stored; 32 random bytes need no slower hash."""

    class Scope(models.TextChoices):
        """What a key may do. Each scope includes the one before; none exceeds what the user may do."""

        READ = "read", _("read")
        WRITE = "write", _("read and write")
        ADMIN = "admin", _("everything its user may")

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens", verbose_name=_("user")
    )
    name = models.CharField(_("name"), max_length=100, blank=True)
    prefix = models.CharField(_("begins with"), max_length=12)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(_("made"), default=timezone.now)
    last_used_at = models.DateTimeField(_("last used"), null=True)
    expires_at = models.DateTimeField(_("stops working"), null=True, blank=True)
    scope = models.CharField(_("may"), max_length=5, choices=Scope.choices, default=Scope.ADMIN)
    is_from_file = models.BooleanField(default=False, editable=False)  # from KEYS_FILE

    class Meta:
        verbose_name = _("API token")
        verbose_name_plural = _("API tokens")
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"{self.prefix}…" if self.prefix else self.name

    @staticmethod
    def digest_of(key: str) -> str:
        return hashlib.sha256(key.encode()).hexdigest()

    @classmethod
    def make(
        cls, user: AnyUser, name: str = "", *, scope: str = Scope.ADMIN, expires_at: datetime | None = None
    ) -> str:
        """Make a token for a user and return the key, which is not stored and cannot be shown again."""
        key = f"st_{secrets.token_urlsafe(32)}"
        digest = cls.digest_of(key)
        cls.objects.create(
            user_id=user.pk, name=name, prefix=key[:8], digest=digest, scope=scope, expires_at=expires_at
        )
        return key
