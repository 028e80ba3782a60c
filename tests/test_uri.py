import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raypipe.config import load_config
from raypipe.uri import absolute, is_local, join, name_of, parent, protocol, relative, suffix_of

FOLDERS = (
    *("/", "/data", "/data/a b/#?%20"),
    *("s3://bucket", "s3://bucket/a b/#1", "gs://bucket/x", "az://container/x", "abfs://c@account.host/x"),
    *("hf://datasets/owner/name@main", "memory:///tmp", "memory://bucket/x"),
    *("http://127.0.0.1:8123", "https://host/a%20b/c"),
    *("zip://::/data/a.zip", "zip://in/it::s3://bucket/a.zip", "simplecache::s3://bucket/a", "tar://x::http://h/a.tar"),
)
"""Folders of absolute form, in every kind of place."""

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: text not in (".", "..")
)
PATHS = st.lists(NAMES, min_size=1, max_size=4)
PLAIN = st.text("abcXYZ019 +#%ü🐱", min_size=1)
PIECES = st.sampled_from(
    [
        *("a", "é", " ", "~", "/", "//", "..", ".", "::", ":", "#", "?", "%20", "%", "\\", "@", "w=1", "C:"),
        *("zip", "simplecache", "://", "s3://b", "s3:/", "http://h", "HTTPS://h", "file://", "file:/", "memory://"),
    ]
)
WRITTEN = st.one_of(st.text(), st.lists(PIECES, max_size=8).map("".join))
"""What someone may write, sense or nonsense."""


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("s3://bucket/a", "s3://bucket/a"),
        ("S3://Bucket/Key", "s3://Bucket/Key"),
        ("s3://bucket/shot #7?+%20.png", "s3://bucket/shot #7?+%20.png"),
        ("s3://bucket//a/../b/", "s3://bucket//a/../b/"),
        ("https://host/a b?x=1#y", "https://host/a b?x=1#y"),
        ("torchvision://resnet50/IMAGENET1K_V2", "torchvision://resnet50/IMAGENET1K_V2"),
        ("hf://datasets/owner/name@main/a.parquet", "hf://datasets/owner/name@main/a.parquet"),
        ("file:///a%20b/c%23%25.png", "/a b/c#%.png"),
        ("file:///a b/#1?.png", "/a b/#1?.png"),
        ("file:///100%.png", "/100%.png"),
        ("file://localhost/a", "/a"),
        ("file:/a%2520b", "/a%20b"),
        ("FILE:///caf%C3%A9.jpg", "/café.jpg"),
        ("file:///%ff.jpg", "/\udcff.jpg"),
        ("file:///p%20q.parquet#column=a%20b&row=1", "/p q.parquet#column=a%20b&row=1"),
        ("/a//b/./c/../d/", "/a/b/d"),
        ("/../a", "/a"),
        ("/data/back\\slash.jpg", "/data/back\\slash.jpg"),
        ("/data/zip::a.png", "/data/zip::a.png"),
        ("zip://a/b.png::s3://bucket/c.zip", "zip://a/b.png::s3://bucket/c.zip"),
        ("zip://a.png::file:///c%20d.zip", "zip://a.png::/c d.zip"),
        ("ZIP::s3://bucket/c.zip", "zip://::s3://bucket/c.zip"),
        ("simplecache::S3://bucket/a::b.png", "simplecache::s3://bucket/a::b.png"),
        ("tar://x::filecache::https://host/c.tar?v=1", "tar://x::filecache::https://host/c.tar?v=1"),
        ("zip://a:1@2.png::s3://bucket/user@home.zip", "zip://a:1@2.png::s3://bucket/user@home.zip"),
    ],
)
def test_what_names_its_place_needs_no_folder(written: str, expected: str) -> None:
    assert absolute(written, "s3://elsewhere/x") == absolute(written) == expected


@pytest.mark.parametrize(
    ("path", "in_folder"),
    [
        ("img/a.jpg", "img/a.jpg"),
        ("./img//a.jpg", "img/a.jpg"),
        ("img/../a.jpg", "a.jpg"),
        ("shot #7.png", "shot #7.png"),
        ("what?.webp", "what?.webp"),
        ("100%.png", "100%.png"),
        ("a+b@c.jpg", "a+b@c.jpg"),
        ("ü/🐱.jpg", "ü/🐱.jpg"),
        ("~alice/a.jpg", "~alice/a.jpg"),
        ("a::b.jpg", "a::b.jpg"),
        ("zip::a.png", "zip::a.png"),
        ("12:30.jpg", "12:30.jpg"),
        ("http/x://y.jpg", "http/x:/y.jpg"),
    ],
)
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_relative_path_means_the_same_in_every_folder(path: str, in_folder: str, folder: str) -> None:
    if "::" in path and protocol(folder) in ("zip", "tar"):
        pytest.skip("fsspec takes this for the end of the path in the archive")
    assert absolute(path, folder) == join(folder, in_folder)
    assert relative(absolute(path, folder), folder) == in_folder


