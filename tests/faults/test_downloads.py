"""A job whose model is not here, with a real server and a hub that is slow, breaks off, or lies."""

import hashlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub import COMMIT, Hub
from tests.server import NANO, QUICKLY, Server, wait_until

FILES = {
    name: (NANO / "faster-whisper-nano" / name).read_bytes()
    for name in ("config.json", "preprocessor_config.json", "tokenizer.json", "vocabulary.json", "model.bin")
}
REPOSITORY = "someone/faster-whisper-pocket"
SENTENCE = NANO / "nano" / "bears.wav"


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Hub, Path]]:
    """A server that has the model nano and whose catalogue knows another, its hub, and its models folder."""
    folder = tmp_path_factory.mktemp("downloads")
    models = folder / "models"
    models.mkdir()
    (models / "faster-whisper-nano").symlink_to(NANO / "faster-whisper-nano")
    files = ",\n".join(
        f'{{ name = "{name}", size = {len(content)}, sha256 = "{hashlib.sha256(content).hexdigest()}" }}'
        for name, content in FILES.items()
    )
    (folder / "catalogue.toml").write_text(
        f'[pocket.weights.faster-whisper]\nrepository = "{REPOSITORY}"\nrevision = "{COMMIT}"\nfiles = [\n{files}\n]\n'
    )
    hub = Hub()
    with hub.serving() as address:
        environment = {
            "HF_ENDPOINT": address,
            "HF_HOME": str(folder / "hf"),
            "MODEL_CATALOGUE": str(folder / "catalogue.toml"),
            "DEFAULT_MODEL": "nano",
        }
        server = Server(folder / "data", models, **environment)
        server.start()
        try:
            yield server, hub, models
        finally:
            server.stop()


@pytest.fixture
def server(online: tuple[Server, Hub, Path]) -> Server:
    return online[0]


@pytest.fixture
def hub(online: tuple[Server, Hub, Path]) -> Hub:
    """It has the files, all is well with it, and the server has none of them."""
    _, hub, models = online
    hub.put(REPOSITORY, FILES)
    hub.bytes_a_second, hub.breaks_after, hub.tells_sums = 0, 0, True
    hub.asked.clear()
    shutil.rmtree(models / "faster-whisper-pocket", ignore_errors=True)
    shutil.rmtree(models / ".faster-whisper-pocket.download", ignore_errors=True)
    return hub


def submit(server: Server, model: str = "pocket") -> str:
    return str(server.submit(SENTENCE, model=model, **QUICKLY)["id"])


def wait_for_progress(server: Server, job: str, least: float) -> float:
    def look() -> float:
        found = server.job(job)
        assert found["status"] in ("queued", "preparing", "downloading"), found
        return float(found["progress"]) if found["status"] == "downloading" and found["progress"] >= least else 0.0

    return wait_until(look)


def downloads(server: Server) -> int:
    return int(server.rows("SELECT count(*) FROM transcription_download")[0][0])


def test_a_job_fetches_its_model_and_others_do_not_wait_for_it(server: Server, hub: Hub) -> None:
    hub.bytes_a_second = 2_000_000
    waiting = [submit(server) for _ in range(5)]
    share = wait_for_progress(server, waiting[0], 0.1)
    others = [submit(server, "nano") for _ in range(2)]
    assert [server.wait(job)["status"] for job in others] == ["done", "done"]
    assert [server.job(job)["status"] for job in waiting] == ["downloading"] * 5
    assert server.job(waiting[4])["progress"] >= share
    assert server.job(waiting[0])["queue_position"] is None
    hub.bytes_a_second = 0
    assert [server.wait(job)["status"] for job in waiting] == ["done"] * 5
    assert server.job(waiting[0])["model"] == "pocket"
    assert len([name for name, _ in hub.asked if name == "model.bin"]) == 1
    assert downloads(server) == 0


def test_a_worker_killed_in_the_middle_of_a_download_goes_on_where_it_was(server: Server, hub: Hub) -> None:
    hub.bytes_a_second = 1_000_000
    job = submit(server)
    wait_for_progress(server, job, 0.3)
    os.kill(server.worker_pid("default"), signal.SIGKILL)
    wait_until(lambda: [name for name, _ in hub.asked].count("model.bin") == 2)  # by the next worker's child
    hub.bytes_a_second = 0
    assert server.wait(job)["status"] == "done"
    assert [name for name, _ in hub.asked].count("config.json") == 1
    starts = [start for name, start in hub.asked if name == "model.bin"]
    assert starts[0] == 0
    assert starts[1] > 1_000_000


def test_a_line_that_breaks_again_and_again_costs_nothing_but_time(server: Server, hub: Hub) -> None:
    hub.breaks_after = 4_000_000
    assert server.wait(submit(server))["status"] == "done"


def test_a_cancelled_job_ends_its_download_within_seconds(server: Server, hub: Hub) -> None:
    hub.bytes_a_second = 1_000_000
    job = submit(server)
    wait_for_progress(server, job, 0.1)
    with server.client() as client:
        assert client.post(f"/api/v1/jobs/{job}/cancel/").json()["progress"] == 0
    wait_until(lambda: downloads(server) == 0, 5)
    time.sleep(1)  # what the connection still holds
    sent = hub.sent
    time.sleep(1)
    assert hub.sent == sent


def test_a_hub_that_lies_fails_the_job_with_what_to_put_where(
    server: Server, hub: Hub, online: tuple[Server, Hub, Path]
) -> None:
    hub.files[f"{REPOSITORY}/model.bin"] = FILES["model.bin"][::-1]
    hub.tells_sums = False
    job = server.wait(submit(server))
    assert job["status"] == "failed"
    assert job["error"]["code"] == "weights_unavailable"
    message = job["error"]["message"]
    assert "the hub gave another model.bin than the published one" in message
    assert str(online[2] / "faster-whisper-pocket") in message
    assert not (online[2] / "faster-whisper-pocket").exists()
    hub.put(REPOSITORY, FILES)
    with server.client() as client:
        assert client.post(f"/api/v1/jobs/{job['id']}/retry/").status_code == 200
    assert server.wait(job["id"])["status"] == "done"
