"""The production files, read rather than run: what is published, what is secret, and who waits for whom."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]


def test_there_are_four_services_and_no_more():
    assert set(SERVICES) == {"postgres", "valkey", "web", "worker"}
    assert SERVICES["postgres"]["image"].startswith("postgres:18")
    assert SERVICES["valkey"]["image"].startswith("valkey/valkey:9")


def test_only_the_web_server_has_a_published_port():
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["web"]


def test_no_secret_has_a_default():
    secrets = re.findall(r"\$\{(\w*(?:PASSWORD|SECRET)\w*)([^}]*)\}", TEXT)
    assert {name for name, _ in secrets} >= {"POSTGRES_PASSWORD", "QUINTET_SECRET_KEY", "VALKEY_PASSWORD"}
    assert all(rest.startswith(":?") for _, rest in secrets)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_says_whether_it_is_well(name: str):
    assert SERVICES[name]["healthcheck"]["test"]


def test_the_web_server_and_the_worker_share_one_volume():
    assert SERVICES["web"]["volumes"] == SERVICES["worker"]["volumes"] == ["quintet:/var/lib/quintet"]
    assert set(COMPOSE["volumes"]) == {"quintet", "postgres"}


def test_the_images_are_targets_of_the_dockerfile_and_the_web_one_has_no_torch():
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    by_name = {stage.split()[2]: stage for stage in stages}
    assert {SERVICES[name]["build"]["target"] for name in ("web", "worker")} <= set(by_name)
    assert "torch" not in by_name["base"] + by_name["web"]
    assert not re.search(
        r"^(torch|transformers)\b", (ROOT / "requirements/web.txt").read_text(), re.MULTILINE
    )


def test_a_gpu_is_a_file_of_its_own():
    gpu = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())
    assert set(gpu["services"]) == {"worker"}
    assert "nvidia" not in TEXT.split("services:")[1]


@pytest.mark.parametrize("name", ["web", "worker", "dev"])
def test_every_locked_package_has_a_hash_and_torch_is_not_among_them(name: str):
    text = (ROOT / f"requirements/{name}.txt").read_text()
    packages = re.findall(r"^([a-z0-9][\w.-]*)==(?:.|\\\n)*?--hash=sha256:", text, re.MULTILINE)
    assert packages == re.findall(r"^([a-z0-9][\w.-]*)==", text, re.MULTILINE)
    assert not [p for p in packages if p == "torch" or p.startswith(("nvidia", "triton", "cuda"))]
    assert "://" not in text
