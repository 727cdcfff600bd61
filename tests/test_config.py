import runpy
from pathlib import Path

import pytest

from orderwire.config import load
from orderwire.errors import ConfigurationError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_wrong_setting_is_named_at_once(monkeypatch):
    monkeypatch.setenv("ORDERWIRE_PORT", "99999")
    monkeypatch.setenv("ORDERWIRE_LOG_LEVEL", "chatty")

    with pytest.raises(ConfigurationError, match=r"ORDERWIRE_PORT.*ORDERWIRE_LOG_LEVEL"):
        load()


def test_what_is_given_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("ORDERWIRE_PORT", "6000")

    assert load(port=None).port == 6000
    assert load(port=7000).port == 7000


def test_origins_are_split_at_commas(monkeypatch):
    monkeypatch.setenv("ORDERWIRE_ALLOWED_ORIGINS", "https://a.example, https://b.example")

    assert load().allowed_origins == ("https://a.example", "https://b.example")


def test_a_child_process_gets_the_same_settings(monkeypatch):
    settings = load(port=6001, allowed_origins=("https://a.example", "https://b.example"))
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)

    assert load() == settings


def test_the_database_is_in_the_data_folder_unless_named(tmp_path):
    assert load(data_dir=tmp_path).database == f"sqlite:///{tmp_path}/orderwire.db"
    assert load(database_url="postgresql+psycopg:///x").database == "postgresql+psycopg:///x"


def test_the_usual_names_of_the_database_and_of_redis_are_read_and_ours_win(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg:///theirs")
    monkeypatch.setenv("REDIS_URL", "redis://theirs")

    assert (load().database, load().redis_url) == ("postgresql+psycopg:///theirs", "redis://theirs")

    monkeypatch.setenv("ORDERWIRE_DATABASE_URL", "postgresql+psycopg:///ours")
    monkeypatch.setenv("ORDERWIRE_REDIS_URL", "redis://ours")

    assert (load().database, load().redis_url) == ("postgresql+psycopg:///ours", "redis://ours")
    assert load(redis_url="redis://given").redis_url == "redis://given"


def test_the_reference_pages_are_current():
    generated = runpy.run_path(str(ROOT / "docs" / "generate.py"))["PAGES"]

    stale = [path.name for path, page in generated.items() if path.read_text() != page()]

    assert stale == [], "run: python docs/generate.py"
