#!/bin/sh
# Print the path of a CPython 3.12 that can carry the stack, or say in one line what is missing.
#
# Candidates: $PYTHON, the PATH, and the usual places of pyenv, uv and self-built interpreters. Each is run: a pyenv shim,
# for one, stands on the PATH and yet may refuse to start. With a ROS 2 Jazzy sourced, the interpreter has to import its
# rclpy; without, it has to find libpython3.12.so, which the ROS libraries of the wheel are linked to.
set -u

inspect='
import ctypes, importlib.util, platform, sys
if sys.version_info[:2] != (3, 12) or platform.python_implementation() != "CPython":
    sys.exit("is {} {}.{}".format(platform.python_implementation(), *sys.version_info[:2]))
for module in ("venv", "ensurepip"):
    if importlib.util.find_spec(module) is None:
        sys.exit("lacks the module " + module + " (Debian and Ubuntu: apt-get install python3.12-venv)")
if sys.argv[1] == "rclpy":
    import rclpy
elif sys.argv[1] == "libpython":
    try:
        ctypes.CDLL("libpython3.12.so.1.0")
    except OSError:
        sys.exit("finds no libpython3.12.so (Debian and Ubuntu: apt-get install libpython3.12)")
print(getattr(sys, "_base_executable", sys.executable))
'

candidates() {
    [ -n "${PYTHON:-}" ] && printf '%s\n' "$PYTHON"
    old_ifs=$IFS; IFS=:
    for name in python3.12 python3 python; do
        for folder in $PATH; do printf '%s\n' "$folder/$name"; done
    done
    IFS=$old_ifs
    printf '%s\n' "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.12*/bin/python3.12 /usr/local/bin/python3.12 \
        /usr/bin/python3.12 /opt/*/bin/python3.12 "${HOME:-}"/.local/share/uv/python/cpython-3.12*/bin/python3.12
}

# Print the first candidate that passes, given what it must load: rclpy | libpython | nothing.
search() {
    candidates | while IFS= read -r candidate; do
        path=$(command -v "$candidate" 2>/dev/null) || continue
        if answer=$("$path" -c "$inspect" "$1" 2>&1); then
            printf '%s\n' "$answer" | tail -n 1
            break
        elif [ "$1" = libpython ]; then
            printf '%s %s\n' "$path" "$(printf '%s\n' "$answer" | tail -n 1)" >>"$refusals"
        fi
    done
}

refusals=$(mktemp 2>/dev/null) || refusals=/dev/null
trap '[ "$refusals" = /dev/null ] || rm -f "$refusals"' EXIT

found=
[ "${ROS_DISTRO:-}" = jazzy ] && [ -n "${AMENT_PREFIX_PATH:-}" ] && found=$(search rclpy)
[ -n "$found" ] || found=$(search libpython)
if [ -z "$found" ]; then
    seen=$(grep -E 'lacks|finds no|is CPython' "$refusals" | sort -u -k 2 | head -n 3 | paste -sd ';' - | sed 's/;/; /g')
    echo "set-up needs CPython 3.12 with venv and its shared library (seen: ${seen:-none}). Remedy: apt-get install" \
        "python3.12 python3.12-venv libpython3.12, or PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install 3.12," \
        "or name one: make setup PYTHON=/path/to/python3.12" >&2
    exit 1
fi
printf '%s\n' "$found"
