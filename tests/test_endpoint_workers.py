"""Pictures that attack their decoder: each in a process with limits, which is killed in time."""

import io
import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
from endpoint_tools import encoded, form, scene, serving, until
from PIL import Image
from test_endpoint_load import going_away, inside, left

from napari_pixseg import segment
from napari_pixseg.endpoint import worker_pool
from napari_pixseg.endpoint.segment_job import ImageJob, _decode_once
from napari_pixseg.endpoint.untrusted_image import open_received
from napari_pixseg.errors import Unavailable

PNG = encoded(scene(1))


def handlers(server):
    for route in server.app.router.routes:
        if route.path == "/segment":
            return route.endpoint.__self__
    raise AssertionError


def workers(server):
    return [psutil.Process(one) for one in handlers(server).workers.process_ids]


def refused(answer, status, words):
    assert answer.status == answer.json["status"] == status, answer.body
    assert words in answer.json["error"], answer.body


def huge_tile(side):
    """A TIFF of 100 x 100 pixels in one deflated tile of many more: some KB per GB."""
    packer = zlib.compressobj(9)
    pieces = [packer.compress(bytes(side)) for _ in range(side)]
    data = b"".join([*pieces, packer.flush()])
    tags = {256: 100, 257: 100, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side,
            324: 0, 325: len(data)}  # fmt: skip
    start = 8 + 2 + 12 * len(tags) + 4
    tags[324] = start
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def endless_jpeg(scans):
    """A progressive JPEG whose last scan is there again and again."""
    file = io.BytesIO()
    Image.new("RGB", (4000, 4000), (200, 30, 40)).save(file, "JPEG", progressive=True, quality=5)
    content = file.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * scans + b"\xff\xd9"


def test_tiles_and_strips_count_as_pixels(tmp_path):
    with serving(storage=str(tmp_path), max_pixels=1_000_000) as server:
        refused(server.post(huge_tile(8_000)), 413, "tiles or strips")
        small = huge_tile(512)
        with tifffile.TiffFile(io.BytesIO(small)) as opened:
            assert opened.pages[0].chunks == (512, 512)
        refused(server.post(small, ct=101), 400, "ct")  # Only the parameter is refused.
        file = io.BytesIO()
        tifffile.imwrite(file, scene(1, (700, 700)), photometric="rgb", tile=(256, 256))
        assert server.post(file.getvalue()).status == 200
        assert sum(one.memory_info().rss for one in workers(server)) < 1 << 30


def test_a_decoder_that_takes_too_long_is_killed_and_others_are_served(tmp_path):
    with serving(storage=str(tmp_path), seconds=2, jobs=1) as server:
        assert server.post(PNG).status == 200
        refused(server.post(endless_jpeg(4000)), 413, "more than 2 s")
        until(lambda: left(server) == [])
        assert server.post(PNG).status == 200


def test_a_process_that_begins_slowly_takes_no_time_from_its_image(tmp_path, monkeypatch):
    program = worker_pool._PROGRAM
    monkeypatch.setattr(worker_pool, "_PROGRAM", f"import time; time.sleep(1.5)\n{program}")
    Path(tmp_path, "image").write_bytes(PNG)
    job = ImageJob(str(tmp_path / "image"), "", 10_000)
    pool = worker_pool.WorkerPool(1, 10_000, seconds=1.4)
    try:
        assert pool.run_job(job, threading.Event()).status == 200
    finally:
        pool.close()
    monkeypatch.setattr(worker_pool, "_PROGRAM", "raise SystemExit")
    pool = worker_pool.WorkerPool(1, 10_000, seconds=9)
    with pytest.raises(Unavailable, match="too busy"):
        pool.run_job(job, threading.Event())
    pool.close()


def test_workers_keep_kernels_where_nothing_but_the_servers_folder_can_be_written(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    assert worker_pool.kernel_environment(tmp_path) == {}
    monkeypatch.setattr(os, "access", lambda *_: False)
    environment = worker_pool.kernel_environment(tmp_path)
    monkeypatch.setattr(worker_pool, "_PROGRAM", "import os; print(os.environ['NUMBA_CACHE_DIR'])")
    worker = worker_pool._Worker(("1", "1"), environment)
    assert worker.process.stdout.read().strip() == os.fsencode(tmp_path / "kernels")
    worker.end()
    with serving(storage=str(tmp_path / "storage")) as server:
        assert handlers(server).workers.environment["NUMBA_CACHE_DIR"].endswith("kernels")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "elsewhere")
    assert worker_pool.kernel_environment(tmp_path) == {}


