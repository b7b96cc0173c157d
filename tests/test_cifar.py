"""CIFAR-10: what is read from files of the official form, and what is refused.

The files are made here, 4 images each; nothing leaves the machine. The test on the real images
needs LNN_DATA=folder with ``cifar-10/cifar-10-batches-bin/`` or the archive.
"""

import hashlib
import io
import os
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lnn_core import data
from lnn_core.data import cifar

N = 4
FOLDER = "cifar-10-batches-bin"
NAMES = [f"{FOLDER}/{name}.bin" for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")]
ARCHIVE = "cifar-10-binary.tar.gz"
PUBLISHED = (cifar._ARCHIVE, *cifar._BATCHES)
REAL = Path(os.environ.get("LNN_DATA", "/nowhere"), "cifar-10")


# --- files of the official form ------------------------------------------------------------------


def batch(seed):
    """Images (row, column, colour) and labels."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (N, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, N).tolist()


def written(images, labels):
    """The binary version from its definition, byte by byte: label, red plane, green, blue."""
    return b"".join(bytes([label]) + b"".join(image[:, :, colour].tobytes() for colour in range(3))
                    for image, label in zip(images, labels))


BATCHES = {name: batch(seed) for seed, name in enumerate(NAMES)}
FILES = {name: written(*content) for name, content in BATCHES.items()}


def packed(files):
    """An archive with a folder, a file that no image is in, and the files in this order."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        folder = tarfile.TarInfo(FOLDER)
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in [(f"{FOLDER}/readme.html", b"read me"), *files.items()]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


PACKED = packed(dict(reversed(FILES.items())))  # the order of an archive is no matter of ours


def described(name, content):
    return cifar._File(name, hashlib.sha256(content).hexdigest(), len(content))


@pytest.fixture
def place(monkeypatch, tmp_path):
    """LNN_DATA's folder for CIFAR-10, empty; the small files are the official ones."""
    monkeypatch.setenv("LNN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cifar, "_ARCHIVE", described(ARCHIVE, PACKED))
    monkeypatch.setattr(cifar, "_BATCHES", tuple(described(*file) for file in FILES.items()))
    monkeypatch.setattr(cifar, "_MIRRORS", ())
    (tmp_path / "data" / "cifar-10" / FOLDER).mkdir(parents=True)
    return tmp_path / "data" / "cifar-10"


def unpack(place):
    for name, content in FILES.items():
        (place / name).write_bytes(content)


def pack(place):
    (place / ARCHIVE).write_bytes(PACKED)


def assert_is_small(dataset):
    """The small images in colour, the last training batch apart."""
    for split, names in ((dataset.train, NAMES[:4]), (dataset.validation, NAMES[4:5]),
                         (dataset.test, NAMES[5:])):
        images = np.concatenate([BATCHES[name][0] for name in names])
        planes = images.transpose(0, 3, 1, 2).reshape(-1, 3072)
        np.testing.assert_array_equal(split.x.numpy(), planes.astype(np.float32) / 255, strict=True)
        assert split.y.tolist() == sum((BATCHES[name][1] for name in names), [])
        assert split.y.dtype == torch.int64


# --- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("put", [unpack, pack])
def test_colour_images_are_the_bytes_over_255(put, place):
    """If it fails, batches or planes are mixed up, split in other places or scaled otherwise."""
    put(place)
    dataset = cifar.load()
    assert_is_small(dataset)
    assert dataset.dim == 3072 and dataset.name == "cifar-10-colour" and dataset.notice is None
    assert dataset.source == "CIFAR-10, files verified by SHA-256 (LNN_DATA folder)"


def test_grey_is_the_luma_of_another_library(place):
    """If it fails, planes are taken for pixels, or weights go to the wrong colours."""
    unpack(place)
    dataset = cifar.load(colour=False)
    assert dataset.dim == 1024 and dataset.name == "cifar-10-grey"
    for x, image in zip(dataset.test.x, BATCHES[NAMES[-1]][0], strict=True):
        reference = np.asarray(Image.fromarray(image).convert("L"), np.float64).reshape(-1)
        assert np.abs(255 * x.numpy() - reference).max() < 0.51  # the reference is rounded


def test_the_folder_comes_before_the_archive(place):
    """If it fails, every load unpacks the archive although its files lie beside it."""
    unpack(place)
    (place / ARCHIVE).write_bytes(b"not to be read")
    assert_is_small(cifar.load())


def test_an_incomplete_folder_leaves_it_to_the_archive(place):
    """If it fails, a file that is not there hides the archive that holds it."""
    unpack(place)
    (place / NAMES[3]).unlink()
    pack(place)
    assert_is_small(cifar.load())


def test_the_archive_is_not_unpacked_to_disk(place, tmp_path):
    """If it fails, a load leaves files behind."""
    pack(place)
    before = sorted(tmp_path.rglob("*"))
    cifar.load()
    assert sorted(tmp_path.rglob("*")) == before


def test_the_archive_is_downloaded_once(place, monkeypatch, tmp_path):
    """If it fails, another file is asked for, more bytes than it has, or the same at every load."""
    asked = []

    def download(*arguments):
        asked.append(arguments)
        return PACKED

    monkeypatch.setattr(data.files, "_download", download)
    monkeypatch.setattr(cifar, "_MIRRORS", ("https://mirror/",))
    for _ in range(2):
        dataset = cifar.load(quiet=True)
        assert_is_small(dataset)
        assert dataset.source.endswith("(download)")
    assert asked == [(f"https://mirror/{ARCHIVE}", f"cifar-10/{ARCHIVE}", len(PACKED), True)]
    assert (tmp_path / "cache" / "cifar-10" / ARCHIVE).read_bytes() == PACKED


def test_no_source_says_what_was_tried_and_what_helps(place):
    """If it fails, the reader is left with a bare failure, or sent to the wrong folder."""
    with pytest.raises(data.DataUnavailable) as caught:
        cifar.load()
    root = place.parent
    for words in (f"no cifar-10/{NAMES[0]}: LNN_DATA={root} does not hold it",
                  f"no cifar-10/{ARCHIVE}: LNN_DATA={root} does not hold it",
                  f"folder/cifar-10/{FOLDER}/ or as folder/cifar-10/{ARCHIVE}"):
        assert words in str(caught.value)


# --- what is refused -----------------------------------------------------------------------------

DAMAGE = {
    "truncated": (lambda p: p[:-1], "SHA-256 .*, expected"),
    "empty": (lambda p: b"", "SHA-256 .*, expected"),
    "one image less": (lambda p: p[:-3073], "SHA-256 .*, expected"),
    "longer": (lambda p: p + b"\0", "more than .* bytes"),
    "one bit": (lambda p: p[:99] + bytes([p[99] ^ 1]) + p[100:], "SHA-256 .*, expected"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", NAMES)
def test_other_bytes_in_the_folder_are_refused(name, damage, place):
    """If it fails, other images or labels than the official ones are trained on, or the archive
    stands in for a damaged file without a word."""
    change, complaint = DAMAGE[damage]
    unpack(place)
    pack(place)
    (place / name).write_bytes(change(FILES[name]))
    with pytest.raises(data.DataCorrupted, match=f"{re.escape(str(place / name))}: {complaint}"):
        cifar.load()


@pytest.mark.parametrize("damage", DAMAGE)
def test_another_archive_is_not_opened(damage, place, monkeypatch):
    """If it fails, an archive is unpacked before its hash is known to be right."""
    change, complaint = DAMAGE[damage]
    (place / ARCHIVE).write_bytes(change(PACKED))
    monkeypatch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("opened before checking"))
    with pytest.raises(data.DataCorrupted, match=f"{re.escape(str(place / ARCHIVE))}: {complaint}"):
        cifar.load()


def test_each_file_in_the_archive_is_checked(place, monkeypatch):
    """If it fails, the hashes of the files say nothing about what comes from the archive."""
    other = packed({**FILES, NAMES[2]: FILES[NAMES[1]]})
    monkeypatch.setattr(cifar, "_ARCHIVE", described(ARCHIVE, other))
    (place / ARCHIVE).write_bytes(other)
    with pytest.raises(data.DataCorrupted, match=f"{ARCHIVE}: SHA-256 .*, expected"):
        cifar.load()


def test_a_download_of_another_archive_is_not_kept(place, monkeypatch, tmp_path):
    """If it fails, a mirror's other file is used, or cached."""
    monkeypatch.setattr(data.files, "_download", lambda *_: PACKED[:-1])
    monkeypatch.setattr(cifar, "_MIRRORS", ("https://mirror/",))
    with pytest.raises(data.DataUnavailable, match=r"https://mirror/ \(SHA-256 .*, expected"):
        cifar.load()
    assert not (tmp_path / "cache").exists()


# --- the real images -----------------------------------------------------------------------------


def test_what_is_said_of_the_published_files():
    """If it fails, a file's name, hash or size is another kind of text, or one stands twice."""
    assert [file.name for file in PUBLISHED] == [ARCHIVE, *NAMES]
    hashes = {file.sha256 for file in PUBLISHED}
    assert len(hashes) == 7 and all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in hashes)
    assert {file.largest for file in PUBLISHED[1:]} == {10_000 * 3073}
    assert all(re.fullmatch(r"https://[\w./~-]+/", url) for url in cifar._MIRRORS)


@pytest.mark.skipif(not ((REAL / NAMES[-1]).exists() or (REAL / ARCHIVE).exists()),
                    reason="set LNN_DATA=folder with CIFAR-10 to check the real images")
def test_the_real_images_are_the_published_ones(monkeypatch):
    """If it fails, the pinned hashes, the order of the bytes or the splits do not fit the files.

    Labels, means and deviations of red, green and blue are those that are widely published.
    """
    monkeypatch.setattr(cifar, "_MIRRORS", ())
    dataset = cifar.load()
    splits = dataset.train, dataset.validation, dataset.test
    assert [split.x.shape for split in splits] == [(n, 3072) for n in (40_000, 10_000, 10_000)]
    labels = torch.cat([dataset.train.y, dataset.validation.y])
    assert labels.bincount().tolist() == [5000] * 10
    assert dataset.test.y.bincount().tolist() == [1000] * 10
    assert labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert dataset.test.y[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    planes = [split.x.view(-1, 3, 1024) for split in splits[:2]]
    for colour, mean, deviation in zip(range(3), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)):
        values = torch.cat([x[:, colour] for x in planes])
        assert values.mean().item() == pytest.approx(mean, abs=6e-5)
        assert values.std().item() == pytest.approx(deviation, abs=6e-5)
