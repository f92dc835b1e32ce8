"""What a person does, in a real Chromium against a real server."""

import base64
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, JSHandle, Page, Request, expect, sync_playwright

from tests.receiver import Receiver
from tests.server import NANO, PASSWORD, QUICKLY, ROOT, Server

pytestmark = pytest.mark.needs("chromium")

SENTENCES = json.loads((NANO / "nano" / "sentences.json").read_text())
SAMPLES = ROOT / "transcription" / "samples"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
SLOW = 60_000  # milliseconds, for what waits on a model


def spoken(language: str) -> dict[str, Any]:
    return next(item for item in SENTENCES if item["language"] == language)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # The synchronous Playwright runs a loop of its own in this thread, where Django then refuses to be called.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET)
        yield chromium
        chromium.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def complaints() -> list[str]:
    """What the browser's console said: errors, and what the Content-Security-Policy stopped."""
    return []


@pytest.fixture
def page(browser: Browser, complaints: list[str]) -> Iterator[Page]:
    context = browser.new_context(locale="en-GB", viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert complaints == []


def sign_in(page: Page, server: Server) -> None:
    page.goto(server.url)
    page.get_by_label("Name", exact=True).fill("admin")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Choose files")).to_be_visible()
    page.wait_for_load_state()  # and its scripts have run


def drop(page: Page, *paths: Path) -> None:
    """Drop files on the window, as a hand does."""
    files = [[path.name, base64.b64encode(path.read_bytes()).decode()] for path in paths]
    dropped: JSHandle = page.evaluate_handle(
        """files => {
            const dropped = new DataTransfer();
            for (const [name, content] of files)
                dropped.items.add(new File([Uint8Array.from(atob(content), c => c.charCodeAt(0))], name));
            return dropped;
        }""",
        files,
    )
    page.dispatch_event("body", "dragover", {"dataTransfer": dropped})
    page.dispatch_event("body", "drop", {"dataTransfer": dropped})


def row(page: Page, name: str) -> Any:
    return page.locator(".job").filter(has=page.get_by_role("link", name=name)).first


def test_a_person_drops_a_russian_and_an_english_recording_and_reads_both(nano_server: Server, page: Page) -> None:
    sign_in(page, nano_server)
    paths = [NANO / "nano" / spoken(language)["file"] for language in ("ru", "en")]
    drop(page, *paths)
    for language, path in zip(("ru", "en"), paths, strict=True):
        done = row(page, path.name)
        expect(done).to_have_class(re.compile("is-done"), timeout=SLOW)
        expect(done).to_contain_text(spoken(language)["text"])
    row(page, paths[0].name).get_by_role("link").first.click()
    expect(page.locator(".transcript")).to_contain_text(spoken("ru")["text"])


def test_six_recordings_dropped_at_once_all_become_rows_with_their_text(nano_server: Server, page: Page) -> None:
    sign_in(page, nano_server)
    drop(page, *(NANO / "nano" / sentence["file"] for sentence in SENTENCES))
    for sentence in SENTENCES:
        expect(row(page, sentence["file"])).to_have_class(re.compile("is-done"), timeout=SLOW)
        expect(row(page, sentence["file"])).to_contain_text(sentence["text"])


def test_real_base_hears_both_samples_dropped_on_the_page(base_server: Server, page: Page) -> None:
    sign_in(page, base_server)
    drop(page, SAMPLES / "sample-ru.ogg", SAMPLES / "sample-en.ogg")
    expect(row(page, "sample-ru.ogg")).to_contain_text("запись нужна для проверки программы", timeout=SLOW)
    expect(row(page, "sample-en.ogg")).to_contain_text("everything on this computer works", timeout=SLOW)


def test_a_file_that_is_no_recording_says_so_in_its_row(nano_server: Server, page: Page, tmp_path: Path) -> None:
    notes, empty = tmp_path / "notes.mp3", tmp_path / "empty.wav"
    notes.write_text("These are notes.")
    empty.touch()
    sign_in(page, nano_server)
    drop(page, notes, empty, NANO / "media" / "silent.mkv")
    expect(row(page, "notes.mp3")).to_contain_text("neither audio nor video", timeout=SLOW)
    expect(row(page, "empty.wav")).to_contain_text("The file is empty", timeout=SLOW)
    expect(row(page, "silent.mkv")).to_contain_text("no sound track", timeout=SLOW)


class Streams:
    """The event streams that a page has opened, and those of them that it still has."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.opened = 0
        self.kept: set[Request] = set()
        page.on("request", self._open)
        page.on("requestfinished", self._close)
        page.on("requestfailed", self._close)

    def wait_until_none_is_kept(self) -> None:
        """What closes with the page's last news is told a moment later."""
        for _ in range(100):
            if not self.kept:
                return
            self.page.wait_for_timeout(100)
        assert self.kept == set()

    def _open(self, request: Request) -> None:
        if "/events/" in request.url:
            self.opened += 1
            self.kept.add(request)

    def _close(self, request: Request) -> None:
        self.kept.discard(request)


@pytest.fixture
def streams(page: Page) -> Streams:
    return Streams(page)


def show(page: Page, *, hidden: bool) -> None:
    """Put the tab into the background or bring it back, as the page is told it: a headless one is always in sight."""
    page.evaluate(f"Object.defineProperty(document, 'hidden', {{ value: {json.dumps(hidden)}, configurable: true }})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_the_text_grows_on_the_page_while_it_is_transcribed(
    nano_server: Server, page: Page, streams: Streams, long_recording: Path
) -> None:
    job_id = nano_server.submit(long_recording, language="en")["id"]
    sign_in(page, nano_server)
    page.goto(f"{nano_server.url}/jobs/{job_id}/")
    page.evaluate("window.told = 0; document.addEventListener('news', () => { window.told += 1; })")
    segments = page.locator(".segment")
    expect(segments.nth(1)).to_be_visible(timeout=SLOW)
    seen = segments.count()
    assert nano_server.job(job_id)["status"] == "transcribing"
    expect(page.get_by_text("Transcribing")).to_have_count(0, timeout=SLOW)
    assert nano_server.job(job_id)["status"] == "done"
    assert segments.count() > seen
    assert segments.count() == len(nano_server.segments(job_id))
    assert page.evaluate("window.told") > 1
    assert (streams.opened, streams.kept) == (1, set())


def test_a_tab_in_the_background_keeps_no_stream(
    nano_server: Server, page: Page, streams: Streams, lecture: Path
) -> None:
    job_id = nano_server.submit(lecture, language="en")["id"]
    sign_in(page, nano_server)
    with page.expect_request("**/events/*"):
        page.goto(f"{nano_server.url}/jobs/{job_id}/")
    with page.expect_event("requestfailed", lambda request: "/events/" in request.url):
        show(page, hidden=True)
    assert streams.kept == set()
    segments = page.locator(".segment").count()
    with page.expect_request("**/events/*") as opened:
        show(page, hidden=False)
    expect(page.locator(".segment").nth(segments)).to_be_visible(timeout=SLOW)
    assert streams.kept == {opened.value}
    with nano_server.client() as client:
        client.post(f"/api/v1/jobs/{job_id}/cancel/")
    expect(page.locator("#live")).to_contain_text("Cancelled", timeout=SLOW)
    streams.wait_until_none_is_kept()


def test_where_no_event_comes_through_the_page_asks_by_itself(nano_server: Server, page: Page, lecture: Path) -> None:
    page.route("**/events/*", lambda _route: None)  # as a proxy that keeps what comes until the end
    job_id = nano_server.submit(lecture, language="en")["id"]
    sign_in(page, nano_server)
    page.goto(f"{nano_server.url}/jobs/{job_id}/")
    expect(page.locator(".segment").first).to_be_visible(timeout=SLOW)
    assert nano_server.job(job_id)["status"] == "transcribing"
    expect(page.get_by_text("Transcribing")).to_have_count(0, timeout=SLOW)
    assert page.locator(".segment").count() == len(nano_server.segments(job_id))


def test_a_page_whose_job_is_deleted_stops_asking_and_keeps_its_text(
    nano_server: Server, page: Page, streams: Streams, complaints: list[str], lecture: Path
) -> None:
    job_id = nano_server.submit(lecture, language="en")["id"]
    sign_in(page, nano_server)
    page.goto(f"{nano_server.url}/jobs/{job_id}/")
    expect(page.locator(".segment").first).to_be_visible(timeout=SLOW)
    with nano_server.client() as client:
        client.delete(f"/api/v1/jobs/{job_id}/")
    expect(page.locator("#live")).to_have_count(0)
    assert page.locator(".segment").count() > 0
    streams.wait_until_none_is_kept()
    page.wait_for_timeout(1500)  # longer than it would pause between two askings
    assert sum("Not Found" in said for said in complaints) == 1
    complaints.clear()


def test_the_player_plays_from_a_segments_time(nano_server: Server, page: Page, long_recording: Path) -> None:
    job_id = nano_server.transcribe(long_recording, **QUICKLY)["id"]
    sign_in(page, nano_server)
    page.goto(f"{nano_server.url}/jobs/{job_id}/")
    times = page.locator(".segment-time")
    times.nth(5).click()
    expect(page.locator(".segment").nth(5)).to_have_class(re.compile("is-now"))
    at = page.evaluate("document.querySelector('audio').currentTime")
    start = nano_server.rows(
        "SELECT start FROM transcription_segment WHERE job_id = ? ORDER BY start", job_id.replace("-", "")
    )
    assert at == pytest.approx(start[5][0], abs=1.5)


def test_a_link_to_a_moment_shows_its_place(nano_server: Server, page: Page, long_recording: Path) -> None:
    job_id = nano_server.transcribe(long_recording, **QUICKLY)["id"]
    sign_in(page, nano_server)
    page.goto(f"{nano_server.url}/jobs/{job_id}/")
    last = page.locator(".segment-time").last
    expect(last).not_to_be_in_viewport()
    link = last.get_attribute("href")
    page.goto("about:blank")
    page.goto(f"{nano_server.url}/jobs/{job_id}/{link}")
    expect(page.locator(".segment").last).to_have_class(re.compile("is-now"))
    expect(last).to_be_in_viewport()


def test_a_transcript_is_downloaded(nano_server: Server, page: Page) -> None:
    sentence = spoken("en")
    job_id = nano_server.transcribe(NANO / "nano" / sentence["file"])["id"]
    sign_in(page, nano_server)
    page.goto(f"{nano_server.url}/jobs/{job_id}/")
    with page.expect_download() as download:
        page.get_by_role("link", name="SRT").click()
    assert download.value.suggested_filename == f"{Path(sentence['file']).stem}.srt"
    assert sentence["text"] in Path(download.value.path()).read_text()


def test_deleting_asks_once_and_the_recording_is_gone(nano_server: Server, page: Page) -> None:
    job = nano_server.transcribe(NANO / "nano" / spoken("en")["file"])
    sign_in(page, nano_server)
    page.goto(f"{nano_server.url}/jobs/{job['id']}/delete/")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("button", name="Choose files")).to_be_visible()
    page.wait_for_load_state()  # and its scripts have run
    assert not (nano_server.data / "recordings" / job["recording"]["id"]).exists()


