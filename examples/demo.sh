#!/bin/bash
# Makes the pods of pod1.yaml and pod2.yaml on a carpeld of its own, looks at them from all
# sides, kills the daemon under them, removes everything, and checks that nothing is left.
#
# Needs root, and CARPEL_BIN_DIR: where carpeld, carpel, carpel-holder and carpel-demo-web are.
set -eEuo pipefail
trap 'echo "demo: line $LINENO failed: $BASH_COMMAND" >&2' ERR

here=$(cd "$(dirname "$0")" && pwd)
bin=${CARPEL_BIN_DIR:-${CARPEL_BIN:-}}
bridge=carpeldemo0
table=carpel_demo
cgroup=/carpel-demo
cidr=10.213.77.0/24

daemon=""
scratch=""
failed=no

die() { echo "demo: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "needs root: it makes namespaces, a bridge and cgroups"
[ -n "$bin" ] || die "CARPEL_BIN_DIR must say where the programs are (make demo does)"
for program in carpeld carpel carpel-holder carpel-demo-web; do
  [ -x "$bin/$program" ] || die "$bin/$program is not there"
done
for tool in curl ip nft nsenter; do
  command -v "$tool" >/dev/null || die "$tool is not installed"
done
[ -z "$(ip -4 route show root "$cidr")" ] || die "$cidr is in use on this host"
[ ! -e "/sys/class/net/$bridge" ] || die "$bridge is there already: does another demo run?"

# --- What it is told with

if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold="" plain=""; fi
heading() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
# Shows a command and what it prints; its failure is the demo's.
show() { printf '$ %s\n' "$*"; "$@"; }
# The same for a command that is not worth reading as it is.
show_as() { printf '$ %s\n' "$1"; shift; "$@"; }

# Tries a command for ten seconds.
eventually() {
  local _
  for _ in $(seq 100); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.1
  done
  "$@"
}

# --- The state of the host, to compare at the end

host_state() {
  # Ids of mounts change; their places and options do not.
  awk '{ $1 = $2 = $3 = ""; print "mount", $0 }' /proc/self/mountinfo
  ip -o link | awk -F': ' '{ sub(/@.*/, "", $2); print "link", $2 }'
  nft list tables | sed 's/^/nft /'
  # Cgroups of others come and go while find looks.
  { find /sys/fs/cgroup -path "*$cgroup*" -type d 2>/dev/null || true; } | sed 's/^/cgroup /'
  local name
  for name in net/ipv4/ip_forward net/ipv6/conf/all/forwarding; do
    [ ! -e "/proc/sys/$name" ] || echo "sysctl $name $(cat "/proc/sys/$name")"
  done
  ip -4 route show root "$cidr" | sed 's/^/route /'
}

pod_processes() { # [part of the path of a cgroup]
  { find /sys/fs/cgroup -path "*$cgroup*${1:-}*" -name cgroup.procs -exec cat {} + 2>/dev/null ||
    true; } | sort -un
}

start_of() { # of a process: its id may be used again
  { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null || true; } | cut -d' ' -f20
}

# Every process and namespace of the pods that is seen while they live must be gone later.
remember() {
  local pid kind own
  for pid in $(pod_processes); do
    echo "$pid $(start_of "$pid")" >>"$scratch/processes"
    for kind in net mnt uts ipc pid; do
      own=$(readlink "/proc/$pid/ns/$kind" 2>/dev/null) || continue
      [ "$own" = "$(readlink "/proc/$$/ns/$kind")" ] || echo "$own" >>"$scratch/namespaces"
    done
  done
}

# --- The daemon

start_daemon() {
  "$bin/carpeld" --config "$scratch/config.toml" >>"$scratch/carpeld.log" 2>&1 &
  daemon=$!
  # So that the shell does not tell of its end.
  disown "$daemon"
  carpel health --wait 10s >/dev/null
}

# Waits for the end of the daemon.
gone() {
  local _
  for _ in $(seq 200); do
    if ! kill -0 "$daemon" 2>/dev/null; then daemon=""; return 0; fi
    sleep 0.1
  done
  echo "carpeld does not end" >&2
  return 1
}

write_config() {
  cat >"$scratch/config.toml" <<TOML
[paths]
root = "$scratch/root"
run = "$scratch/run"
[grpc]
socket = "$scratch/run/carpel.sock"
[admin]
socket = "$scratch/run/admin.sock"
[holder]
binary = "$bin/carpel-holder"
[cgroup]
root = "$cgroup"
[network]
driver = "bridge"
[network.bridge]
name = "$bridge"
pod_cidrs = ["$cidr"]
nft_table = "$table"
TOML
}

# --- The end

# Removes what is there, however far the demo came; everything here may fail.
clear_away() {
  if [ -n "$scratch" ] && [ -e "$scratch/config.toml" ]; then
    if [ -z "$daemon" ]; then start_daemon || true; fi
    carpel delete --all --all-namespaces --grace 0 >/dev/null 2>&1 || true
    if [ -n "$daemon" ]; then kill -TERM "$daemon" 2>/dev/null && gone || true; fi
    if [ -n "$daemon" ]; then kill -KILL "$daemon" 2>/dev/null && gone || true; fi
    "$bin/carpeld" cleanup --config "$scratch/config.toml" >>"$scratch/carpeld.log" 2>&1 || true
  fi
}

finish() {
  local status=$?
  trap - EXIT INT TERM ERR
  set +e
  if [ "$status" != 0 ]; then
    failed=yes
    if [ -s "$scratch/carpeld.log" ]; then
      printf '\n-- the end of the log of carpeld:\n' >&2
      tail -n 30 "$scratch/carpeld.log" >&2
    fi
  fi
  clear_away
  [ -z "$scratch" ] || rm -rf "$scratch" || failed=yes
  if [ "$failed" = yes ]; then
    printf '\ndemo: FAILED\n' >&2
    exit 1
  fi
  heading "done in $SECONDS s"
}

leaks() {
  local pid start found=0 own
  host_state | sort >"$scratch/after"
  if ! diff "$scratch/before" "$scratch/after" >"$scratch/difference"; then
    sed -n 's/^> /left behind: /p; s/^< /missing: /p' "$scratch/difference"
    found=1
  fi
  while read -r pid start; do
    # One that has ended and waits for PID 1 to take note is not ours any more.
    if [ -n "$start" ] && [ "$(start_of "$pid")" = "$start" ] &&
      ! grep -q '^State:.*zombie' "/proc/$pid/status"; then
      echo "left behind: process $pid $(tr '\0' ' ' <"/proc/$pid/cmdline")"
      found=1
    fi
  done < <(sort -u "$scratch/processes")
  # A process can end between the listing and the look at it.
  { readlink /proc/[0-9]*/ns/{net,mnt,uts,ipc,pid} 2>/dev/null || true; } | sort -u >"$scratch/now"
  for own in $(sort -u "$scratch/namespaces" | comm -12 - "$scratch/now"); do
    echo "left behind: namespace $own"
    found=1
  done
  # Locks and empty directories stay; a directory of a pod has its id or uid in its name.
  if find "$scratch/root" "$scratch/run" "$scratch/cli" ! -type d \
    ! -name lock ! -name carpeld.lock ! -name boot | grep . ||
    find "$scratch/root" "$scratch/run" "$scratch/cli" | grep -F -f "$scratch/ids"; then
    echo "left behind: the files above"
    found=1
  fi
  return "$found"
}

trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

scratch=$(mktemp -d -t carpel-demo.XXXXXX)
mkdir "$scratch/cli"
: >"$scratch/processes"
: >"$scratch/namespaces"
: >"$scratch/ids"
export CARPEL_SOCKET=$scratch/run/carpel.sock CARPEL_STATE_DIR=$scratch/cli
unset CARPEL_ADMIN_SOCKET
PATH=$bin:$PATH
host_state | sort >"$scratch/before"

heading "The daemon, in a scratch directory"
write_config
start_daemon
show carpel version
show carpel health

heading "An image of one static file, made here and loaded"
show_as "carpel-demo-web pack image.tar" carpel-demo-web pack "$scratch/image.tar"
show_as "carpel load -i image.tar" carpel load -i "$scratch/image.tar"
show carpel images

heading "A pod of two containers, and a second pod on the same container port"
cd "$here/.."
show carpel create -f examples/pod1.yaml
show carpel create -f examples/pod2.yaml
show carpel get pods -o wide
show carpel get containers
remember
carpel get pods -o json | sed -n 's/.*"\(uid\|sandboxId\)": "\(.*\)".*/\2/p' >"$scratch/ids"

ip_of() { carpel get pod "$1" -o json | sed -n 's/.*"podIP": "\(.*\)".*/\1/p'; }
id_of() { carpel get pod "$1" -o json | sed -n 's/.*"sandboxId": "\(.*\)".*/\1/p'; }
one=$(ip_of pod1) two=$(ip_of pod2)
[ -n "$one" ] && [ -n "$two" ] || die "a pod has no address"
[ "$one" != "$two" ] || die "both pods have the address $one"

# Asks for a page and makes sure which pod answers.
says() { # pod command...
  local pod=$1 answer
  shift
  printf '$ %s\n' "$*"
  answer=$("$@")
  printf '%s\n' "$answer"
  [[ $answer == "hello from pod $pod at "* ]] || die "$pod should have answered"
}
fetch="curl -sS --max-time 5"

heading "From the host through the host ports"
eventually $fetch http://127.0.0.1:8080/healthz
eventually $fetch http://127.0.0.1:8081/healthz
says pod1 $fetch http://127.0.0.1:8080/
says pod2 $fetch http://127.0.0.1:8081/

heading "From the host, and from the other pod, by the pod's address"
says pod1 $fetch "http://$one/"
says pod1 carpel exec pod2 -- /carpel-demo-web get "http://$one/"
says pod2 carpel exec pod1 -c log-reader -- /carpel-demo-web get "http://$two/"

heading "From one container to the other over localhost"
says pod1 carpel exec pod1 -c log-reader -- /carpel-demo-web get http://127.0.0.1/

heading "The second container reads the log of the first"
reads() { carpel logs pod1 -c log-reader | grep -q "in the log: .*GET / "; }
eventually reads
show carpel logs pod1 -c log-reader --tail 4
show carpel logs pod1 -c web --tail 2

heading "The links and namespaces of each pod"
show_as "ip link show master $bridge" ip -br link show master "$bridge"
for pod in pod1 pod2; do
  pid=$(pod_processes "$(id_of "$pod")" | tail -n 1)
  [ -n "$pid" ] || die "$pod has no process in a cgroup of its own"
  echo "-- $pod, seen from process $pid"
  nsenter -t "$pid" -n ip -br addr
  for kind in net ipc uts mnt pid cgroup; do
    own=$(readlink "/proc/$pid/ns/$kind") host=$(readlink "/proc/$$/ns/$kind")
    [ "$own" != "$host" ] || die "$pod shares the host's $kind namespace"
    printf '%-20s (the host: %s)\n' "$own" "$host"
  done
done

heading "No mount of a container on the host"
mounts=$(grep -c -e "$scratch" /proc/self/mountinfo || true)
echo "mounts below $scratch in the host's table: $mounts"
[ "$mounts" = 0 ] || die "a mount of a pod is on the host"

heading "The daemon is killed; the pods go on"
requests() { carpel logs pod2 | grep -c "GET / "; }
before=$(requests)
show_as "kill -KILL \$(pidof carpeld)" kill -KILL "$daemon"
gone
says pod1 $fetch http://127.0.0.1:8080/
says pod2 $fetch "http://$two/"
says pod2 $fetch http://127.0.0.1:8081/
show_as "carpeld" start_daemon
show carpel get pods -o wide
says pod2 carpel exec pod1 -c log-reader -- /carpel-demo-web get "http://$two/"
after=$(requests)
echo "requests in the log of pod2: $before before, $after now, none lost"
[ "$after" = $((before + 3)) ] || die "3 requests since then should be in the log"
remember

heading "Removed"
show carpel delete -f examples/pod1.yaml
show carpel delete pod2
show carpel get pods --all-namespaces
show carpel rmi carpel.local/web:latest
show_as "kill -TERM \$(pidof carpeld)" kill -TERM "$daemon"
gone
printf '$ carpeld cleanup\n'
carpeld cleanup --config "$scratch/config.toml" >>"$scratch/carpeld.log" 2>&1

heading "What is left"
leaks || die "something is left behind"
echo "no process, namespace, mount, link, route, nftables table, cgroup, file; sysctls as before"
