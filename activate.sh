# Source this file (bash or zsh) to have ros2, grpo-ros and the package's Python in the shell: source activate.sh
if [ -n "${ZSH_VERSION:-}" ]; then
    _grpo_shell=zsh
    eval '_grpo_root=${${(%):-%x}:A:h}'
elif [ -n "${BASH_VERSION:-}" ]; then
    _grpo_shell=bash
    _grpo_root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
else
    echo "activate.sh: source it from bash or zsh" >&2
    return 1
fi
if [ ! -f "$_grpo_root/.venv/bin/activate" ]; then
    echo "activate.sh: there is no environment yet. Remedy: make setup" >&2
    unset _grpo_shell _grpo_root
    return 1
fi

case $- in # the scripts of ROS and colcon read unset variables
*u*) _grpo_nounset=1 && set +u ;;
*) _grpo_nounset=0 ;;
esac

if [ -f "$_grpo_root/.venv/ros_prefix" ]; then # made for a ROS 2 of this machine
    _grpo_ros=$(cat "$_grpo_root/.venv/ros_prefix")
    case ":${AMENT_PREFIX_PATH:-}:" in
    *":$_grpo_ros:"*) ;;
    *) . "$_grpo_ros/setup.$_grpo_shell" ;;
    esac
    # Its ros2 runs on the system's interpreter, and our launch files need what .venv holds.
    _grpo_site=$_grpo_root/.venv/lib/python3.12/site-packages
    case ":${PYTHONPATH:-}:" in
    *":$_grpo_site:"*) ;;
    *) export PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}$_grpo_site ;;
    esac
    unset _grpo_site
else # made for the ROS 2 of the wheel
    _grpo_ros=$_grpo_root/.venv/lib/python3.12/site-packages/isaacsim/exts/isaacsim.ros2.core/jazzy
    case ":${AMENT_PREFIX_PATH:-}:" in
    *":$_grpo_ros:"*) ;;
    *)
        if [ -n "${ROS_DISTRO:-}" ]; then
            echo "activate.sh: the other ROS 2 $ROS_DISTRO in this shell is set aside" >&2
            unset AMENT_PREFIX_PATH COLCON_PREFIX_PATH CMAKE_PREFIX_PATH PYTHONPATH LD_LIBRARY_PATH
        fi
        export ROS_DISTRO=jazzy ROS_VERSION=2 ROS_PYTHON_VERSION=3
        export AMENT_PREFIX_PATH=$_grpo_ros
        export LD_LIBRARY_PATH=$_grpo_ros/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
        export PYTHONPATH=$_grpo_ros/rclpy${PYTHONPATH:+:$PYTHONPATH}
        export RMW_IMPLEMENTATION=${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}
        ;;
    esac
fi
export ROS_AUTOMATIC_DISCOVERY_RANGE=${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}
. "$_grpo_root/.venv/bin/activate"
if [ -f "$_grpo_root/install/local_setup.$_grpo_shell" ]; then
    . "$_grpo_root/install/local_setup.$_grpo_shell"
fi

if [ "$_grpo_nounset" = 1 ]; then set -u; fi
unset _grpo_shell _grpo_root _grpo_ros _grpo_nounset