def test_a_relative_path_may_lead_upwards() -> None:
    assert absolute("../img/a.jpg", "s3://bucket/tables") == "s3://bucket/img/a.jpg"
    assert absolute("../a.jpg", "http://host/x/y") == "http://host/x/a.jpg"
    assert absolute("../a.jpg", "zip://x::/b.zip") == "zip://a.jpg::/b.zip"
    assert absolute("../../../a.jpg", "/x/y") == "/a.jpg"


def test_what_urls_have_may_stand_in_a_path_from_a_url() -> None:
    assert absolute("a%20b.jpg", "http://host/x") == "http://host/x/a%20b.jpg"
    assert absolute("a b.jpg", "http://host/x") == "http://host/x/a%20b.jpg"
    assert absolute("thumb.php?id=3&w=20", "http://host/x") == "http://host/x/thumb.php?id=3&w=20"
    assert absolute("t.tar#offset=1&length=2&type=jpg", "http://h") == "http://h/t.tar#offset=1&length=2&type=jpg"
    assert absolute("p.parquet#column=a%20b&row=1", "http://h") == "http://h/p.parquet#column=a%20b&row=1"


@pytest.mark.parametrize("folder", [None, "s3://bucket/x", "/data", "http://host"])
def test_the_home_folder_is_that_of_this_process(
    folder: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert absolute("~/photos/1.jpg", folder) == f"{tmp_path}/photos/1.jpg"
    assert absolute("~", folder) == str(tmp_path)
    assert absolute("/photos/1.jpg", folder) == "/photos/1.jpg"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "got an empty text"),
        ("a\0b", "null byte"),
        ("photos\\cat\\1.jpg", "has backslashes.*write photos/cat/1.jpg"),
        ("..\\1.jpg", "write ../1.jpg"),
        ("C:\\photos\\1.jpg", "a drive of Windows.*/mnt/c/photos/1.jpg"),
        ("d:/photos/1.jpg", "a drive of Windows.*/mnt/d/photos/1.jpg"),
        ("file:///C:/photos/1.jpg", "a drive of Windows.*/mnt/c/photos/1.jpg"),
        ("file://C:/photos/1.jpg", "a drive of Windows.*/mnt/c/photos/1.jpg"),
        ("\\\\server\\share\\1.jpg", "a share of Windows"),
        ("file://server/share/1.jpg", "of the host 'server'.*file:///server/share/1.jpg"),
        ("file://", "names no file"),
        ("file:///a%00b", "names no file"),
        ("s3:///key", "names no bucket or container: expected s3://bucket/key"),
        ("s3://", "names no bucket"),
        ("https:///a", "names no host: expected https://host/path"),
        ("http:/host/a", "has one slash after http:"),
        ("zip://a.png::s3:/bucket/a.zip", "has one slash after s3:"),
        ("s3://user:secret@bucket/a", "holds credentials"),
        ("zip://a.png::https://user:secret@host/a.zip", "holds credentials"),
        ("../../a.jpg", "leads out of s3://bucket"),
    ],
)
def test_what_cant_be_meant_is_refused_with_a_way_out(written: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        absolute(written, "s3://bucket/x")
    assert len(str(refused.value)) < 600
    assert "secret" not in str(refused.value)


def test_a_message_about_a_long_text_is_short() -> None:
    for written in ("\\" + "x" * 10_000, "C:/" + "x" * 10_000, "file://" + "x" * 10_000, "s3:///" + "x" * 10_000):
        with pytest.raises(ValueError, match="xxx") as refused:
            absolute(written)
        assert len(str(refused.value)) < 1000


def test_a_relative_path_counts_from_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("a/b::c.jpg") == str(tmp_path / "a/b::c.jpg")
    assert absolute(".") == str(tmp_path)
    assert absolute("zip://a.png::b.zip") == f"zip://a.png::{tmp_path}/b.zip"


def test_a_link_keeps_its_name_and_dots_lead_out_of_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "store/photos").mkdir(parents=True)
    (tmp_path / "link").symlink_to("store/photos")
    assert absolute(f"{tmp_path}/link/a.jpg") == f"{tmp_path}/link/a.jpg"
    assert absolute(f"{tmp_path}/link/../a.jpg") == f"{tmp_path}/store/a.jpg"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/data/shot #7.PNG", ("/data", "shot #7.PNG", ".png", "file")),
        ("/data/.hidden", ("/data", ".hidden", "", "file")),
        ("/", ("/", "", "", "file")),
        ("s3://bucket/a#1?b.jpg", ("s3://bucket", "a#1?b.jpg", ".jpg", "s3")),
        ("s3://bucket", ("s3://bucket", "", "", "s3")),
        ("https://host/x/a%20b.tar.gz?sig=a/b.png", ("https://host/x", "a b.tar.gz", ".gz", "https")),
        ("http://host:80/a.jpg#x", ("http://host:80", "a.jpg", ".jpg", "http")),
        ("http://host", ("http://host", "", "", "http")),
        ("memory:///a", ("memory://", "a", "", "memory")),
        ("zip://a/b.png::s3://bucket/c.zip", ("zip://a::s3://bucket/c.zip", "b.png", ".png", "zip")),
        ("zip://b.png::/c.zip", ("zip://::/c.zip", "b.png", ".png", "zip")),
        ("simplecache::s3://bucket/a.jpg", ("simplecache::s3://bucket", "a.jpg", ".jpg", "simplecache")),
    ],
)
def test_folder_name_ending_and_protocol(uri: str, expected: tuple[str, str, str, str]) -> None:
    assert (parent(uri), name_of(uri), suffix_of(uri), protocol(uri)) == expected
    assert is_local(uri) == (protocol(uri) == "file")


