"""CIFAR-10: what is read from an archive of the official form, and what is refused.

The archives are made here: 4 images a batch, pickled as Python 2 wrote the official ones.
Nothing leaves the machine.
"""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from lnn_core import data
from lnn_core.data import cifar

N = 4
NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


# --- an archive of the official form -------------------------------------------------------------


def py2(value):
    """What Python 2's pickle (protocol 2) writes for a value, without header and stop."""
    if isinstance(value, bytes):
        return b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if value is None:
        return b"N"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, (tuple, list)):
        kind = b"t" if isinstance(value, tuple) else b"l"
        return b"(" + b"".join(map(py2, value)) + kind
    if isinstance(value, dict):
        return b"(" + b"".join(py2(k) + py2(v) for k, v in value.items()) + b"d"
    if isinstance(value, np.dtype):
        state = (3, b"|", None, None, None, -1, -1, 0)
        made = b"cnumpy\ndtype\n" + py2((value.str[1:].encode(), 0, 1)) + b"R"
        return made + py2(state) + b"b"
    fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    made = (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
            + py2((0,)) + py2(b"b") + b"tR")
    raw = value.tobytes(order="F" if fortran else "C")
    return made + b"(" + b"".join(map(py2, (1, value.shape, value.dtype, fortran, raw))) + b"tb"


def pickled(value):
    return b"\x80\x02" + py2(value) + b"."


def batch(seed):
    rng = np.random.default_rng(seed)
    return {b"batch_label": b"batch", b"labels": [int(v) for v in rng.integers(0, 10, N)],
            b"data": rng.integers(0, 256, (N, 3072), dtype=np.uint8),
            b"filenames": [b"image_%d.png" % i for i in range(N)]}


BATCHES = {name: batch(seed) for seed, name in enumerate(NAMES)}


