# Sourced: a Slurm of two nodes on this one machine, as root, everything it writes below $cluster. It needs no systemd and no
# control groups; it cannot show limits of memory, file systems of a node, or the loss of one.

cluster_install() {
    command -v slurmctld > /dev/null && command -v munged > /dev/null && return
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge
}

cluster_start() {
    cluster=$1
    mkdir -p "$cluster/state" "$cluster/n1" "$cluster/n2"
    chmod 755 "$cluster"
    if ! munge -n > /dev/null 2>&1; then
        mkdir -p /run/munge /var/log/munge /var/lib/munge
        chown munge:munge /run/munge /var/log/munge /var/lib/munge
        [ -s /etc/munge/munge.key ] || runuser -u munge -- /usr/sbin/mungekey
        runuser -u munge -- /usr/sbin/munged --pid-file="$cluster.munged.pid" 2> /dev/null ||
            runuser -u munge -- /usr/sbin/munged
        cluster_munged=$(pgrep -n -x munged)
    fi
    cores=$(nproc)
    cat > "$cluster/slurm.conf" <<CONF
ClusterName=trial
SlurmctldHost=localhost
SlurmctldPort=17000
SlurmUser=root
AuthType=auth/munge
ReturnToService=2
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
StateSaveLocation=$cluster/state
SlurmdSpoolDir=$cluster/%n
SlurmctldPidFile=$cluster/slurmctld.pid
SlurmdPidFile=$cluster/%n.pid
SlurmctldLogFile=$cluster/slurmctld.log
SlurmdLogFile=$cluster/%n.log
KillWait=5
NodeName=n1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=17001 CPUs=$cores RealMemory=4000
NodeName=n2 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=17002 CPUs=$cores RealMemory=4000
PartitionName=normal Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
CONF
    export SLURM_CONF=$cluster/slurm.conf
    slurmctld && sleep 1 && slurmd -N n1 && slurmd -N n2 || return 1
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        sleep 1
        srun -N2 -n2 true > /dev/null 2>&1 && return 0
    done
    tail -n 5 "$cluster"/*.log >&2
    return 1
}

cluster_stop() {
    [ -n "${cluster:-}" ] || return 0
    scancel --state=PENDING,RUNNING --user="$(id -u)" 2> /dev/null
    [ -z "${person:-}" ] || scancel --user="$person" 2> /dev/null
    sleep 2
    for name in n1 n2 slurmctld; do
        [ ! -s "$cluster/$name.pid" ] || kill "$(cat "$cluster/$name.pid")" 2> /dev/null
    done
    [ -z "${cluster_munged:-}" ] || kill "$cluster_munged" 2> /dev/null
    sleep 1
}
