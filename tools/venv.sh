#!/usr/bin/env bash
# Makes .venv, or brings it up to date: drive_seg (editable) with ROS 2 and the tools its tests need.
#
#   tools/venv.sh                     the Python it was made with, at first python3
#   PYTHON=python3.12 tools/venv.sh   another Python
#
# ROS 2 comes from a sourced installation where there is one, otherwise (x86-64 Linux) from PyPI wheels of ROS 2 Jazzy.
# Does nothing when nothing that it depends on has changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=.venv
STAMP=$VENV/made-from
LOG=$VENV/install.log

step() { printf '==> %s\n' "$*"; }
fail() { printf 'venv: %s\n' "$@" >&2; exit 1; }

# The wheels' start-up hook sets these for its own interpreter; inherited, they break every other one.
if [ -n "${_ROS_WHEELS_BOOTSTRAP_COMPLETE:-}" ]; then
    unset _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH
fi

# What a shell may hold that sends pip's packages elsewhere, or Python to another one's library. In a virtual environment pip
# refuses --user, which a pip.conf can ask for as well.
export PIP_USER=0
unset PIP_TARGET PIP_PREFIX PIP_ROOT PYTHONHOME

# Two at once would delete each other's files. Held until the last process ends that was started here, pip's included.
wait_for_another() {
    command -v flock >/dev/null || return 0
    local state=0
    exec 9<.
    flock -n 9 || state=$?
    [ "$state" -eq 1 ] || return 0 # free, or on a file system that has no locks
    step "another one is at work on $VENV: waiting for it to end"
    flock 9
}

choose_python() {
    if [ -z "${PYTHON:-}" ] && [ -f "$STAMP" ]; then
        PYTHON=$(sed -n 's/^python //p' "$STAMP")
        [ -x "$PYTHON" ] || PYTHON=
    fi
    PYTHON=${PYTHON:-python3}
    if ! command -v "$PYTHON" >/dev/null; then
        case $PYTHON in
            */*) fail "there is no Python at $PYTHON" ;;
            python2* | python3.[0-9]) fail "there is no '$PYTHON' here, and 3.10 or newer is needed: make venv PYTHON=python3.12" ;;
            *) fail "there is no '$PYTHON' here: sudo apt install $PYTHON $PYTHON-venv" ;;
        esac
    fi
    VERSION=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    case $VERSION in
        2.* | 3.[0-9]) fail "$PYTHON is Python $VERSION; 3.10 or newer is needed: make venv PYTHON=python3.12" ;;
    esac
    # The Python below a virtual environment that is active, which may be the very one that is made anew.
    PYTHON=$("$PYTHON" -c 'import os, sys
print(sys.executable if sys.prefix == sys.base_prefix else os.path.realpath(sys.executable))')
}

# system: the ROS 2 that this shell has sourced; wheels: from PyPI.
choose_ros() {
    ROS=wheels
    if [ -n "${ROS_DISTRO:-}" ] && [ -n "${AMENT_PREFIX_PATH:-}" ]; then
        "$PYTHON" -c 'import rclpy' 2>/dev/null || fail \
            "ROS 2 $ROS_DISTRO is sourced, but $PYTHON (Python $VERSION) cannot import its rclpy." \
            "Take the Python that ROS was built for (make venv PYTHON=/usr/bin/python3), or a shell that has not sourced ROS."
        ROS="system $ROS_DISTRO"
    elif [ "$(uname -sm)" != 'Linux x86_64' ]; then
        fail "ROS 2 wheels exist for x86-64 Linux only, and this is $(uname -sm)." \
            "Install ROS 2 (Humble or newer), then: source /opt/ros/DISTRO/setup.bash && make venv" \
            "For run, evaluate and the other commands that need no ROS: $PYTHON -m venv .venv && .venv/bin/pip install '.[offline]'"
    else
        case $VERSION in
            3.1[0-4]) ;;
            *) fail "ROS 2 wheels exist for Python 3.10 to 3.14, and $PYTHON is Python $VERSION: make venv PYTHON=python3.14" ;;
        esac
    fi
    # What lies there would count as installed, and be missing in every other shell. A ROS installation is found through it.
    [ "$ROS" != wheels ] || unset PYTHONPATH
}

inputs_hash() {
    { cat setup.py setup.cfg tools/venv.sh; find tools/vision_msgs -type f -not -path '*/build/*' | LC_ALL=C sort | xargs cat; } \
        | cksum | tr ' ' '-'
}

check_folder() {
    [ -w . ] && { [ ! -e "$VENV" ] || [ -w "$VENV" ]; } \
        || fail "$(id -un) cannot write to $PWD/$VENV: sudo chown -R $(id -un) '$PWD', or take a checkout of your own"
}

check_system() {
    local missing=() headers
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || missing+=("python$VERSION-venv")
    if ! "$PYTHON" -c 'import vision_msgs.msg' 2>/dev/null; then # it will be compiled
        command -v g++ >/dev/null && command -v gcc >/dev/null || missing+=(g++)
        headers=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
        [ -f "$headers/Python.h" ] || missing+=("python$VERSION-dev")
    fi
    [ ${#missing[@]} -eq 0 ] || fail "this machine lacks ${missing[*]}: sudo apt install ${missing[*]}"
}

make_venv() {
    local options=()
    [ "$ROS" = wheels ] || options+=(--system-site-packages)
    "$PYTHON" -m venv --clear "${options[@]}" "$VENV" \
        || fail "$VENV cannot be made, see above; is there room on the disk? ($(df -h . | awk 'END { print $4 }') free)"
}

# pip with its output in the log; of that only the large downloads are shown, and that it waits: for minutes with no network.
pip_install() {
    "$VENV/bin/python" -m pip install --no-build-isolation --disable-pip-version-check --progress-bar off "$@" 2>&1 \
        | tee -a "$LOG" \
        | sed -nuE -e 's/^ *(.* \([0-9.]+ [MG]B\))$/      \1/p' -e 's/^WARNING: Retrying .*/      no answer; pip tries again/p' \
        || { tail -n 25 "$LOG" >&2; fail "pip failed, and all that it said is in $LOG." \
            "Mostly the network is away or the disk is full: make venv again when that is repaired."; }
}

