"""Machines made of namespaces: each has its own processes, network, host name, /etc/hosts and /dev/shm.

All of it lives and dies with processes. The first process of a machine's PID namespace takes the whole
machine with it, whatever has been forked or made a daemon there; a network without processes vanishes with
its links. So nothing has to be undone, and a killed owner leaves nothing: the kernel kills its machines
(PR_SET_PDEATHSIG, unshare(1) --kill-child).
"""

import ipaddress
import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DOCKER = "172.17.0.1"
"""Each machine lists this address first, as hosts with Docker may; to all of them it means themselves."""

NETWORKS = ipaddress.ip_network("198.18.0.0/15")
"""For tests of networks (RFC 2544): no real network has it."""

UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc")
NETWORK = ("--net", "--uts")

SWITCH = """
ip link add switch type bridge && ip link set switch up && echo ready
read  # until the owner says so, or has died in whatever way
for try in {1..50}; do rm -rf "$1" && break; sleep 0.1; done
"""
"""Holds the network that machines are plugged into, and removes the folder ``$1`` at the end."""

BOOT = f"""
hostname "$1" && mount --bind "$2/hosts.$1" /etc/hosts && mount -t tmpfs tmpfs /dev/shm || exit
ip link set lo up
ip link add docker0 type bridge && ip addr add {DOCKER}/16 dev docker0 && ip link set docker0 up || exit
echo ready
read  # until the cable is in
ip addr add "$3" dev eth0 && ip link set eth0 up || exit
"""
"""The network of the machine with host name ``$1``; its files are in folder ``$2``, its address is ``$3``."""


class Machine:
    """Runs bash ``script``, with ``words`` as ``$1 $2 …``, as the first process of a new PID namespace.

    ``options`` are unshare's, for namespaces beyond that of processes. What it says goes to the file ``log``.
    """

    def __init__(self, script: str, *words: str, log: Path, options: tuple[str, ...] = ()):
        with log.open("ab") as told:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *UNSHARE, *options, "bash", "-c", script, "init", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=told,
                env={"PATH": PATH},
                start_new_session=True,
            )

    @property
    def first(self) -> psutil.Process | None:
        """The machine's PID 1, as this host sees it; None if it has ended, or not started."""
        with suppress(psutil.NoSuchProcess):
            return next(iter(psutil.Process(self.process.pid).children()), None)

    def processes(self) -> list[psutil.Process]:
        """All that live in the machine, the first one too."""
        own = namespace(self.first.pid)
        return [process for process in psutil.process_iter() if namespace(process.pid) == own]

    def kill(self) -> None:
        """Kills all processes at once, and returns when they are gone."""
        (self.first or self.process).kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:  # it has just ended
        return None


class Switch:
    """Connects machines and this host, which gets the link ``name`` with ``address``/bits.

    At its end, or the owner's, it removes ``folder``.
    """

    def __init__(self, name: str, address: str, folder: Path):
        self.name = name
        self.process = subprocess.Popen(
            ["unshare", "--net", "bash", "-c", SWITCH, "switch", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": PATH},
            start_new_session=True,
        )
        await_ready(self.process)
        ip("link", "add", name, "type", "veth", "peer", "name", "host", "netns", str(self.process.pid))
        ip("addr", "add", address, "dev", name)
        ip("link", "set", name, "up")
        # This host notices in 2 s that a machine is no longer there, instead of up to a minute.
        quick = ("base_reachable", "1000", "delay_probe", "500", "retrans", "250")
        ip("ntable", "change", "name", "arp_cache", "dev", name, *quick)
        self._ip("link", "set", "host", "master", "switch", "up")

    def plug(self, name: str, machine: Machine) -> None:
        """A cable from this switch's port ``name`` to the machine's eth0."""
        await_ready(machine.process)
        cable = ("type", "veth", "peer", "name", "eth0", "netns", str(machine.process.pid))
        self._ip("link", "add", name, *cable)
        self._ip("link", "set", name, "master", "switch", "up")
        machine.process.stdin.write(b"\n")
        machine.process.stdin.flush()

    def unplug(self, name: str) -> None:
        self._ip("link", "delete", name)

    def close(self) -> None:
        ip("link", "delete", self.name)  # it would vanish by itself, but only soon
        self.process.communicate(b"\n")

    def _ip(self, *words: str) -> None:
        command("nsenter", "--net", "--target", str(self.process.pid), "ip", *words)


def free_network() -> ipaddress.IPv4Network:
    """A network of 254 hosts to which this host has no route, and which another process hardly takes now."""
    routes = json.loads(ip("-json", "-4", "route", "show", "table", "all"))
    known = [route["dst"] for route in routes if route["dst"] != "default"]
    taken = [ipaddress.ip_network(destination) for destination in known]
    choices = list(NETWORKS.subnets(new_prefix=24))
    first = os.getpid() % len(choices)
    return next(net for net in choices[first:] + choices[:first] if not any(map(net.overlaps, taken)))


def await_ready(process: subprocess.Popen) -> None:
    if process.stdout.readline() != b"ready\n":
        raise RuntimeError(f"no machine came up: {process.args} ended with {process.wait()}")


def ip(*words: str) -> str:
    return command("ip", *words)


def command(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, env={"PATH": PATH})
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
