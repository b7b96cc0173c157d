"""The published data sets of IDX files: their files, SHA-256 and mirrors."""

from __future__ import annotations

from dataclasses import dataclass

from .idx import File


@dataclass(frozen=True)
class Source:
    """A published data set: (images, labels) files, mirrors, how many training samples validate."""

    title: str
    mirrors: tuple[str, ...]
    train: tuple[File, File]
    test: tuple[File, File]
    validation: int = 10_000
    partial: tuple[File, File] | None = None  # the first training samples; never downloaded
    partial_validation: int = 1_000


def _pair(part: str, n: int, images: str, labels: str, hashes_gzip=False) -> tuple[File, File]:
    return (
        File(f"{part}-images-idx3-ubyte.gz", (n, 28, 28), images, hashes_gzip),
        File(f"{part}-labels-idx1-ubyte.gz", (n,), labels),
    )


# fmt: off
SOURCES = {
    "mnist": Source(
        "MNIST",
        ("https://ossci-datasets.s3.amazonaws.com/mnist/",
         "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        _pair("train", 60_000, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
              "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
        _pair("t10k", 10_000, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
              "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    ),
    "fashion-mnist": Source(
        "Fashion-MNIST",
        ("https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
         "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
         "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"),
        _pair("train", 60_000, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
              "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
        _pair("t10k", 10_000, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
              "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
    ),
    "kmnist": Source(
        "KMNIST",
        ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
         "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
        # What is public of the training images is the .gz file's hash: a re-packed copy is refused.
        _pair("train", 60_000, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
              "2a16eeae62da984b8bd24fa32e31d47291f01dac3fe84d5594f304f71e7d374b", hashes_gzip=True),
        _pair("t10k", 10_000, "76fbd229ce87db80dd281af5e6670de4ad0e42fb30a7bd643972994c47c1f42e",
              "a11dc742be8e781a40a92f53d6a4957e7b7d36df2faa097659131ebfd8fd60c6"),
        partial=_pair("partial7011-train", 7_011,
                      "e07d5deda1fd894b9a5dba9fd0fd574ac432195a28a67b25961d5c3c19bb9c13",
                      "576adc0f6c4cfb37c445858fb6203c33039a49942170fee6b3ce3df15a7c0783"),
    ),
}
# fmt: on
