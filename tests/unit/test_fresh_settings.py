"""What a fresh machine takes over from this one."""

from __future__ import annotations

from pathlib import Path

from fresh.settings import local_paths, local_settings, running_codename, source_lines

TARGETS = """\
bookworm|main|http://mirror.test/debian/
bookworm-updates|main|http://mirror.test/debian/
bookworm-backports|main|http://mirror.test/debian/
bookworm-security|main|http://mirror.test/debian-security/
bookworm|contrib|http://mirror.test/debian/
nodistro|main|https://other.test/
"""


def test_sources_for_another_suite_are_of_the_same_mirrors() -> None:
    assert source_lines("trixie", TARGETS, "bookworm").splitlines() == [
        "deb http://mirror.test/debian/ trixie main",
        "deb http://mirror.test/debian/ trixie-updates main",
        "deb http://mirror.test/debian-security/ trixie-security main",
    ]


def test_sources_of_another_distribution_are_left_to_debootstrap() -> None:
    assert source_lines("trixie", "noble|main|http://mirror.test/ubuntu/\n", None) == ""


def test_codename_of_another_distribution_is_none(tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text('ID=ubuntu\nVERSION_CODENAME="noble"\n')
    assert running_codename(tmp_path / "os-release") is None


def test_codename_of_debian_is_read(tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text('ID=debian\n\nVERSION_CODENAME="trixie"\n')
    assert running_codename(tmp_path / "os-release") == "trixie"


def test_local_paths_are_found_in_options_and_addresses(tmp_path: Path) -> None:
    for name in ("wheels", "index", "ca.pem"):
        (tmp_path / name).mkdir()
    text = (
        f"find-links={tmp_path}/wheels,{tmp_path}/absent\n"
        f"index-url = https://mirror.test/simple file://{tmp_path}/index\n"
        f'Acquire::https::CAInfo "{tmp_path}/ca.pem";\n'
    )
    expected = tuple(tmp_path / name for name in ("wheels", "index", "ca.pem"))
    assert local_paths([text]) == expected


def test_settings_take_over_variables_of_pip_proxies_and_certificates_alone(tmp_path: Path) -> None:
    taken = {
        "PIP_INDEX_URL": "https://mirror.test/simple",
        "https_proxy": "http://proxy.test:3128",
        "NO_PROXY": "localhost",
        "SSL_CERT_FILE": "/absent.pem",
    }
    others = {"PIP_CACHE_DIR": "/c", "PYTHONPATH": ".ci", "MAKEFLAGS": "n", "HOME": "/home/me"}
    assert local_settings("trixie", {**taken, **others}, tmp_path).environment == taken


def test_settings_of_pip_bring_the_folders_that_they_name(tmp_path: Path) -> None:
    for folder in (".config/pip", "wheels", "index/simple", "index/files"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / ".config/pip/pip.conf").write_text(
        f"[global]\nfind-links = {tmp_path}/wheels\nextra-index-url = file://{tmp_path}/index/simple"
    )
    settings = local_settings("bookworm", {}, tmp_path)
    assert (tmp_path / ".config/pip", Path("/root/.config/pip")) in settings.copied
    assert {tmp_path / "wheels", tmp_path / "index"} <= set(settings.bound)


def test_settings_bring_files_that_variables_name_but_no_folder_of_etc(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    variables = {"PIP_CERT": f"{tmp_path}/ca.pem", "SSL_CERT_DIR": "/etc"}
    settings = local_settings("bookworm", variables, tmp_path)
    assert (tmp_path / "ca.pem", tmp_path / "ca.pem") in settings.copied
    assert Path("/etc") not in settings.bound


def test_settings_of_pip_in_a_file_of_ones_own_are_copied_to_where_they_can_be_read(
    tmp_path: Path,
) -> None:
    (tmp_path / "my.conf").write_text("[global]\ntimeout = 60\n")
    settings = local_settings("bookworm", {"PIP_CONFIG_FILE": f"{tmp_path}/my.conf"}, tmp_path)
    copy = Path(settings.environment["PIP_CONFIG_FILE"])
    assert (tmp_path / "my.conf", copy) in settings.copied
