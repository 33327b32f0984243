"""Machine code of kernels is kept for as long as no kernel changes, and not a moment longer."""

import numba

from streamlearn.kernels.compiling import cache_folder, digest_of


def test_a_change_in_any_file_is_another_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    (tmp_path / "caller.py").write_text("from callee import f")
    (tmp_path / "callee.py").write_text("def f(): return 1")
    before = cache_folder(tmp_path)
    assert cache_folder(tmp_path) == before
    (tmp_path / "callee.py").write_text("def f(): return 2")
    assert cache_folder(tmp_path) != before


def test_moving_text_between_files_is_a_change_too(tmp_path):
    (tmp_path / "a.py").write_text("xy")
    (tmp_path / "b.py").write_text("z")
    before = digest_of(tmp_path)
    (tmp_path / "a.py").write_text("x")
    (tmp_path / "b.py").write_text("yz")
    assert digest_of(tmp_path) != before


def test_the_environment_says_where(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert cache_folder().parent == tmp_path


def test_numba_uses_that_folder():
    assert str(cache_folder().name) in str(numba.config.CACHE_DIR)