def entry(name, content=b"", **settings):
    """A member of a tar file and its content."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in settings.items():
        setattr(member, key, value)
    return member, content


def official(**replaced):
    """The members of the official archive, batches replaced by other content where named."""
    folder = "cifar-10-batches-py"
    files = {name: pickled(value) for name, value in BATCHES.items()} | replaced
    return [entry(folder, type=tarfile.DIRTYPE), entry(f"{folder}/batches.meta", b"anything"),
            *(entry(f"{folder}/{name}", content) for name, content in files.items())]


def packed(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def described(payload):
    """The archive with the hash of these bytes: the checks behind the hash are under test."""
    return cifar._Archive("cifar-10-python.tar.gz", hashlib.sha256(payload).hexdigest(),
                          len(payload), N)


def decoded(members):
    payload = packed(members)
    return cifar._decode(payload, described(payload))


@pytest.fixture
def archive(monkeypatch, tmp_path):
    """LNN_DATA with the small archive in the official one's place; its path."""
    payload = packed(official())
    path = tmp_path / "data" / "cifar-10" / "cifar-10-python.tar.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(payload)
    monkeypatch.setenv("LNN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cifar, "_OFFICIAL", described(payload))
    monkeypatch.setattr(cifar, "_MIRRORS", ())
    return path


# --- what is read --------------------------------------------------------------------------------


def test_the_small_archive_is_what_numpy_would_unpickle():
    """If it fails, the tests' archive is not of a form that pickle and numpy themselves read."""
    for name, value in BATCHES.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # numpy.core, numpy._core today
            read = pickle.loads(pickled(value), encoding="bytes")
        np.testing.assert_array_equal(read[b"data"], value[b"data"], err_msg=name)
        assert read[b"labels"] == value[b"labels"]


def test_colour_images_are_the_bytes_over_255(archive):
    """If it fails, batches are mixed up, split in other places or scaled otherwise."""
    dataset = cifar.load()
    assert dataset.dim == 3072 and dataset.name == "cifar-10-colour" and dataset.notice is None
    for split, names in ((dataset.train, NAMES[:4]), (dataset.validation, NAMES[4:5]),
                         (dataset.test, NAMES[5:])):
        expected = np.concatenate([BATCHES[name][b"data"] for name in names])
        np.testing.assert_array_equal(split.x.numpy(), expected.astype(np.float32) / 255)
        assert split.y.tolist() == sum((BATCHES[name][b"labels"] for name in names), [])
        assert split.x.dtype == torch.float32 and split.y.dtype == torch.int64


def test_grey_is_the_luma_of_another_library(archive):
    """If it fails, planes are taken for pixels, or weights go to the wrong colours."""
    dataset = cifar.load(colour=False)
    assert dataset.dim == 1024 and dataset.name == "cifar-10-grey"
    for x, raw in zip(dataset.test.x, BATCHES["test_batch"][b"data"]):
        image = Image.fromarray(raw.reshape(3, 32, 32).transpose(1, 2, 0)).convert("L")
        reference = np.asarray(image, np.float64).reshape(-1)  # rounded to whole numbers
        assert np.abs(255 * x.numpy() - reference).max() < 0.51


def test_either_order_of_an_array(archive):
    """If it fails, an array that was stored column by column comes out scrambled."""
    turned = {**BATCHES["data_batch_2"], b"data": np.asfortranarray(BATCHES["data_batch_2"][b"data"])}
    images, _ = decoded(official(data_batch_2=pickled(turned)))[1]
    np.testing.assert_array_equal(images, BATCHES["data_batch_2"][b"data"])


def test_the_cache_serves_where_lnn_data_has_none(archive, tmp_path):
    """If it fails, the archive is looked for in a place of its own."""
    cached = tmp_path / "cache" / "cifar-10" / archive.name
    cached.parent.mkdir(parents=True)
    archive.rename(cached)
    assert len(cifar.load().train.y) == 4 * N


def test_nothing_is_unpacked(archive, tmp_path):
    """If it fails, reading leaves files behind."""
    before = sorted(tmp_path.rglob("*"))
    cifar.load()
    assert sorted(tmp_path.rglob("*")) == before


def test_no_source_says_what_helps(archive):
    """If it fails, the reader is left with a bare failure."""
    archive.unlink()
    with pytest.raises(data.DataUnavailable, match="LNN_DATA=folder.*cifar-10-python.tar.gz"):
        cifar.load()


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("damage, complaint", [
    (lambda p: p[:-1], "SHA-256 .*, expected"), (lambda p: b"", "SHA-256 .*, expected"),
    (lambda p: p + b"\0", "more than .* bytes"),
    (lambda p: p[:99] + bytes([p[99] ^ 1]) + p[100:], "SHA-256 .*, expected")],
    ids=["truncated", "empty", "longer", "one bit"])
def test_other_bytes_are_not_opened(archive, damage, complaint, monkeypatch):
    """If it fails, an archive is parsed, or a pickle read, before its hash is known to be right."""
    archive.write_bytes(damage(archive.read_bytes()))
    monkeypatch.setattr(cifar, "_members", lambda _: pytest.fail("opened before checking"))
    with pytest.raises(data.DataCorrupted, match=f"cifar-10-python.tar.gz: {complaint}"):
        cifar.load()


LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
HARD = {"type": tarfile.LNKTYPE, "linkname": "cifar-10-batches-py/test_batch"}
PIPE = {"type": tarfile.FIFOTYPE}


@pytest.mark.parametrize("member, complaint", [
    (entry("cifar-10-batches-py/extra", **LINK), "'cifar-10-batches-py/extra' is not a plain file"),
    (entry("cifar-10-batches-py/extra", **HARD), "is not a plain file"),
    (entry("cifar-10-batches-py/extra", **PIPE), "is not a plain file"),
    (entry("cifar-10-batches-py", **LINK), "is not a plain file"),
    (entry("../cifar-10-batches-py/test_batch", b"x"), "is outside cifar-10-batches-py/"),
    (entry("cifar-10-batches-py/../../x", b"x"), "is outside"),
    (entry("cifar-10-batches-py/..", b"x"), "is outside"),
    (entry("/cifar-10-batches-py/test_batch", b"x"), "is outside"),
    (entry("elsewhere/test_batch", b"x"), "is outside"),
    (entry("cifar-10-batches-py/test_batch", b"x"), "is there twice"),
], ids=["link", "hard link", "pipe", "folder is a link", "up", "up inside", "bare up", "absolute",
        "elsewhere", "twice"])
def test_archives_that_are_no_folder_of_files(member, complaint):
    """If it fails, a link is followed or a path leaves the folder, wherever the member stands."""
    rest = [one for one in official() if one[0].name != member[0].name] + official()[-1:]
    if "twice" not in complaint:
        rest = rest[:-1]
    for members in ([member, *rest], [*rest, member]):
        with pytest.raises(data.DataCorrupted, match=complaint):
            decoded(members)


def test_a_size_beyond_reason_is_refused_unread(monkeypatch):
    """If it fails, a member's header alone makes us read without bound."""
    monkeypatch.setattr(cifar, "_LARGEST", len(pickled(BATCHES["test_batch"])) - 1)
    with pytest.raises(data.DataCorrupted, match="has .* bytes, more than"):
        decoded(official())


def test_a_missing_batch_is_named():
    """If it fails, fewer images than asked for pass silently."""
    with pytest.raises(data.DataCorrupted, match="no cifar-10-batches-py/data_batch_5"):
        decoded([one for one in official() if not one[0].name.endswith("_5")])


@pytest.mark.parametrize("keep", [10, 200, 6_000])
def test_an_archive_cut_before_it_was_hashed(keep):
    """If it fails, damage that the hash covers (a wrong hash in the source, say) escapes as another
    error."""
    whole = packed(official())
    for payload in (whole[:keep], gzip.compress(gzip.decompress(whole)[:keep])):
        with pytest.raises(data.DataCorrupted):
            cifar._decode(payload, described(payload))


class Evil:
    """Pickles to a call of its own choice."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_no_pickle_runs_code(tmp_path, protocol):
    """If it fails, a pickle can call anything: here it makes a file."""
    mark = tmp_path / "mark"
    for evil in (Evil(open, str(mark), "w"), Evil(eval, f"open({str(mark)!r}, 'w')")):
        content = pickle.dumps({b"data": evil, b"labels": [0] * N}, protocol=protocol)
        with pytest.raises(data.DataCorrupted, match="is no CIFAR-10 batch .refers to"):
            decoded(official(data_batch_3=content))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["numpy.core.multiarray\nfromfile", "numpy\nload", "numpy\nmemmap",
                                  "builtins\ngetattr", "numpy.core.multiarray\n_reconstruct.__class__"])
def test_no_other_name_is_known(name):
    """If it fails, the whole of numpy, or attributes of what is allowed, are within reach."""
    content = b"\x80\x04c" + name.encode() + b"\n."
    with pytest.raises(data.DataCorrupted, match="refers to " + name.replace("\n", ".")):
        decoded(official(test_batch=content))


GOOD = BATCHES["test_batch"]


@pytest.mark.parametrize("value, complaint", [
    ({**GOOD, b"data": GOOD[b"data"][:-1]}, r"images of shape \(3, 3072\), expected \(4, 3072\)"),
    ({**GOOD, b"data": GOOD[b"data"].reshape(-1)}, "images of shape"),
    ({**GOOD, b"data": GOOD[b"data"].astype(np.float32)}, "type b'f4', expected bytes"),
    ({**GOOD, b"data": 3}, "is no CIFAR-10 batch"),
    ({b"labels": [0] * N}, "is no CIFAR-10 batch"),
    ([1, 2], "is no CIFAR-10 batch"),
    ({**GOOD, b"labels": [0] * (N - 1)}, "no list of 4 labels"),
    ({**GOOD, b"labels": [0, 1, 2, 10]}, "label 10, outside 0…9"),
    ({**GOOD, b"labels": [0, 1, 2, -1]}, "label -1, outside 0…9"),
    ({**GOOD, b"labels": [0, 1, 2, b"3"]}, "label b'3', outside 0…9"),
    ({**GOOD, b"labels": [0, 1, 2, True]}, "label True, outside 0…9"),
])
def test_batches_that_hold_something_else(value, complaint):
    """If it fails, wrong shapes, types or labels reach the tensors."""
    with pytest.raises(data.DataCorrupted, match=f"test_batch.*{complaint}"):
        decoded(official(test_batch=pickled(value)))


def test_bytes_that_do_not_fill_the_shape():
    """If it fails, an array can claim more values than it brings."""
    content = pickled(GOOD).replace(struct.pack("<i", N), struct.pack("<i", 2**30), 1)
    with pytest.raises(data.DataCorrupted, match="test_batch is no CIFAR-10 batch"):
        decoded(official(test_batch=content))


def test_no_cut_of_a_pickle_passes():
    """If it fails, a pickle that stops at any place is read, or fails with another error."""
    content = pickled(GOOD)
    for length in [*range(0, 200), *range(200, len(content), 499)]:
        with pytest.raises(data.DataCorrupted, match="test_batch is no CIFAR-10 batch"):
            cifar._batch("test_batch", content[:length], N)
