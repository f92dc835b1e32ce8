"""What is stored, and the rules of one row's life.

State moves only by conditional UPDATE, which says whether it won.
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

from transcription import clock, errors
from transcription.whisper.options import TranscriptionOptions

AnyUser = AbstractBaseUser | AnonymousUser
Row = TypeVar("Row", bound=models.Model)


class Worker(models.Model):
    """A Celery worker process: alive while its heartbeat is fresh."""

    class Kind(models.TextChoices):
        DEFAULT = "default", _("everything that needs no engine")
        DEVICE = "device", _("one device")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(_("kind"), max_length=10, choices=Kind.choices)
    queue = models.CharField(_("queue"), max_length=40)
    device = models.CharField(_("device"), max_length=20, blank=True)
    hostname = models.CharField(_("machine"), max_length=255)
    pid = models.PositiveIntegerField("PID")
    # What `processes` says of it. With defaults of the database's own: an older version beside this one has rows, too.
    pid_namespace = models.CharField(max_length=100, blank=True, default="", db_default="", editable=False)
    pid_started = models.PositiveBigIntegerField(default=0, db_default=0, editable=False)
    engine = models.CharField(_("engine"), max_length=30, blank=True)
    model_loaded = models.CharField(_("loaded model"), max_length=100, blank=True)
    compute_types = models.JSONField(_("types of numbers"), default=list)  # that its device can compute with
    threads = models.PositiveSmallIntegerField(_("CPU threads"), default=0)  # at most
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
        """Those heard of within a lease."""
        return cls.objects.filter(heartbeat_at__gt=clock.after(-settings.LEASE_SECONDS))


class Claimable(models.Model):
    """A piece of work that one worker at a time may hold, for as long as it renews its lease.

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
    """Rows that belong to somebody: a view reads them through `for_user`, and another's is not there."""

    def for_user(self, user: AnyUser) -> Self:
        return self.filter(owner_id=user.pk) if user.is_authenticated else self.none()


class Recording(models.Model):
    """What was given: a file on disk and what FFmpeg says of it."""

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
    peaks = models.JSONField(_("loudness for the player"), null=True, editable=False)  # 0-100, evenly over the duration
    created_at = models.DateTimeField(_("added"), default=timezone.now, db_index=True)
    removed_at = models.DateTimeField(_("sound removed"), null=True)  # by retention: the rows stay, the file is gone

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
        """Where the file lies: named by us alone, never by the person who gave it."""
        return settings.RECORDINGS_DIR / str(self.pk)


