"""Data sets: order of sources, verification, splits, paired subsets, one-hot targets.

Nothing here leaves the machine: the downloader meets a local HTTP server, and the files are tiny
IDX files made on the spot. The tests on the real data sets need LNN_DATA=folder.
"""

import dataclasses
import gzip
import hashlib
import os
import re
import struct
import threading
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from sklearn.datasets import load_digits

from lnn_core import data

PUBLISHED = dict(data.published.SOURCES)
REAL_DATA = os.environ.get("LNN_DATA")
needs_real_data = pytest.mark.skipif(
    not REAL_DATA, reason="set LNN_DATA=folder to check the real data sets"
)

IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
PART_IMAGES, PART_LABELS = "part-images-idx3-ubyte.gz", "part-labels-idx1-ubyte.gz"
OFFICIAL = (IMAGES, LABELS, TEST_IMAGES, TEST_LABELS)


# --- a tiny data set, a local mirror -------------------------------------------------------------


def idx(array, *, kind=0x08, shape=None):
    """IDX bytes from the format's definition, with the header open to tampering."""
    shape = array.shape if shape is None else shape
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, kind, len(shape), *shape) + array.tobytes()


def describe(name, array):
    return data.idx.File(name, array.shape, hashlib.sha256(idx(array)).hexdigest())


@pytest.fixture
def arrays():
    """File name → content: 12 training and 5 test images of 2×3 pixels; the first 7 as the part."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 2, 3), dtype=np.uint8)
    labels = np.arange(12, dtype=np.uint8) % 10
    return {
        IMAGES: images,
        LABELS: labels,
        TEST_IMAGES: rng.integers(0, 256, (5, 2, 3), dtype=np.uint8),
        TEST_LABELS: np.array([9, 0, 3, 3, 7], dtype=np.uint8),
        PART_IMAGES: images[:7],
        PART_LABELS: labels[:7],
    }


@pytest.fixture(autouse=True)
def source(monkeypatch, tmp_path, arrays):
    """Put the tiny data set in MNIST's place, take every real mirror away, use a fresh cache."""
    monkeypatch.delenv("LNN_DATA", raising=False)
    monkeypatch.setenv("LNN_CACHE", str(tmp_path / "cache"))
    for variable in ("no_proxy", "NO_PROXY"):  # the machine's proxy cannot see our loopback
        monkeypatch.setenv(variable, "127.0.0.1")
    for name, published in PUBLISHED.items():
        monkeypatch.setitem(data.published.SOURCES, name, dataclasses.replace(published, mirrors=()))
    files = {name: describe(name, array) for name, array in arrays.items()}
    tiny = data.published.Source(
        "Tiny",
        mirrors=(),
        train=(files[IMAGES], files[LABELS]),
        test=(files[TEST_IMAGES], files[TEST_LABELS]),
        validation=4,
        partial=(files[PART_IMAGES], files[PART_LABELS]),
        partial_validation=2,
    )
    monkeypatch.setitem(data.published.SOURCES, "mnist", tiny)
    return tiny


@pytest.fixture
def folder(monkeypatch, tmp_path, arrays):
    """LNN_DATA with the four official files; returns the data set's folder in it."""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for name in OFFICIAL:
        (folder / name).write_bytes(gzip.compress(idx(arrays[name])))
    monkeypatch.setenv("LNN_DATA", str(folder.parent))
    return folder


