#!/bin/sh
# What can be read of a running VM, for `irqmatrix explain`, where nothing can be installed.
#
#   sh collect.sh [PID [SECONDS [FILE...]]]
#
# PID is QEMU's process; the FILEs are snapshots of the guest's /proc/interrupts. As root it records
# KVM's tracepoints, too, in a tracefs instance of its own. The archive has names and addresses:
# `irqmatrix collect --redact irqmatrix-collect.tar.gz` makes a copy to send.
set -u
umask 077
export LC_ALL=C

pid=${1:-}
seconds=${2:-5}
if [ $# -gt 2 ]; then shift 2; else set --; fi
out=irqmatrix-collect.tar.gz
tracefs=/sys/kernel/tracing
instance=$tracefs/instances/irqmatrix-$$
work=$(mktemp -d) || exit 1
folder=$work/irqmatrix
missing=
events='kvm_exit kvm_set_irq kvm_ioapic_set_irq kvm_ioapic_delayed_eoi_inj kvm_msi_set_irq
kvm_pic_set_irq kvm_apic kvm_apic_ipi kvm_apic_accept_irq kvm_apicv_accept_irq kvm_eoi kvm_pv_eoi
kvm_ack_irq kvm_inj_virq kvm_userspace_exit kvm_msr kvm_mmio kvm_pio'
events_per_s=20000 # of the interval: a trace with that many is ended before it

clean_up() {
    if [ -d "$instance" ]; then rmdir "$instance"; fi
    rm -r "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

fail() { echo "collect.sh: $1" >&2; exit 2; }
lacks() { # a source, and why it gave nothing: words without quotes
    missing="$missing${missing:+,}
  \"$1\": \"$2\""
    echo "not collected: $1: $2"
}
now() { date +%s.%N | sed 's/[^0-9.]//g'; }
trace_is_full() { # of its events, and of those that did not stay
    cat "$instance"/per_cpu/cpu[0-9]*/stats | awk -v most="$events_per_s" -v seconds="$seconds" '
        /^(overrun|dropped events):/ { lost += $NF }
        /^entries:/ { entries += $2 }
        END { exit !(lost || entries > most * seconds) }'
}
ticks() { cat /proc/"$pid"/task/[0-9]*/stat 2>/dev/null; }
interrupts() { now; cat /proc/interrupts; }

case $seconds in
    '' | *[!0-9.]* | *.*.*) fail "not a number of seconds: $seconds" ;;
esac
if [ -z "$pid" ]; then
    pid=$(for each in /proc/[0-9]*; do
        program=$(tr '\0' '\n' 2>/dev/null <"$each/cmdline" | head -n 1)
        case ${program##*/} in
            qemu-system-x86_64 | qemu-system-i386 | qemu-kvm | kvm) echo "${each#/proc/}" ;;
        esac
    done)
    case $pid in
        '') fail "no QEMU runs here" ;;
        *[!0-9]*) fail "several QEMUs run here, say which: $(echo "$pid" | tr '\n' ' ')" ;;
    esac
fi
[ -r "/proc/$pid/cmdline" ] || fail "no process $pid"
mkdir "$folder" || exit 1

# Each argument in quotes, as its reader expects it.
tr '\0' '\n' <"/proc/$pid/cmdline" | sed "s/'/'\\\\''/g; s/^/'/; s/\$/'/" | tr '\n' ' ' \
    >"$folder/cmdline.txt"
echo "Linux version $(uname -r)" >"$folder/versions.txt"

parameters=$(for each in /sys/module/kvm/parameters/* /sys/module/kvm_*/parameters/*; do
    module=${each#/sys/module/}
    [ -r "$each" ] && echo "${module%%/*}.${each##*/}=$(cat "$each")"
done)
if [ -n "$parameters" ]; then
    echo "$parameters" >"$folder/module-parameters.txt"
else
    lacks "module parameters" "KVM is not loaded"
fi

number=0
for file; do
    number=$((number + 1))
    cp "$file" "$folder/guest-interrupts-$number.txt" || fail "cannot read $file"
done
[ $number -gt 0 ] || lacks "guest interrupts" "no file was given"
lacks "monitor" "a shell cannot ask it"
lacks "libvirt's XML" "a shell script does not ask virsh: send virsh dumpxml"

tracing=
if [ -w "$tracefs/instances" ] && mkdir "$instance" 2>/dev/null; then
    cpus=$(grep -c '^processor' /proc/cpuinfo)
    echo $((32768 / (cpus > 128 ? 128 : cpus))) >"$instance/buffer_size_kb" &&
        echo 1 >"$instance/options/event-fork" &&
        (cd "/proc/$pid/task" && echo [0-9]*) >"$instance/set_event_pid" &&
        traced=$(for event in $events; do
            echo 1 2>/dev/null >"$instance/events/kvm/$event/enable" && echo "$event"
        done) && [ -n "$traced" ] && tracing=yes
fi
[ -n "$tracing" ] || lacks "trace" "tracefs is not mounted, needs root, or KVM has no tracepoints"

interrupts >"$folder/host-interrupts.txt"
ticks >"$work/before"
begun=$(now)
if [ -n "$tracing" ]; then
    (
        left=${seconds%.*}
        while [ "${left:-0}" -gt 0 ] && [ -d "$instance" ]; do
            if trace_is_full; then
                echo 0 >"$instance/tracing_on"
                echo "it has enough after $((${seconds%.*} - left)) s" >"$work/ended"
                break
            fi
            sleep 1
            left=$((left - 1))
        done
    ) &
fi
sleep "$seconds"
wait
if [ -e "$work/ended" ]; then lacks "the rest of the trace" "$(cat "$work/ended")"; fi
elapsed=$(echo "$begun $(now)" | awk '{ print ($2 > $1 ? $2 - $1 : 1) }')
ticks >"$work/after"
interrupts >>"$folder/host-interrupts.txt"
if [ -n "$tracing" ]; then
    echo 0 >"$instance/tracing_on"
    {
        echo "# irqmatrix: traced $(echo "$traced" | tr '\n' ' ')"
        dd if="$instance/trace" bs=4096 count=8192 2>/dev/null
    } >"$folder/trace.txt"
fi

{
    echo "clock ticks (user, system) of each thread in $elapsed s"
    sed 's/^\([0-9]*\) (\(.*\)) /\1 \2	/' "$work/before" "$work/after" | awk -F '\t' '
        { split($2, field, " ") }
        $1 in user { print field[12] - user[$1], field[13] - system_[$1], $1; next }
        { user[$1] = field[12]; system_[$1] = field[13] }'
} >"$folder/threads.txt"

printf '{"schema": 1, "redaction": "not redacted", "seconds": %s, "missing": {%s}}\n' \
    "$seconds" "$missing" >"$folder/contents.json"
(cd "$work" && tar cf - irqmatrix) | gzip >"$out" || fail "cannot write $out"
echo "$out: not redacted: \`irqmatrix collect --redact $out\` makes a copy to send"