class Tag(models.Model):
    """A word that a user sorts jobs by."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(_("name"), max_length=50)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ("name",)
        constraints = [models.UniqueConstraint(fields=("owner", "name"), name="one_tag_a_name")]

    def __str__(self) -> str:
        return self.name


class Batch(models.Model):
    """Jobs that were given together."""

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
    """A file that comes in chunks (tus): its bytes lie in UPLOADS_DIR until a job takes them or they expire."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    original_name = models.CharField(max_length=255)
    bytes = models.PositiveBigIntegerField()  # that it will have
    offset = models.PositiveBigIntegerField(default=0)  # up to which they are here
    sha256 = models.CharField(max_length=64, blank=True)  # of the whole, once it is here
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
        """Where its bytes lie: named by us alone, never by the person who gave it."""
        return settings.UPLOADS_DIR / f"{self.pk}.part"

    @property
    def is_complete(self) -> bool:
        return self.offset == self.bytes

    # What `jobs.submit` takes has these, like a file out of a form.

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

    The claim is the default worker's: it prepares a queued job and finishes a transcribed one. While it is being
    transcribed the job itself is unclaimed and its sections are claimed by device workers.
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
    asked_device = models.CharField(_("device asked for"), max_length=20, blank=True)  # or its kind; empty: any
    is_to_be_improved = models.BooleanField(_("to be improved by a language model"), default=False)
    callback_url = models.CharField(_("address to tell its end"), max_length=2000, blank=True)
    warnings = models.JSONField(_("warnings"), default=list)
    # By what a client that sends its request once more is known (`jobs.RequestKey`); empty on endpoints that do not
    # ask.
    request_digest = models.CharField(max_length=64, blank=True, editable=False)
    idempotency_key = models.CharField(max_length=255, blank=True, editable=False)
    error_code = models.CharField(_("error code"), max_length=40, blank=True)
    error_values = models.JSONField(default=dict)
    # The code of a problem that the job waits to pass, such as a full disk; empty while nothing holds it up.
    waiting_for = models.CharField(_("waits for"), max_length=40, blank=True)

    language = models.CharField(_("language"), max_length=10, blank=True)  # as detected, or as asked for
    language_probability = models.FloatField(_("language probability"), null=True)
    text = models.TextField(_("text"), blank=True)  # as it reads now, improvements and edits included
    searchable = models.TextField(blank=True, editable=False)  # its name, notes and text as `search.folded` has them
    engine = models.CharField(_("engine"), max_length=30, blank=True)
    device = models.CharField(_("device"), max_length=20, blank=True)
    versions = models.JSONField(_("versions"), default=dict)  # {"faster-whisper": "1.2.1", ...}
    weights_sha256 = models.CharField(_("SHA-256 of the weights"), max_length=64, blank=True)

    created_at = models.DateTimeField(_("added"), default=timezone.now)
    preparing_at = models.DateTimeField(_("preparing since"), null=True)
    transcribing_at = models.DateTimeField(_("transcribing since"), null=True)
    finishing_at = models.DateTimeField(_("finishing since"), null=True)
    finished_at = models.DateTimeField(_("ended"), null=True)
    processing_seconds = models.FloatField(_("processing, s"), default=0)  # work done, waiting left out
    served_at = models.DateTimeField(null=True)  # when a section of it was last begun: its owner's turn is over
    latest_start = models.DateTimeField(db_default=Now(), editable=False)  # then no later job of its owner overtakes it

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
        """Whether nothing of this version works on it; so it is in a status that only another version knows."""
        return self.status not in self.UNFINISHED

    @property
    def unknown_status_message(self) -> str:
        """The sentence about a status of another version's, in the reader's language; empty for one of ours."""
        if self.status in self.Status:
            return ""
        said = gettext(
            "Its status is `%(status)s`, which this version does not know. Update Stenograf, or transcribe it again."
        )
        return said % {"status": self.status}

    @property
    def known_priority(self) -> Priority:
        """Its priority, or the nearest that this version knows."""
        return self.Priority(min(self.Priority.HIGH, max(self.Priority.LOW, self.priority)))

    @property
    def transcription_options(self) -> TranscriptionOptions:
        return TranscriptionOptions.from_json(self.options)

    @property
    def problem(self) -> type[errors.Problem] | None:
        """What went wrong, or None."""
        return errors.by_code(self.error_code) if self.error_code else None

    @property
    def error_message(self) -> str:
        """The sentence that says what went wrong, in the reader's language; empty when nothing did."""
        return _error_message(self)

    @property
    def waiting_message(self) -> str:
        """The sentence that says what holds an unfinished job up, in the reader's language; empty when nothing does."""
        if not self.waiting_for or self.is_ended:
            return ""
        return errors.filled(gettext(errors.why_waiting(self.waiting_for)), {"code": self.waiting_for})

    @property
    def pcm_path(self) -> Path:
        """The decoded sound, 16 kHz mono s16le, there from preparing to the job's end."""
        return settings.RECORDINGS_DIR / f"{self.pk}.pcm"

    @classmethod
    def move(cls, job_id: uuid.UUID, to: Status, *, since: tuple[Status, ...], **changes: Any) -> bool:
        """Move a job to the status `to` if it is in one of `since`; return whether this call did it."""
        return bool(cls.objects.filter(pk=job_id, status__in=since).update(status=to, **changes))


class Section(Claimable):
    """A part of a recording that is decoded on its own. Times in seconds of the recording."""

    class Status(models.TextChoices):
        QUEUED = "queued", _("queued")
        TRANSCRIBING = "transcribing", _("transcribing")
        DONE = "done", _("done")

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="sections")
    index = models.PositiveIntegerField()
    start = models.FloatField()
    end = models.FloatField()
    spans = models.JSONField()  # [[start, end], …]: what of it is decoded; long silences are left out
    seconds = models.FloatField()  # of sound in its spans
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.QUEUED, db_index=True)
    transcribed = models.FloatField(default=0)  # of its seconds, how many are decoded
    engine = models.CharField(max_length=30, blank=True)
    device = models.CharField(max_length=20, blank=True)
    versions = models.JSONField(default=dict)  # of the engine: {"faster-whisper": "1.2.1", ...}
    processing_seconds = models.FloatField(default=0)  # that its last, successful decoding took
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("job", "index")
        indexes = [models.Index(fields=("device", "-finished_at"))]
        constraints = [models.UniqueConstraint(fields=("job", "index"), name="one_section_a_place")]

    def __str__(self) -> str:
        return f"{self.job_id} {self.index}"


