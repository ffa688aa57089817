#!/bin/sh
# Bring the environment up to date, with the named extra requirements: tools/set_up.sh [test] [isaaclab] [gr00t] [browser]
set -eu
tools=$(dirname "$0")
python=$("$tools/find_python.sh")
exec "$python" -B "$tools/set_up.py" "$@"
