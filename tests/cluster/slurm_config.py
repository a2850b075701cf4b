"""The files of a cluster: slurm.conf, gres.conf, munge's key, and /etc/hosts of each machine."""

import os
import socket
from pathlib import Path

import psutil

NODES = ("n1", "n2", "g1")
CREDENTIALS = 8
"""Seconds for which the credentials of a start hold. A requeued job waits so long before it starts again."""

SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}({head})
SlurmctldPort={port}
CommunicationParameters=NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={credentials}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmctldDebug=verbose
SlurmdDebug=verbose

# No cgroups: they may not be ours. Like them, linuxproc finds processes that left their group or session.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none

SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=6
KillWait=10
MinJobAge=3600
JobRequeue=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE

GresTypes=gpu
NodeName=DEFAULT CPUs=2 RealMemory={memory} State=UNKNOWN
NodeName=n1 NodeAddr={n1}
NodeName=n2 NodeAddr={n2}
NodeName=g1 NodeAddr={g1} Gres=gpu:2
PartitionName=DEFAULT State=UP MaxTime=INFINITE
PartitionName=cpu Nodes=n1,n2 PriorityTier=1 GraceTime=20 Default=YES
PartitionName=short Nodes=n1,n2 PriorityTier=1 GraceTime=20 MaxTime=2 Default=NO
PartitionName=urgent Nodes=n1,n2 PriorityTier=2 PreemptMode=OFF Default=NO
PartitionName=gpu Nodes=g1 PreemptMode=OFF Default=NO
"""

# SLURM wants devices, whichever, and sets CUDA's variables for them.
GRES_CONF = "NodeName=g1 Name=gpu File=/dev/null,/dev/zero Flags=nvidia_gpu_env\n"


def write_files(folder: Path, address: str, addresses: dict[str, str]) -> None:
    """For slurmctld at ``address`` of this host and nodes at ``addresses``; all state goes to ``folder``."""
    host = socket.gethostname().partition(".")[0]
    with socket.create_server((address, 0)) as free:
        port = free.getsockname()[1]
    conf = SLURM_CONF.format(
        host=host,
        head=address,
        port=port,
        folder=folder,
        credentials=CREDENTIALS,
        memory=psutil.virtual_memory().total // 2**20,
        **addresses,
    )
    (folder / "slurm.conf").write_text(conf)
    (folder / "gres.conf").write_text(GRES_CONF)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    for own in (host, *NODES):
        # As on Debian, a node's name means itself by localhost; but slurmctld binds to what its name means.
        known = {host: address} | addresses | ({own: "127.0.1.1"} if own in NODES else {})
        lines = ["127.0.0.1 localhost"] + [f"{place} {name}" for name, place in known.items()]
        name = own if own in NODES else "head"
        (folder / f"hosts.{name}").write_text("\n".join(lines) + "\n")