def test_leaving_ends_the_process_that_decodes(tmp_path):
    body, kind = form({"blob": "true"}, endless_jpeg(4000))
    with serving(storage=str(tmp_path), seconds=60, jobs=1) as server:
        assert server.post(PNG).status == 200
        (worker,) = workers(server)
        before = worker.cpu_times().user
        line = going_away(server, body, kind)
        until(lambda: worker.cpu_times().user > before + 0.3)
        line.close()
        until(lambda: not worker.is_running())
        until(lambda: inside(server) == 0 and left(server) == [])
        assert server.post(PNG).status == 200


def test_a_worker_that_dies_is_replaced_and_its_picture_refused(tmp_path):
    with serving(storage=str(tmp_path), jobs=1) as server:
        assert server.post(PNG).status == 200
        body = endless_jpeg(4000)
        answers = []
        client = threading.Thread(target=lambda: answers.append(server.post(body)))
        (worker,) = workers(server)
        before = worker.cpu_times().user
        client.start()
        until(lambda: worker.cpu_times().user > before + 0.3)
        worker.kill()
        client.join()
        refused(answers[0], 422, "save it again")
        assert server.post(PNG).status == 200


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the memory of a process")
def test_more_memory_than_the_limit_is_refused():
    program = """
import numpy as np
from napari_pixseg.endpoint.image_worker import limit_memory
limit_memory(200 << 20)
np.ones(100 << 20, np.uint8)
try:
    np.ones(500 << 20, np.uint8)
except MemoryError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=True)  # fmt: skip
    assert done.stdout == "refused\n"


def test_workers_end_with_their_server_even_if_it_is_killed(tmp_path):
    from test_endpoint_faults import started

    with started(tmp_path) as (process, server):
        assert server.post(PNG).status == 200
        children = psutil.Process(process.pid).children()
        assert children
        process.kill()
        process.wait(30)
        until(lambda: not any(one.is_running() and one.status() != "zombie" for one in children))


def test_a_worker_is_used_again_and_gives_the_same_to_the_last_bit(tmp_path):
    """Also for TIFFs, whose parts Dask would read, and for regions, which it would stitch."""
    with serving(storage=str(tmp_path), jobs=1) as server:
        pids = set()
        for seed, kind in enumerate(("PNG", "TIFF", "PNG", "TIFF", "PNG")):
            picture = scene(seed, (60, 70))
            wanted = segment(picture, ct=0.5, denoise=seed % 2, min_size=3)
            for output in ("recolored", "classes", "regions"):
                answer = server.post(encoded(picture, kind), blob="true", ct=0.5, min_size=3,
                                     denoise=seed % 2, outputs=output)  # fmt: skip
                assert np.array_equal(answer.pixels, getattr(wanted, output).compute())
                pids.update(one.pid for one in workers(server))
        assert len(pids) == 1
        assert os.getpid() not in pids


def test_a_tiff_of_huge_samples_is_read_in_parts(tmp_path):
    """Decoded at once, it would take more memory than its worker has."""
    pixels = np.repeat(scene(1, (64, 64)).astype(np.float64)[..., :1], 5, axis=2)
    path = tmp_path / "image"
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(32, 32))
    source = open_received(path, None, 64 * 64)
    assert not _decode_once(source, 64 * 64).is_in_memory
    assert _decode_once(source, 3 * 64 * 64).is_in_memory


@pytest.mark.parametrize(
    ("shape", "axes"), [((5, 30, 40), "CYX"), ((30, 40, 5), "YXS"), ((30, 40, 5), "YXQ")]
)
def test_advice_is_for_clients_of_http(tmp_path, shape, axes):
    file = io.BytesIO()
    metadata = {"axes": axes}
    tifffile.imwrite(file, np.zeros(shape, np.uint8), photometric="minisblack", metadata=metadata)
    with serving(storage=str(tmp_path)) as server:
        answer = server.post(file.getvalue())
        assert answer.status in (413, 415), answer.body
        for word in ("axes=", "channels=", "zarr", "array", "install", "--"):
            assert word not in answer.json["error"]
        sentence = server.post(b"\x89PNG\r\n\x1a\n" + b"\0" * 40).json["error"]
        assert "zarr" not in sentence
        assert "save it" in sentence
