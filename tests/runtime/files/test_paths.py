"""Where things are kept, for users with a home and without."""

import os
import threading
from pathlib import Path

import platformdirs
import pytest

from gar_edge.runtime.errors import GarBundleError
from gar_edge.runtime.files.atomic import renamed, write_whole
from gar_edge.runtime.files.digests import KnownDigests
from gar_edge.runtime.files.paths import HOME, NOWHERE, default_bundle, home, last_bundle, remember_bundle


@pytest.fixture(params=["no entry", "no home"])
def homeless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user id without a name, as platformdirs answers for it: new ones raise, old ones leave the tilde."""

    def no_entry(*_: object, **__: object) -> str:
        raise RuntimeError("could not determine the home directory")

    answer = no_entry if request.param == "no entry" else lambda *_, **__: "~/.local/share/gar-edge"
    monkeypatch.delenv(HOME, raising=False)
    monkeypatch.setattr(platformdirs, "user_data_dir", answer)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_nothing_is_remembered_and_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert home() == NOWHERE
    with pytest.warns(UserWarning, match="cannot note the last bundle"):
        remember_bundle(tmp_path)
    assert last_bundle() is None
    (tmp_path / "file").write_bytes(b"x")
    known = KnownDigests(tmp_path)
    assert known.digest("file", tmp_path / "file", (tmp_path / "file").stat()).startswith("2d711642")  # of "x"
    known.save()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(GarBundleError, match=rf"no home directory .* -o, or set {HOME}"):
        default_bundle("nano")


def test_a_bundle_of_any_name_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    for name in ("bundle", "Bündel mit Raum ", os.fsdecode(b"b\xff")):
        remember_bundle(tmp_path / name)
        assert last_bundle() == tmp_path / name


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_whole(path, b"old")

    def interrupted() -> None:
        with renamed(path) as scratch:
            scratch.write_bytes(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_threads_do_not_share_a_scratch_file(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)

    def write(number: int) -> None:
        barrier.wait()
        for _ in range(20):
            write_whole(tmp_path / "file", bytes([number]) * 5000)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = (tmp_path / "file").read_bytes()
    assert len(content) == 5000
    assert len(set(content)) == 1
    assert len(list(tmp_path.iterdir())) == 1