def test_a_person_has_messages_sent_and_sees_the_test_arrive(nano_server: Server, page: Page) -> None:
    sign_in(page, nano_server)
    page.locator("summary", has_text="admin").click()
    page.get_by_role("link", name="Webhook").click()
    receiver = Receiver()
    receiver.answers = [500]
    with receiver.serving() as url:
        page.get_by_label("Address").fill(url)
        page.get_by_role("button", name="Save").click()
        page.get_by_role("button", name="Send a test").click()
        newest = page.locator(".deliveries > li").first  # earlier tests have sent messages of their own
        expect(newest).to_contain_text("The answer was 500.", timeout=20_000)
        newest.get_by_role("button", name="Send again").click()
        expect(newest).to_contain_text("Delivered: 204", timeout=20_000)
        page.get_by_role("button", name="Copy").click()
        assert receiver.got[1].is_signed_with(page.locator("#secret").inner_text())
        page.get_by_label("Address").fill("")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("status").filter(has_text="No more messages")).to_be_visible()


def test_a_person_chooses_russian_and_the_dark_theme(nano_server: Server, page: Page) -> None:
    sign_in(page, nano_server)
    page.locator("summary", has_text="EN").click()
    page.get_by_role("button", name="Русский").click()
    expect(page.get_by_role("button", name="Выбрать файлы")).to_be_visible()
    page.locator("summary[aria-label^='Тема']").click()
    page.get_by_role("button", name="Тёмная").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_admin_works_under_the_content_security_policy(nano_server: Server, page: Page) -> None:
    job = nano_server.transcribe(NANO / "nano" / spoken("en")["file"])
    sign_in(page, nano_server)
    page.goto(f"{nano_server.url}/admin/transcription/job/?q=bears")
    page.goto(f"{nano_server.url}/admin/transcription/job/{job['id']}/change/")
    page.get_by_label("Notes").fill("Checked.")
    page.get_by_role("button", name="Save", exact=True).click()
    assert nano_server.rows("SELECT notes FROM transcription_job WHERE id = ?", job["id"].replace("-", "")) == [
        ("Checked.",)
    ]