install() {
    local extras=ros,offline,dev constraints=()
    if [ "$ROS" != wheels ]; then
        extras=offline,dev
        # The message packages of a ROS installation are compiled against the NumPy of that system. A newer one of the same
        # major version does, too, and Humble's own, 1.21.5, is too old for ONNX Runtime.
        "$VENV/bin/python" -c 'import numpy; print("numpy<%d" % (int(numpy.__version__.partition(".")[0]) + 1))' \
            >"$VENV/constraints.txt"
        constraints=(-c "$VENV/constraints.txt")
    fi
    step "2/4 installing drive_seg[$extras] and what it needs (about 370 MB if nothing is cached; log: $LOG)"
    pip_install 'setuptools>=70.1,<80' wheel
    # The rosidl generators, which compile vision_msgs, do not work with EmPy 4.
    pip_install "${constraints[@]}" -e ".[$extras]" 'empy>=3.3,<4'
}

install_vision_msgs() {
    local own="$VENV/lib/python$VERSION/site-packages/vision_msgs"
    if [ ! -d "$own" ] && "$VENV/bin/python" -c 'import vision_msgs.msg' 2>/dev/null; then
        step "3/4 vision_msgs comes with ROS 2 here"
        return
    fi
    step "3/4 compiling vision_msgs from its interface definitions"
    [ "$ROS" = wheels ] || step "    (where that fails: sudo apt install ros-$ROS_DISTRO-vision-msgs)"
    # In a copy inside .venv: nothing that is generated lands in the tree.
    rm -rf "$VENV/build-vision_msgs"
    cp -r tools/vision_msgs "$VENV/build-vision_msgs"
    pip_install --no-deps "./$VENV/build-vision_msgs"
    rm -rf "$VENV/build-vision_msgs"
}

# The installation is tried, not the shell: one without a home for ROS' log, or with an RMW that the wheels lack, needs no other.
check() {
    local surroundings=(ROS_LOG_DIR="$PWD/$VENV/log")
    [ "$ROS" != wheels ] || surroundings=(-u RMW_IMPLEMENTATION "${surroundings[@]}")
    step "4/4 trying it: rclpy, vision_msgs, drive_seg"
    env "${surroundings[@]}" "$VENV/bin/python" - <<'PY' || fail "the environment does not work; see $LOG, or start afresh: make clean venv"
import drive_seg
import rclpy
from vision_msgs.msg import Detection2DArray

rclpy.init()
rclpy.create_node("venv_check").create_publisher(Detection2DArray, "venv_check", 1)
rclpy.try_shutdown()
PY
}

wait_for_another
choose_python
choose_ros
trap 'fail "interrupted: make venv begins anew"' INT
# The folder: what pip installs in a virtual environment names it, so that in a copy it would run the original's code.
wanted=$(printf 'python %s\nversion %s\nros %s\nfolder %s\ninputs %s' \
    "$PYTHON" "$VERSION" "$ROS" "$(pwd -P)" "$(inputs_hash)")
if [ -f "$STAMP" ] && [ -x "$VENV/bin/python" ] && [ "$(cat "$STAMP")" = "$wanted" ]; then
    exit 0
fi

check_folder
start=$(date +%s)
identity() { sed '/^inputs/d'; }
if [ -f "$STAMP" ] && [ -x "$VENV/bin/python" ] && [ "$(identity <"$STAMP")" = "$(identity <<<"$wanted")" ]; then
    step "1/4 $VENV is older than setup.py or tools/: bringing it up to date"
    rm "$STAMP"
else
    check_system
    rm -f "$STAMP" # first: whatever ends this now, what it leaves is not taken for complete
    step "1/4 making $VENV with Python $VERSION ($PYTHON), ROS 2 from ${ROS/wheels/PyPI wheels (Jazzy)}"
    make_venv
fi
: >"$LOG"
install
install_vision_msgs
check
printf '%s\n' "$wanted" >"$STAMP"
step "$VENV is ready after $(($(date +%s) - start)) s"