@pytest.mark.parametrize("uri", ["file:///a b/c", "file:/a%20b/c", "local:///a b/c", "/a b/c"])
def test_all_forms_of_a_local_path_are_one(uri: str) -> None:
    assert (is_local(uri), join(uri, "d"), parent(uri), name_of(uri)) == (True, "/a b/c/d", "/a b", "c")


def test_what_lies_elsewhere_isnt_in_a_folder() -> None:
    assert relative("/data2/a", "/data") is None
    assert relative("s3://b/a", "s3://b2") is None
    assert relative("http://h/a", "https://h") is None
    assert relative("zip://a::/b.zip", "zip://::/c.zip") is None
    assert relative("/data", "/data") is None
    assert relative("http://h/x/a%20b.jpg?w=1", "http://h/x") == "a b.jpg"


@given(st.sampled_from(FOLDERS), PATHS)
def test_names_come_back_from_every_place(folder: str, names: list[str]) -> None:
    if any(":" in each for each in names) and protocol(folder) in ("zip", "tar"):
        return  # as above
    file = join(folder, *names)
    assert relative(file, folder) == "/".join(names)
    assert name_of(file) == names[-1]
    assert parent(join(folder, names[0])) == folder
    assert absolute(file) == file


@given(PATHS)
def test_file_uris_as_pathlib_writes_them_are_its_paths(names: list[str]) -> None:
    path = Path("/", *names)
    try:
        written = path.as_uri()
    except UnicodeEncodeError:  # a surrogate
        return
    if not (len(names[0]) == 2 and names[0][1] == ":"):  # a drive
        assert absolute(written) == str(path)


@given(st.sampled_from(FOLDERS), st.lists(st.one_of(PLAIN, st.sampled_from(["..", ".", ""])), min_size=1))
def test_dots_mean_what_they_mean_on_a_disk(folder: str, segments: list[str]) -> None:
    path = "/".join(["x", "y", *segments])
    meant = os.path.normpath(path)
    if "%" in path or meant.startswith(".."):
        return
    assert absolute(path, folder) == (folder if meant == "." else join(folder, meant))


@given(WRITTEN, st.sampled_from(FOLDERS))
@example("file:", "/")
@example("~//s3://b", "/")
@example("zip:::://::", "/data")
def test_an_absolute_form_stays_as_it_is(written: str, folder: str) -> None:
    try:
        found = absolute(written, folder)
    except ValueError:
        return
    assert absolute(found, "s3://elsewhere") == found
    assert is_local(found) == found.startswith("/")
    assert parent(parent(found)) == parent(parent(parent(join(found, "a"))))


def test_every_uri_of_a_config_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    training = "sweep.training={checkpoints.classifier: [a, null], of: [{network.weights: b, affinity.epochs: 2}]}"
    config = load_config("preset: demo", ["manifest=m.parquet", "out=run", "network.weights=w.pt", training])
    assert (config.manifest, config.out) == (str(tmp_path / "m.parquet"), str(tmp_path / "run"))
    assert config.network.weights == str(tmp_path / "w.pt")
    assert config.affinity.start == "classifier"
    assert config.sweep.training == {
        "checkpoints.classifier": (str(tmp_path / "a"), None),
        "of": ({"network.weights": str(tmp_path / "b"), "affinity.epochs": 2},),
    }
    assert load_config("", [f"manifest={config.manifest}", "out=s3://bucket/run"]).out == "s3://bucket/run"


def test_a_config_follows_links(tmp_path: Path) -> None:
    (tmp_path / "latest.pth").symlink_to("v1.pth")
    config = load_config("", ["manifest=m", "out=o", f"network.weights={tmp_path}/latest.pth"])
    assert config.network.weights == f"{tmp_path}/v1.pth", "another target is another training"