class Mirror(ThreadingHTTPServer):
    """A local server: ``routes`` maps a path to a body, ``cut``, ``stalled`` and ``trickled`` hold
    bad paths."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes, self.cut, self.stalled, self.trickled = {}, set(), set(), set()
        self.compresses = False  # for all who do not refuse it
        self.asked = []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def serve(self, place, files):
        self.routes.update({f"/{place}/{name}": body for name, body in files.items()})


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append(self.path)
        if self.path in server.stalled:
            server.closing.wait()
            return
        body = server.routes.get(self.path)
        if body is None:
            return self.send_error(404)
        self.send_response(200)
        if server.compresses and self.headers["Accept-Encoding"] != "identity":
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path in server.trickled:
            self.wfile.write(body[:1])
            server.closing.wait()
            return
        self.wfile.write(body[: len(body) // 2] if self.path in server.cut else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(monkeypatch, source):
    """The server, known to the loader as two mirrors: /first/ and /second/."""
    with Mirror() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        urls = (f"{server.url}/first/", f"{server.url}/second/")
        monkeypatch.setitem(data.published.SOURCES, "mnist", dataclasses.replace(source, mirrors=urls))
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def good(arrays):
    """What an honest mirror serves."""
    return {name: gzip.compress(idx(arrays[name])) for name in OFFICIAL}


def cached_files():
    """Everything in the cache, temporary leftovers included."""
    return sorted(p.name for p in Path(os.environ["LNN_CACHE"]).rglob("*") if p.is_file())


def assert_is_tiny(dataset, arrays):
    """The four arrays, scaled to [0, 1] and split 8 + 4 + 5, in the official order."""
    x, y = arrays[IMAGES].reshape(12, 6) / np.float32(255), arrays[LABELS].astype(np.int64)
    test_x, test_y = arrays[TEST_IMAGES].reshape(5, 6) / np.float32(255), arrays[TEST_LABELS]
    expected = (x[:8], y[:8]), (x[8:], y[8:]), (test_x, test_y.astype(np.int64))
    for split, wanted in zip((dataset.train, dataset.validation, dataset.test), expected):
        np.testing.assert_array_equal(split.x.numpy(), wanted[0], strict=True)
        np.testing.assert_array_equal(split.y.numpy(), wanted[1], strict=True)


# --- LNN_DATA ------------------------------------------------------------------------------------


def test_local_files_become_scaled_splits_in_official_order(folder, arrays):
    """If it fails, pixels are scaled wrongly or the validation samples are not the last ones."""
    dataset = data.load("mnist")
    assert_is_tiny(dataset, arrays)
    assert (dataset.name, dataset.dim, dataset.classes) == ("mnist", 6, 10)
    assert dataset.notice is None
    assert dataset.source == "Tiny, files verified by SHA-256 (LNN_DATA folder)"


def test_local_files_come_before_the_network(folder, mirror, good, arrays):
    """If it fails, a set-up folder is ignored in favour of a download."""
    mirror.serve("first", good)
    assert_is_tiny(data.load("mnist"), arrays)
    assert mirror.asked == [] and cached_files() == []


def test_a_file_missing_from_the_folder_is_downloaded(folder, mirror, good, arrays):
    """If it fails, an incomplete folder counts as no folder, or the source hides the mixture."""
    (folder / IMAGES).unlink()
    mirror.serve("first", good)
    dataset = data.load("mnist")
    assert_is_tiny(dataset, arrays)
    assert mirror.asked == [f"/first/{IMAGES}"]
    assert dataset.source.endswith("(LNN_DATA folder and download)")


# damage → the file, its new bytes, what the error says
DAMAGE = {
    "not gzip": (IMAGES, lambda a: idx(a), "not a complete gzip file"),
    "empty": (IMAGES, lambda a: b"", "magic number 0x, expected 0x00000803"),
    "cut gzip": (IMAGES, lambda a: gzip.compress(idx(a))[:-9], "not a complete gzip file"),
    "labels for images": (
        IMAGES,
        lambda a: gzip.compress(idx(a[:, 0, 0])),
        "magic number 0x00000801, expected 0x00000803",
    ),
    "float pixels": (IMAGES, lambda a: gzip.compress(idx(a, kind=0x0D)), "magic number 0x00000d03"),
    "fewer images": (
        IMAGES,
        lambda a: gzip.compress(idx(a[:-1])),
        "shape (11, 2, 3), expected (12, 2, 3)",
    ),
    "other image size": (
        IMAGES,
        lambda a: gzip.compress(idx(a.reshape(12, 3, 2))),
        "shape (12, 3, 2), expected (12, 2, 3)",
    ),
    "header only": (IMAGES, lambda a: gzip.compress(idx(a)[:6]), "expected (12, 2, 3)"),
    "count too high": (
        IMAGES,
        lambda a: gzip.compress(idx(a[:-1], shape=a.shape)),
        "66 values, expected 72",
    ),
    "count too low": (
        LABELS,
        lambda a: gzip.compress(idx(a) + b"\0"),
        "more values, expected 12",
    ),
    "other pixels": (IMAGES, lambda a: gzip.compress(idx(a ^ 1)), "SHA-256"),
    "labels in another order": (LABELS, lambda a: gzip.compress(idx(a[::-1].copy())), "SHA-256"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_local_file_is_an_error_and_nothing_else_is_tried(
    damage, folder, mirror, good, arrays
):
    """If it fails, a run goes on with garbage, or silently with other data than the user set up."""
    name, make, complaint = DAMAGE[damage]
    mirror.serve("first", good)
    (folder / name).write_bytes(make(arrays[name]))
    with pytest.raises(data.DataCorrupted) as caught:
        data.load("mnist", fallback=True, partial=True)
    assert str(caught.value).startswith(str(folder / name))
    assert complaint in str(caught.value)
    assert mirror.asked == []


def test_an_unreadable_local_file_is_named(folder):
    """If it fails, an operating-system error escapes as something else than damaged data."""
    (folder / IMAGES).unlink()
    (folder / IMAGES).mkdir()
    with pytest.raises(data.DataCorrupted, match=IMAGES):
        data.load("mnist")


def test_labels_above_nine_are_refused_even_with_the_right_hash(monkeypatch, folder, source):
    """If it fails, a wrong entry in the table of hashes lets a label 10 reach training."""
    labels = np.full(12, 10, dtype=np.uint8)
    (folder / LABELS).write_bytes(gzip.compress(idx(labels)))
    wrong = dataclasses.replace(source, train=(source.train[0], describe(LABELS, labels)))
    monkeypatch.setitem(data.published.SOURCES, "mnist", wrong)
    with pytest.raises(data.DataCorrupted, match="label 10 is outside 0…9"):
        data.load("mnist")


def test_no_truncation_of_a_file_passes(arrays, source):
    """If it fails, a download or copy that stopped at some byte is taken for the file."""
    payload = gzip.compress(idx(arrays[IMAGES]))
    for length in range(len(payload)):
        with pytest.raises(data.DataCorrupted):
            data.idx.decode(payload[:length], source.train[0])


def test_no_flipped_bit_changes_what_is_read(arrays, source):
    """If it fails, damage anywhere in the file either crashes the reader or changes a sample."""
    payload = gzip.compress(idx(arrays[IMAGES]))
    for position in range(len(payload)):
        for bit in range(8):
            flipped = bytearray(payload)
            flipped[position] ^= 1 << bit
            try:
                content = data.idx.decode(bytes(flipped), source.train[0])
            except data.DataCorrupted:
                continue
            np.testing.assert_array_equal(content, arrays[IMAGES])  # gzip's time stamp, say


def test_a_hash_of_the_gzip_file_refuses_a_repacked_copy(arrays, source):
    """If it fails, a file known only by its .gz hash (KMNIST's training images) goes unchecked."""
    published = gzip.compress(idx(arrays[IMAGES]), mtime=1)
    sha256 = hashlib.sha256(published).hexdigest()
    file = source.train[0]._replace(sha256=sha256, hashes_gzip=True)
    np.testing.assert_array_equal(data.idx.decode(published, file), arrays[IMAGES])
    with pytest.raises(data.DataCorrupted, match="SHA-256 of the .gz"):
        data.idx.decode(gzip.compress(idx(arrays[IMAGES]), mtime=2), file)


@pytest.mark.parametrize("shape", [(1000, 1000), (1_000_000,)], ids=["images", "labels"])
def test_no_more_is_unpacked_than_the_file_should_hold(shape):
    """If it fails, a small file fills the memory: 256 MB of zeros from a quarter of a megabyte.

    The largest that is held is the content expected, 1 MB, with what unpacking it needs.
    """
    packer = zlib.compressobj(wbits=31)
    header = idx(np.zeros(0, np.uint8), shape=shape)
    bomb = packer.compress(header) + b"".join(packer.compress(bytes(2**20)) for _ in range(256))
    bomb += packer.flush()
    tracemalloc.start()
    with pytest.raises(data.DataCorrupted, match="more values, expected"):
        data.idx.decode(bomb, data.idx.File("bomb", shape, "0" * 64))
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()


def test_incompressible_bytes_fit_the_bound(arrays):
    """If it fails, an honest file, packed as badly as gzip can, is refused for its size."""
    for array in (np.random.default_rng(0).integers(0, 10, 10, dtype=np.uint8),
                  np.random.default_rng(0).integers(0, 256, (1500, 28, 28), dtype=np.uint8)):
        file = describe("file", array)
        for level in (0, 1, 9):
            payload = gzip.compress(idx(array), compresslevel=level)
            np.testing.assert_array_equal(data.idx.decode(payload, file), array)


def test_a_local_file_that_is_too_large_is_not_read(folder):
    """If it fails, a file of any size goes into memory before it is looked at: here 1 TB of
    holes."""
    os.truncate(folder / IMAGES, 2**40)
    with pytest.raises(data.DataCorrupted, match=f"{IMAGES}: more than 1,112 bytes"):
        data.load("mnist")


def test_what_is_said_of_the_published_files():
    """If it fails, a source's name, address or hash is another kind of text, or one stands twice."""
    hashes = [file.sha256 for source in PUBLISHED.values()
              for pair in (source.train, source.test, source.partial or ()) for file in pair]
    assert len(set(hashes)) == len(hashes) and all(re.fullmatch("[0-9a-f]{64}", h) for h in hashes)
    for name, source in PUBLISHED.items():
        assert source.title.lower() == name
        assert all(re.fullmatch(r"https?://[\w./-]+/", url) for url in source.mirrors)
        assert [[file.shape for file in pair] for pair in (source.train, source.test)] == [
            [(n, 28, 28), (n,)] for n in (60_000, 10_000)]


# --- sources that cannot be used -----------------------------------------------------------------


def homeless(monkeypatch):
    """A user without an entry among the users, as in a container."""
    def nobody(uid):
        raise KeyError(uid)

    for name in ("HOME", "LNN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)


def without(name):
    """A setting that names a file which is not there."""
    return lambda monkeypatch: monkeypatch.setenv(name, "/nowhere/at all")


UNUSABLE = {
    "REQUESTS_CA_BUNDLE": (without("REQUESTS_CA_BUNDLE"), "/nowhere/at all"),
    "CURL_CA_BUNDLE": (lambda m: (m.delenv("REQUESTS_CA_BUNDLE", raising=False),
                                  without("CURL_CA_BUNDLE")(m)), "/nowhere/at all"),
    "no home": (homeless, "LNN_CACHE= cannot be used ("),
    "empty home": (lambda m: (m.setenv("HOME", ""), m.delenv("LNN_CACHE")), "LNN_DATA is not set"),
    "no such user": (lambda m: m.setenv("LNN_DATA", "~no-such-user/data"),
                     "LNN_DATA=~no-such-user/data cannot be used"),
    "no such user's cache": (lambda m: m.setenv("LNN_CACHE", "~no-such-user/cache"),
                             "LNN_CACHE=~no-such-user/cache cannot be used"),
    "no possible name": (lambda m: m.setenv("LNN_DATA", "x" * 5000), "LNN_DATA="),
    "a file": (lambda m: m.setenv("LNN_DATA", __file__), f"LNN_DATA={__file__} does not hold it"),
}


@pytest.fixture
def unsafe(monkeypatch, source):
    """One mirror, with TLS, so that certificates are asked for; nobody listens there."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        url = f"https://127.0.0.1:{closed.server_address[1]}/"
    monkeypatch.setitem(data.published.SOURCES, "mnist", dataclasses.replace(source, mirrors=(url,)))
    return url


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_source_that_cannot_be_used_is_named(case, monkeypatch, unsafe):
    """If it fails, an error of the operating system ends a run that allowed a substitute."""
    prepare, words = UNUSABLE[case]
    prepare(monkeypatch)
    dataset = data.load("mnist", fallback=True)
    assert dataset.name == "digits"
    assert words in dataset.notice and f"{unsafe} (" in dataset.notice


@pytest.mark.parametrize("case", ["no home", "no such user", "no such user's cache",
                                  "no possible name", "a file"])
@pytest.mark.filterwarnings("ignore:cannot cache")
def test_the_next_source_is_tried(case, monkeypatch, mirror, good, arrays):
    """If it fails, a folder that cannot be used keeps a machine with internet from its data."""
    UNUSABLE[case][0](monkeypatch)
    mirror.serve("first", good)
    assert_is_tiny(data.load("mnist"), arrays)


def test_without_a_folder_for_it_there_is_no_cache(monkeypatch, mirror, good, arrays):
    """If it fails, each process downloads everything again and nobody is told."""
    homeless(monkeypatch)
    mirror.serve("first", good)
    with pytest.warns(UserWarning, match="cannot cache .* set LNN_CACHE=folder"):
        assert_is_tiny(data.load("mnist"), arrays)


def test_a_relative_folder_is_named_in_full(monkeypatch, tmp_path):
    """If it fails, a reader cannot see where LNN_DATA=data was looked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LNN_DATA", "data")
    notice = data.load("mnist", fallback=True).notice
    assert f"LNN_DATA={tmp_path / 'data'} does not hold it" in notice


# --- download ------------------------------------------------------------------------------------


def test_download_is_cached_and_the_second_load_needs_no_network(mirror, good, arrays):
    """If it fails, every load downloads again, or the cache holds something else than the files."""
    mirror.serve("first", good)
    first = data.load("mnist")
    assert_is_tiny(first, arrays)
    assert sorted(mirror.asked) == sorted(f"/first/{name}" for name in OFFICIAL)
    assert cached_files() == sorted(OFFICIAL)
    mirror.asked.clear()
    second = data.load("mnist")
    assert_is_tiny(second, arrays)
    assert mirror.asked == []
    assert first.source == second.source == "Tiny, files verified by SHA-256 (download)"


def test_a_proxy_does_not_come_between_this_machine_and_itself(monkeypatch, mirror, good, arrays):
    """If it fails, these loopback tests fail on a machine that sets a proxy."""
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    mirror.serve("first", good)
    assert_is_tiny(data.load("mnist"), arrays)


def impatient(monkeypatch, mirror):
    """Time out almost at once where the mirror never answers, and nowhere else: a busy machine
    may take its time. What the loader asks for itself has to be a limit, too."""
    get = requests.get

    def hurried(url, *, timeout, **options):
        assert timeout == data.files._TIMEOUT and all(0 < seconds < 60 for seconds in timeout)
        silent = url.removeprefix(mirror.url) in mirror.stalled
        return get(url, timeout=(None, 0.01) if silent else None, **options)

    monkeypatch.setattr(requests, "get", hurried)


def spoil(mirror, place, how, good, arrays):
    """Make one mirror bad for the training images; returns the words the error must have."""
    path = f"/{place}/{IMAGES}"
    mirror.serve(place, good)
    if how == "404":
        del mirror.routes[path]
        return "HTTP 404"
    if how == "cut connection":
        mirror.cut.add(path)
        return "connection failed"
    if how == "silence":
        mirror.stalled.add(path)
        return "connection failed"
    if how == "a page instead of the file":
        mirror.routes[path] = b"<html>Please log in to the network</html>"
        return "not a complete gzip file"
    if how == "too large":
        mirror.routes[path] += bytes(2000)
        return "more than 1,112 bytes"
    assert how == "wrong bytes"
    mirror.routes[path] = gzip.compress(idx(arrays[IMAGES] ^ 1))
    return "SHA-256"


FAILURES = ["404", "cut connection", "silence", "a page instead of the file", "too large",
            "wrong bytes"]


@pytest.mark.parametrize("how", FAILURES)
def test_the_second_mirror_is_tried(how, monkeypatch, mirror, good, arrays):
    """If it fails, one bad mirror stops a load that another mirror can serve."""
    impatient(monkeypatch, mirror)
    spoil(mirror, "first", how, good, arrays)
    mirror.serve("second", good)
    assert_is_tiny(data.load("mnist"), arrays)
    assert f"/second/{IMAGES}" in mirror.asked
    assert cached_files() == sorted(OFFICIAL)


@pytest.mark.parametrize("how", FAILURES)
def test_a_failed_download_leaves_nothing_behind(how, monkeypatch, mirror, good, arrays):
    """If it fails, a bad or half-written file stays in the cache, or the error does not say why."""
    impatient(monkeypatch, mirror)
    words = [spoil(mirror, place, how, good, arrays) for place in ("first", "second")]
    with pytest.raises(data.DataUnavailable) as caught:
        data.load("mnist")
    message = str(caught.value)
    assert IMAGES in message and message.count(words[0]) == 2
    assert f"{mirror.url}/first/" in message and f"{mirror.url}/second/" in message
    assert IMAGES not in cached_files()
    assert set(cached_files()) <= set(OFFICIAL)  # the complete ones, no temporary file


def test_the_file_itself_is_asked_for(mirror, good, arrays):
    """If it fails, a server that packs what it sends sends another file than the one with the hash."""
    mirror.serve("first", good)
    mirror.compresses = True
    assert_is_tiny(data.load("mnist"), arrays)
    assert len(mirror.asked) == len(OFFICIAL)


def test_a_download_has_a_size(mirror):
    """If it fails, what a mirror sends goes into memory whatever its size."""
    mirror.routes["/first/file"] = bytes(5000)
    assert data.files._download(f"{mirror.url}/first/file", "file", 5000, True) == bytes(5000)
    with pytest.raises(data.DataCorrupted, match="more than 4,999 bytes"):
        data.files._download(f"{mirror.url}/first/file", "file", 4999, True)


def test_a_download_that_never_ends_is_given_up(monkeypatch, mirror, good):
    """If it fails, a mirror that sends a byte now and then holds a run up for days."""
    monkeypatch.setattr(data.files, "_PATIENCE", -1.0)
    mirror.serve("first", good)
    with pytest.raises(data.DataUnavailable, match="first/ .not there after -1 seconds"):
        data.load("mnist")


def test_what_has_arrived_is_counted_at_once(monkeypatch, mirror, good):
    """If it fails, the time is looked at only when much has arrived: the server sends one byte and
    waits. (It would wait for ever, were the connection not given up.)"""
    monkeypatch.setattr(data.files, "_PATIENCE", -1.0)
    mirror.serve("first", good)
    mirror.trickled.add(f"/first/{IMAGES}")
    with pytest.raises(data.DataUnavailable, match="first/ .not there after -1 seconds"):
        data.load("mnist")


def test_a_refused_connection_is_closed(monkeypatch, mirror):
    """If it fails, a 404 leaves its socket to the garbage collector: a ResourceWarning at some
    time."""
    closed, close = [], requests.Response.close
    monkeypatch.setattr(
        requests.Response, "close", lambda response: (closed.append(response.url), close(response))
    )
    with pytest.raises(data.DataUnavailable, match="HTTP 404"):
        data.load("mnist")
    assert closed == [mirror.url + path for path in mirror.asked]


def test_without_any_source_the_error_says_what_helps():
    """If it fails, a user without internet is left without the next step."""
    with pytest.raises(data.DataUnavailable) as caught:
        data.load("mnist")
    for words in ("Tiny", "LNN_DATA is not set", "LNN_DATA=folder", "folder/mnist/",
                  "partial=True", "fallback=True"):  # fmt: skip
        assert words in str(caught.value)
    with pytest.raises(data.DataUnavailable) as caught:
        data.load("fashion-mnist")
    assert "partial" not in str(caught.value)


def test_no_server_at_all_is_unavailable(monkeypatch, source):
    """If it fails, a refused connection escapes as an error of the HTTP library."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        url = f"http://127.0.0.1:{closed.server_address[1]}/"
    monkeypatch.setitem(data.published.SOURCES, "mnist", dataclasses.replace(source, mirrors=(url,)))
    with pytest.raises(data.DataUnavailable, match="connection failed"):
        data.load("mnist")


def test_a_damaged_cached_file_is_downloaded_again(mirror, good, arrays):
    """If it fails, damage on disk after the download goes unnoticed, or is never repaired."""
    mirror.serve("first", good)
    data.load("mnist")
    cached = Path(os.environ["LNN_CACHE"], "mnist", LABELS)
    cached.write_bytes(good[LABELS][:-5])
    mirror.asked.clear()
    assert_is_tiny(data.load("mnist"), arrays)
    assert mirror.asked == [f"/first/{LABELS}"]
    assert cached.read_bytes() == good[LABELS]


def test_a_damaged_cached_file_without_a_mirror_is_an_error(mirror, good):
    """If it fails, damage turns silently into a run on the small digits."""
    mirror.serve("first", good)
    data.load("mnist")
    cached = Path(os.environ["LNN_CACHE"], "mnist", LABELS)
    cached.write_bytes(b"garbage")
    mirror.routes.clear()
    for _ in range(2):  # the second time too: the damaged file is still there to be reported
        with pytest.raises(data.DataCorrupted) as caught:
            data.load("mnist", fallback=True)
        assert str(cached) in str(caught.value) and "HTTP 404" in str(caught.value)


def test_a_cache_that_cannot_be_written_costs_a_warning_only(
    monkeypatch, tmp_path, mirror, good, arrays
):
    """If it fails, a read-only home folder stops a run whose data have arrived and are verified."""
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("LNN_CACHE", str(tmp_path / "file" / "cache"))
    mirror.serve("first", good)
    with pytest.warns(UserWarning, match="LNN_CACHE=folder"):
        assert_is_tiny(data.load("mnist"), arrays)


def test_a_full_disk_leaves_nothing_behind(monkeypatch, mirror, good, arrays):
    """If it fails, a write that fails half way leaves a file under its final or a temporary
    name."""

    def half_written(path, payload):
        with open(path, "wb") as file:
            file.write(payload[: len(payload) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half_written)
    mirror.serve("first", good)
    with pytest.warns(UserWarning, match="No space left on device"):
        assert_is_tiny(data.load("mnist"), arrays)
    assert cached_files() == []


def test_parallel_loads_share_one_cache(mirror, good, arrays):
    """If it fails, the workers of run_all, started at once on an empty cache, trip over each
    other."""
    mirror.serve("first", good)
    with ThreadPoolExecutor(4) as pool:
        for dataset in pool.map(data.load, ["mnist"] * 8):
            assert_is_tiny(dataset, arrays)
    assert cached_files() == sorted(OFFICIAL)


def test_progress_bar_only_where_wanted(capsys, tmp_path, monkeypatch, mirror, good):
    """If it fails, a page or a log fills with progress bars, or a terminal shows none."""
    mirror.serve("first", good)
    for quiet, shown in ((None, False), (True, False), (False, True)):  # here: not a terminal
        monkeypatch.setenv("LNN_CACHE", str(tmp_path / f"cache {quiet}"))
        data.load("mnist", quiet=quiet)
        out, err = capsys.readouterr()
        assert out == "" and (f"mnist/{IMAGES}" in err) == shown


# --- substitutes ---------------------------------------------------------------------------------


def test_fallback_gives_digits_and_a_notice(mirror, tmp_path):
    """If it fails, digits pass for the data set, or a page shows a path of the machine."""
    dataset = data.load("mnist", fallback=True)
    assert dataset.name == "digits" and dataset.dim == 64
    for words in ("Tiny is not available", "HTTP 404", "bundled 8×8 digits", "not about Tiny"):
        assert words in dataset.notice
    assert str(tmp_path) not in dataset.notice + dataset.source


def test_fallback_is_not_taken_when_the_data_are_there(folder, arrays):
    """If it fails, allowing the fallback changes a run that needs none."""
    assert_is_tiny(data.load("mnist", fallback=True, partial=True), arrays)


@pytest.fixture
def part_only(folder, arrays):
    """LNN_DATA with the part in place of the whole training images."""
    (folder / IMAGES).unlink()
    for name in (PART_IMAGES, PART_LABELS):
        (folder / name).write_bytes(gzip.compress(idx(arrays[name])))
    return folder


def test_part_of_a_training_set_needs_consent(part_only):
    """If it fails, an experiment runs on a fraction of the data without asking for it."""
    with pytest.raises(data.DataUnavailable, match="partial=True"):
        data.load("mnist")


def test_part_of_a_training_set_says_so(part_only, arrays):
    """If it fails, the part is cut or split wrongly, or its notice is missing."""
    dataset = data.load("mnist", partial=True, fallback=True)
    pixels = arrays[IMAGES].reshape(12, 6) / np.float32(255)
    np.testing.assert_array_equal(dataset.train.x.numpy(), pixels[:5])
    np.testing.assert_array_equal(dataset.validation.x.numpy(), pixels[5:7])
    np.testing.assert_array_equal(dataset.validation.y.numpy(), arrays[LABELS][5:7])
    assert len(dataset.test.y) == 5
    for words in ("first 7 of the 12 training samples", "last 2", "test set is complete"):
        assert words in dataset.notice


def test_the_whole_training_set_comes_before_the_part(part_only, mirror, good, arrays):
    """If it fails, consent to the part keeps a machine with internet from the whole."""
    mirror.serve("first", good)
    dataset = data.load("mnist", partial=True)
    assert_is_tiny(dataset, arrays)
    assert dataset.notice is None


def test_a_damaged_part_is_an_error(part_only):
    """If it fails, a damaged part is used, or silently replaced by digits."""
    (part_only / PART_LABELS).write_bytes(b"garbage")
    with pytest.raises(data.DataCorrupted, match=PART_LABELS):
        data.load("mnist", partial=True, fallback=True)


def test_consent_without_a_part_reports_both_attempts(folder, mirror):
    """If it fails, the error hides that the whole set was tried, or mirrors are asked for the
    part."""
    (folder / IMAGES).unlink()
    with pytest.raises(data.DataUnavailable) as caught:
        data.load("mnist", partial=True)
    assert f"mnist/{IMAGES}" in str(caught.value) and f"mnist/{PART_IMAGES}" in str(caught.value)
    assert mirror.asked == [f"/first/{IMAGES}", f"/second/{IMAGES}"]


# --- digits, names, subsets, targets -------------------------------------------------------------


def test_digits_are_scikit_learns_in_file_order():
    """If it fails, samples are lost, doubled, rescaled or moved between the splits."""
    dataset, bundle = data.load("digits"), load_digits()
    splits = dataset.train, dataset.validation, dataset.test
    x, y = (torch.cat(parts) for parts in zip(*splits))
    np.testing.assert_array_equal(x.numpy() * 16, bundle.data.astype(np.float32), strict=True)
    np.testing.assert_array_equal(y.numpy(), bundle.target.astype(np.int64), strict=True)
    assert [len(split.y) for split in splits] == [1197, 300, 300]
    assert all(split.y.bincount().min() >= 20 for split in splits)  # every class in every split
    assert (dataset.name, dataset.dim, dataset.notice) == ("digits", 64, None)


@pytest.mark.parametrize("name", ["cifar10", "MNIST", "", None])
def test_an_unknown_name_is_refused_with_the_choices(name):
    """If it fails, a typing error gives a data set, or an error without the choices."""
    with pytest.raises(ValueError) as caught:
        data.load(name)
    for words in (repr(name), "mnist", "fashion-mnist", "kmnist", "digits"):
        assert words in str(caught.value)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_mirror_is_a_folder(name):
    """If it fails, a mirror without its final slash makes wrong addresses, or stands alone."""
    mirrors = PUBLISHED[name].mirrors
    assert len(set(mirrors)) >= 2
    assert all(url.startswith("http") and url.endswith("/") for url in mirrors)


def test_subsets_are_paired_by_seed_and_leave_the_global_generator_alone():
    """If it fails, two methods at one seed see other samples, or a draw disturbs the training's."""
    dataset = data.load("digits")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = dataset.subset(50, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = data.load("digits").subset(50, seed=3), dataset.subset(50, seed=4)
    assert torch.equal(first.x, again.x) and torch.equal(first.y, again.y)
    assert not torch.equal(first.x, other.x)


@pytest.mark.parametrize("n", [1, 3, 8])
def test_a_subset_draws_training_samples_without_replacement(n, folder):
    """If it fails, a sample comes twice, from another split, or with another sample's label."""
    dataset = data.load("mnist")  # 8 training samples, all different
    subset = dataset.subset(n, seed=0)
    matches = (subset.x[:, None] == dataset.train.x[None]).all(-1)
    assert matches.sum(1).tolist() == [1] * n and matches.sum(0).max() == 1
    assert torch.equal(dataset.train.y[matches.long().argmax(1)], subset.y)


@pytest.mark.parametrize("n", [0, -1, 9])
def test_an_impossible_subset_size_is_refused(n, folder):
    """If it fails, an empty or too small subset is trained on without a word."""
    with pytest.raises(ValueError, match=rf"n={n} .*\b8\b"):
        data.load("mnist").subset(n, seed=0)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_one_hot_is_a_row_of_the_identity(dtype):
    """If it fails, targets are misplaced or have another type than the networks' float32."""
    y = torch.tensor([3, 0, 9, 3], dtype=dtype)
    np.testing.assert_array_equal(
        data.one_hot(y).numpy(), np.eye(10, dtype=np.float32)[[3, 0, 9, 3]], strict=True
    )
    assert data.one_hot(torch.tensor([1]), classes=3).tolist() == [[0.0, 1.0, 0.0]]


@pytest.mark.parametrize("bad, words", [(10, "label 10 .* 0…9"), (-1, "label -1 .* 0…9")])
def test_one_hot_names_the_label_out_of_range(bad, words):
    """If it fails, a wrong label becomes a target of zeros or an error without its value."""
    with pytest.raises(ValueError, match=words):
        data.one_hot(torch.tensor([0, bad]))


def test_one_hot_refuses_fractional_labels():
    """If it fails, 2.7 is cut to 2 without a word."""
    with pytest.raises(ValueError, match="torch.float32"):
        data.one_hot(torch.tensor([2.7]))


# --- the real data sets --------------------------------------------------------------------------


@pytest.fixture
def real_data(monkeypatch):
    """The published tables, still without mirrors, and the user's LNN_DATA."""
    monkeypatch.setenv("LNN_DATA", REAL_DATA)
    mnist = dataclasses.replace(PUBLISHED["mnist"], mirrors=())
    monkeypatch.setitem(data.published.SOURCES, "mnist", mnist)


def file_bytes(name, file, header):
    """A data file past its header, read without the loader."""
    with gzip.open(Path(REAL_DATA, name, file)) as stream:
        return np.frombuffer(stream.read()[header:], np.uint8)


# Samples per class and pixel mean and deviation of the 60,000, as widely published.
KNOWN = {
    "mnist": ([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949], 0.1307, 0.3081),
    "fashion-mnist": ([6000] * 10, 0.2860, 0.3530),
}


@needs_real_data
@pytest.mark.parametrize("name", KNOWN)
def test_the_real_data_set_is_the_published_one(name, real_data):
    """If it fails, the pinned hashes, the byte order or the split do not fit the published
    files."""
    dataset = data.load(name)
    x, y = (torch.cat(parts) for parts in zip(dataset.train, dataset.validation))
    assert [len(s.y) for s in (dataset.train, dataset.validation, dataset.test)] == [
        50_000, 10_000, 10_000,
    ]  # fmt: skip
    counts, mean, deviation = KNOWN[name]
    assert y.bincount().tolist() == counts
    assert x.mean().item() == pytest.approx(mean, abs=5e-5)
    assert x.std().item() == pytest.approx(deviation, abs=5e-5)
    assert (x.min().item(), x.max().item(), dataset.dim) == (0.0, 1.0, 784)
    np.testing.assert_array_equal((x * 255).round().to(torch.uint8).flatten().numpy(),
                                  file_bytes(name, IMAGES, 16))  # fmt: skip
    np.testing.assert_array_equal(dataset.test.y.numpy(), file_bytes(name, TEST_LABELS, 8))
    assert dataset.notice is None


@needs_real_data
def test_the_part_of_kmnist_is_the_beginning_of_the_official_training_set(real_data):
    """If it fails, the pinned part has other labels than the first 7,011 official ones."""
    if Path(REAL_DATA, "kmnist", IMAGES).exists():
        pytest.skip("LNN_DATA holds all of KMNIST")
    dataset = data.load("kmnist", partial=True)
    y = torch.cat([dataset.train.y, dataset.validation.y]).numpy()
    np.testing.assert_array_equal(y, file_bytes("kmnist", LABELS, 8)[:7011])
    assert [len(s.y) for s in (dataset.train, dataset.validation, dataset.test)] == [
        6_011, 1_000, 10_000,
    ]  # fmt: skip
    assert "first 7,011 of the 60,000" in dataset.notice
    with pytest.raises(data.DataUnavailable, match="partial=True"):
        data.load("kmnist")