class Download(Claimable):
    """A model that is to be fetched: jobs wait for it, or somebody asked for it. Gone when it is here."""

    model = models.CharField(_("model"), max_length=100, primary_key=True)  # a catalogue name
    progress = models.FloatField(_("progress, 0-1"), default=0)
    is_asked_for = models.BooleanField(_("asked for"), default=False)  # by a person, not only by jobs
    error_code = models.CharField(_("error code"), max_length=40, blank=True)  # then it is not tried again by itself
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
        """The sentence that says what went wrong, in the reader's language; empty when nothing did."""
        return _error_message(self)


def _error_message(row: Job | Download) -> str:
    """The sentence of a row's error code, also of one that another version stored."""
    if not row.error_code:
        return ""
    values = row.error_values if isinstance(row.error_values, dict) else {}
    return errors.filled(gettext(errors.by_code(row.error_code).sentence), {"code": row.error_code, **values})


class Segment(models.Model):
    """A stretch of speech and its text, with openai-whisper's names; times in seconds of the recording."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="segments")
    section = models.ForeignKey(Section, on_delete=models.CASCADE, related_name="segments")
    index = models.PositiveIntegerField()  # in its section
    start = models.FloatField()
    end = models.FloatField()
    text = models.TextField()
    seek = models.PositiveIntegerField()
    tokens = models.JSONField()
    temperature = models.FloatField()
    avg_logprob = models.FloatField()
    compression_ratio = models.FloatField()
    no_speech_prob = models.FloatField()
    words = models.JSONField(null=True)  # [{"word", "start", "end", "probability"}] when asked for
    # What the engine heard stays in `text` and `words` for ever; these stand before it.
    improved_text = models.TextField(null=True)  # by a language model
    edited_text = models.TextField(null=True)  # by a person
    edited_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("job", "section__index", "index")
        constraints = [models.UniqueConstraint(fields=("section", "index"), name="one_segment_a_place")]

    def __str__(self) -> str:
        return self.reads

    @property
    def reads(self) -> str:
        """Its text as it reads now: as a person left it, else as it was improved, else as the engine heard it."""
        return next(said for said in (self.edited_text, self.improved_text, self.text) if said is not None)


class Event(models.Model):
    """A turn in the life of a job or a worker, with its reason."""

    at = models.DateTimeField(_("time"), default=timezone.now, db_index=True)
    job = models.ForeignKey(Job, null=True, on_delete=models.CASCADE, related_name="events", verbose_name=_("job"))
    worker = models.ForeignKey(Worker, null=True, on_delete=models.SET_NULL, related_name="+", verbose_name=_("worker"))
    kind = models.CharField(_("kind"), max_length=20)
    message = models.TextField(_("message"), blank=True)

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind


class Share(models.Model):
    """A link by which whoever has it may read a transcript. Only the SHA-256 of its secret is stored."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="shares")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    has_audio = models.BooleanField(default=True)  # whether the recording may be heard by it too
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"{self.job_id} until {self.expires_at:%Y-%m-%d %H:%M}"


class Webhook(models.Model):
    """Where a user wants to be told of every job's end, and the secret that signs what is sent."""

    owner = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="webhook", verbose_name=_("owner")
    )
    url = models.CharField(_("address"), max_length=2000, blank=True)  # empty: only a job's own callback_url is told
    secret = models.CharField(max_length=100, editable=False)  # whsec_ and base64, as Standard Webhooks has it
    created_at = models.DateTimeField(default=timezone.now)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        verbose_name = _("webhook")
        verbose_name_plural = _("webhooks")

    def __str__(self) -> str:
        return self.url or "-"


class Delivery(Claimable):
    """A message that is to reach an address: an outbox row, and the log of its tries. Its id is the webhook-id."""

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
    # The job as it ended; its name and text are read when it is sent, so that they go with the job.
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
        return f"{self.type} -> {urlsplit(self.url).hostname}"  # the rest may be a secret of its owner's


class ApiToken(models.Model):
    """A key to the API. Only its SHA-256 is stored: 32 random bytes need no slower hash."""

    class Scope(models.TextChoices):
        """What a key may do, each more than the one before; never more than its user may."""

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
    is_from_file = models.BooleanField(default=False, editable=False)  # a line of KEYS_FILE

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
        """Make a token for `user` and return the key, which is never shown again."""
        key = f"st_{secrets.token_urlsafe(32)}"
        digest = cls.digest_of(key)
        cls.objects.create(
            user_id=user.pk, name=name, prefix=key[:8], digest=digest, scope=scope, expires_at=expires_at
        )
        return key
