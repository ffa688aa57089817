#!/usr/bin/env bash
# Run the named checks, all of them even after one failed: lint, type, test. The status is 0 if all passed.
#
#   tools/check.sh lint type test [pytest's arguments]
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # more threads than cores make small updates many times slower
export ROS_AUTOMATIC_DISCOVERY_RANGE=${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}

lint() { ruff check . && ruff format --check .; }
type() { mypy; }
test() {
    python -m pytest -m "not slow and not gpu" --durations 20 \
        -n auto --maxprocesses 4 --dist loadgroup --no-loadscope-reorder "$@"
}

failed=()
while [ $# -gt 0 ]; do
    check=$1
    shift
    case $check in
    lint | type)
        "$check" || failed+=("$check")
        ;;
    test)
        [ ${#failed[@]} -eq 0 ] || echo "failed before the tests: ${failed[*]}" >&2
        test "$@" || failed+=(test)
        break
        ;;
    *)
        echo "tools/check.sh: no check is called '$check': choose from lint, type, test" >&2
        exit 2
        ;;
    esac
done
[ ${#failed[@]} -eq 0 ] || echo "failed: ${failed[*]}" >&2
[ ${#failed[@]} -eq 0 ]
