"""Clusters as on several hosts: over SSH, and with workers in network namespaces of their own."""

import contextlib
import getpass
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from cluster_tools import START_SECONDS, Cluster, environment

from napari_pixseg import segment

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
PICTURE = np.random.default_rng(5).integers(0, 256, (5, 40, 60, 3), dtype=np.uint8)
CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
SetEnv PYTHONPATH={path}
"""


def same_as_local(client, tmp_path):
    """Whether a run over several tiles gives on a cluster what it gives here."""
    from zarr import create_array, open_array

    path = str(tmp_path / "in.zarr")
    create_array(path, data=PICTURE, chunks=(1, 40, 60, 3))
    outputs = ("classes", "regions", "recolored")
    seg = segment(path, ct=0, axes="tyxc")
    with client.as_current():
        seg.export(str(tmp_path / "there.zarr"), outputs)
        assert len(client.scheduler_info()["workers"]) == 2
    seg.export(str(tmp_path / "here.zarr"), outputs)
    for name in ("0", "labels/classes/0", "labels/regions/0"):
        made = [open_array(str(tmp_path / location), path=name, mode="r")[:]
                for location in ("there.zarr", "here.zarr")]  # fmt: skip
        np.testing.assert_array_equal(*made)
    return True


# SSH ---------------------------------------------------------------------------------


@pytest.fixture
def ssh_options(tmp_path):
    """How to reach a server of the test's own, with a key made for it."""
    pytest.importorskip("asyncssh", reason="Dask's SSHCluster needs asyncssh")
    if SSHD is None or shutil.which("ssh-keygen") is None:
        pytest.skip("there is no sshd: install openssh-server, as `make test` tries to")
    for name in ("host", "user"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(make, check=True)
    # Below the ports that systems hand out, and another for every process of the tests.
    port = 10_000 + os.getpid() % 20_000
    config = tmp_path / "config"
    path = environment()["PYTHONPATH"]
    config.write_text(CONFIG.format(port=port, folder=tmp_path, path=path))
    with contextlib.suppress(OSError):
        os.makedirs("/run/sshd", exist_ok=True)
    with open(tmp_path / "sshd.log", "wb") as log:
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stderr=log)
    try:
        wait_for_port(server, port, tmp_path / "sshd.log")
        yield {
            "port": port, "username": getpass.getuser(), "known_hosts": None,
            "client_keys": [str(tmp_path / "user")], "config": None,
        }  # fmt: skip
    finally:
        server.kill()
        server.wait()


def wait_for_port(server, port, log):
    import socket

    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            pytest.skip(f"sshd does not run here: {log.read_text().strip()[-200:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    pytest.fail("sshd does not answer")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_cluster_over_ssh_gives_the_same(ssh_options, tmp_path):
    from distributed import Client, SSHCluster

    cluster = SSHCluster(
        ["127.0.0.1"] * 3, connect_options=ssh_options, remote_python=sys.executable,
        worker_options={"nthreads": 1, "memory_limit": "2GiB"},
        scheduler_options={"host": "127.0.0.1", "port": 0, "dashboard": False},
    )  # fmt: skip
    with cluster, Client(cluster, set_as_default=False, timeout=START_SECONDS) as client:
        client.wait_for_workers(2, timeout=START_SECONDS)
        assert same_as_local(client, tmp_path)


# Network namespaces --------------------------------------------------------------------


class Hosts(Cluster):
    """A cluster each worker of which has a network of its own."""

    def __init__(self, folder, bridge):
        self._bridge, self._count = bridge, 0
        super().__init__(folder, host=f"{SUBNET}.1")

    def _worker(self):
        self._count += 1
        name, address = f"{self._bridge}n{self._count}", f"{SUBNET}.{self._count + 1}"
        add_host(self._bridge, name, address)
        return ("ip", "netns", "exec", name), address


# Tests that run at the same time must not share a network.
SUBNET = f"10.77.{1 + os.getpid() % 254}"


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


def add_host(bridge, name, address):
    ip("netns", "add", name)
    ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b")
    ip("link", "set", f"{name}a", "master", bridge, "up")
    ip("link", "set", f"{name}b", "netns", name)
    ip("-n", name, "addr", "add", f"{address}/24", "dev", f"{name}b")
    ip("-n", name, "link", "set", f"{name}b", "up")
    ip("-n", name, "link", "set", "lo", "up")


@pytest.fixture
def bridge():
    """A bridge that joins the networks; all of it is removed in the end."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and iproute2")
    name = f"px{os.getpid() % 100_000}"
    try:
        ip("link", "add", name, "type", "bridge")
        ip("addr", "add", f"{SUBNET}.1/24", "dev", name)
        ip("link", "set", name, "up")
        ip("netns", "add", f"{name}n0")
    except subprocess.CalledProcessError as error:
        subprocess.run(["ip", "link", "del", name], capture_output=True)
        pytest.skip(f"no network namespaces can be made here: {error.stderr.decode().strip()}")
    yield name
    for number in range(4):
        subprocess.run(["ip", "netns", "del", f"{name}n{number}"], capture_output=True)
    subprocess.run(["ip", "link", "del", name], capture_output=True)


def test_workers_with_networks_of_their_own_give_the_same(bridge, tmp_path):
    from distributed import Client

    cluster = Hosts(tmp_path, bridge)
    try:
        with Client(cluster.address, set_as_default=False, timeout=START_SECONDS) as client:
            workers = client.scheduler_info()["workers"]
            assert {address.split("//")[1].split(":")[0] for address in workers} == {
                f"{SUBNET}.2", f"{SUBNET}.3"
            }  # fmt: skip
            assert same_as_local(client, tmp_path)
    finally:
        cluster.close()
