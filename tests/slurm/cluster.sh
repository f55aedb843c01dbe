#!/usr/bin/env bash
# A real SLURM on this machine, without systemd: tests/slurm/cluster.sh start DIR | stop DIR
# Needs root and, on Debian: apt-get install -y --no-install-recommends slurm-wlm munge
# DIR gets slurm.conf, the spool folders and the logs; afterwards `export SLURM_CONF=DIR/slurm.conf`.
set -euo pipefail
action=$1 dir=$(realpath -m "$2")
host=$(hostname -s)

start_munge() { # one of our own: its key and its socket are in DIR
  dd if=/dev/urandom of="$dir/munge.key" bs=128 count=1 status=none
  chmod 0400 "$dir/munge.key"
  # --force: the socket is for root alone, which munged warns of
  munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
    --log-file="$dir/munged.log" --seed-file="$dir/munge.seed" 2> /dev/null
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

configure() {
  mkdir -p "$dir/state" "$dir/spool"
  cat > "$dir/slurm.conf" <<CONF
ClusterName=quantlab
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=2,batch_sched_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=1
KillWait=1
InactiveLimit=0
SlurmdTimeout=60
MinJobAge=120
MaxArraySize=3
# Two jobs at a time, whatever the machine has: these tests are about the queue, not about time.
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=low Nodes=$host Default=YES MaxTime=60 PriorityTier=1 PreemptMode=REQUEUE State=UP
PartitionName=high Nodes=$host MaxTime=60 PriorityTier=10 PreemptMode=OFF State=UP
CONF
}

start() {
  if [ -f "$dir/slurm.conf" ] && SLURM_CONF="$dir/slurm.conf" sinfo > /dev/null 2>&1; then return; fi
  configure
  start_munge
  export SLURM_CONF="$dir/slurm.conf"
  slurmctld -f "$SLURM_CONF"
  slurmd -f "$SLURM_CONF"
  for _ in $(seq 120); do
    if sinfo --noheader --format=%t 2> /dev/null | grep -qx -e idle -e mix -e alloc; then return; fi
    sleep 0.5
  done
  echo "SLURM did not become idle:" >&2
  tail -n 20 "$dir/slurmctld.log" "$dir/slurmd.log" >&2
  exit 1
}

stop() {
  export SLURM_CONF="$dir/slurm.conf"
  scancel --quiet --state=PENDING --state=RUNNING --user="$(id -un)" 2> /dev/null || true
  for name in slurmd slurmctld munged; do
    pid=$(cat "$dir/$name.pid" 2> /dev/null) || continue
    kill "$pid" 2> /dev/null || continue
    for _ in $(seq 40); do
      kill -0 "$pid" 2> /dev/null || break
      sleep 0.25
    done
    kill -9 "$pid" 2> /dev/null || true
  done
}

"$action"
