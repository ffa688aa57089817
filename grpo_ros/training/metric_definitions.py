"""What each metric of a run means: one definition each, from which the reference is generated."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Metric:
    """One entry of metrics.jsonl.

    Attributes:
        name: its key; TensorBoard and ~/metrics have the same.
        formula: how it is computed.
        unit: empty for shares and counts.
        good: what it looks like where training goes well.
        group: heading in the reference.
    """

    name: str
    formula: str
    unit: str = ""
    good: str = ""
    group: str = ""


def _of(group: str, *rows: tuple[str, str, str, str]) -> tuple[Metric, ...]:
    return tuple(Metric(name, formula, unit, good, group) for name, formula, unit, good in rows)


METRICS = (
    *_of(
        "Where the run is",
        ("iteration", "rollouts and updates so far", "", ""),
        ("env_steps", "control steps of all environments so far", "steps", ""),
        ("rollout_env_steps", "control steps of this iteration", "steps", ""),
        ("gradient_steps", "optimiser steps so far", "steps", ""),
        ("episode_steps", "mean control steps of an episode", "steps", "falls as it learns"),
    ),
    *_of(
        "Success",
        (
            "eval_success",
            "share of the curve's fixed initial states that the deployed policy solves",
            "",
            "rises; read it with its interval",
        ),
        ("eval_low", "lower end of its 95 % Wilson interval", "", ""),
        ("eval_high", "upper end of its 95 % Wilson interval", "", ""),
        (
            "train_success",
            "mean outcome of the rollouts, exploration included",
            "",
            "rises, below eval_success",
        ),
        ("score_mean", "mean score: partial credit in [0, 1]", "", "rises"),
        ("reward_mean", "mean sum of all reward terms of an episode", "", "rises"),
        ("reward_histogram", "rollouts by score, in bins of 0.1; the last: exactly 1", "", ""),
        ("reward_q05", "5 % quantile of the score", "", ""),
        ("reward_q25", "25 % quantile of the score", "", ""),
        ("reward_q50", "median of the score", "", ""),
        ("reward_q75", "75 % quantile of the score", "", ""),
        ("reward_q95", "95 % quantile of the score", "", ""),
    ),
    *_of(
        "Groups, where they have more than one member",
        ("group_std_mean", "mean over groups of the outcome's standard deviation", "", "> 0.1"),
        ("group_std", "the same of the first objective", "", "> 0.1"),
        ("all_fail_fraction", "groups without a success", "", "< 0.5"),
        ("all_success_fraction", "groups without a failure", "", "rises in the end"),
        (
            "zero_variance_fraction",
            "groups whose members agree in every objective: they teach nothing",
            "",
            "< 0.8",
        ),
        ("group_success_histogram", "groups by success rate, in ten bins; the last: all", "", ""),
        (
            "diversity",
            "mean over groups, steps and components of the standard deviation of the members' "
            "first chunks",
            "action",
            "does not fall below a fifth of its start",
        ),
        ("advantage_mean", "mean advantage of rollouts with weight", "", "near 0"),
        ("advantage_std", "its standard deviation", "", "> 0.1"),
        ("advantage_min", "least advantage", "", ""),
        ("advantage_max", "greatest advantage", "", ""),
        ("advantage_histogram", "decisions with weight by advantage, 12 bins in [-3, 3]", "", ""),
        ("weighted_steps", "executed steps that have weight in the loss", "steps", "> 0"),
        ("masked_rewards", "rollouts left out, as a reward was not finite", "", "0"),
        ("replayed_fraction", "episodes that the success buffer stood in for", "", "< 0.5"),
        ("staleness", "mean age of the episodes that are learned from", "updates", "< 5"),
    ),
    *_of(
        "Critic",
        (
            "explained_variance",
            "1 - Var[R - V] / Var[R] before the critic learns from the rollout; R, the "
            "lambda-return, holds estimates V of later decisions, so it is above what is "
            "explained of outcomes",
            "",
            "> 0.3",
        ),
        ("return_mean", "mean of what the critic is fitted to", "", ""),
        ("value_loss", "mean squared error, clipped, over the epochs", "", "falls"),
        ("group_weight", "of the groups against the critic, in a hybrid", "", ""),
    ),
    *_of(
        "Update",
        ("entropy", "of one step's distribution, mean over first decisions", "nats", "slow fall"),
        (
            "approx_kl",
            "mean over chunks of sum_k (r - 1 - log r), last epoch: divergence from the policy "
            "that sampled",
            "nats",
            "near kl_target",
        ),
        (
            "reference_kl",
            "mean divergence of a step from the cloned policy, in closed form",
            "nats",
            "",
        ),
        ("learning_rate", "Adam's, that follows approx_kl", "", "within its bounds"),
        ("policy_loss", "mean loss of the minibatches", "", ""),
        ("grad_norm", "mean norm of the gradient before it is clipped", "", "no sudden growth"),
        ("clip_fraction_low", "weighted share with r < 1 - clip_low and A < 0", "", "< 0.3"),
        ("clip_fraction_high", "weighted share with r > 1 + clip_high and A > 0", "", "< 0.3"),
        ("ratio_min", "least ratio r in the last epoch", "", ""),
        ("ratio_max", "greatest ratio r in the last epoch", "", ""),
        (
            "effective_sample_size",
            "(sum w r)^2 / (sum w sum w r^2): share of the rollout that still counts",
            "",
            "> 0.5",
        ),
        ("skipped_non_finite", "minibatches without a step: gradient not finite", "", "0"),
        ("skipped_too_far", "minibatches without a step: already too far", "", "few"),
        (
            "first_minibatch_ratio_error",
            "greatest |r - 1| before the first step; more than 1e-4 stops training",
            "",
            "< 1e-4",
        ),
        ("masked_rows", "decisions left out, as a value was not finite", "", "0"),
    ),
    *_of(
        "Starts",
        ("start_initial_fraction", "groups that start as episodes do", "", ""),
        ("start_initial_success", "their success", "", ""),
        ("start_branch_fraction", "groups that branch off rollouts", "", ""),
        ("start_branch_success", "their success", "", "0.2 to 0.8"),
        ("start_demonstration_fraction", "groups that start along demonstrations", "", ""),
        ("start_demonstration_success", "their success", "", "0.2 to 0.8"),
        (
            "outcome_prediction_error",
            "mean squared error of predicted success, before it is fitted to the rollout",
            "",
            "< 0.2",
        ),
        ("curriculum_distance", "share of a demonstration still to be done", "", "rises to 1"),
    ),
    *_of(
        "Alarm",
        (
            "collapse_alarm",
            "1 while entropy falls, diversity is below a fifth of its start and "
            "zero_variance_fraction above 0.8, ten iterations long, below 0.9 success",
            "",
            "0",
        ),
    ),
)
"""All of them, in the order of the reference."""

BY_NAME = {metric.name: metric for metric in METRICS}


def metrics_reference() -> str:
    """Return the Markdown page of all metrics."""
    lines = [
        "# Metrics",
        "",
        "Generated by `python -m grpo_ros.reference`; do not edit. A line of `metrics.jsonl` "
        "holds those that the run's algorithm has; TensorBoard and `~/metrics` have the same "
        "names. Wall-clock times are in `timing.jsonl`. r is the likelihood ratio of the present "
        "policy to the one that sampled, A the advantage, w the weight, R the return, V the "
        "critic's estimate.",
    ]
    group = None
    for metric in METRICS:
        if metric.group != group:
            group = metric.group
            lines += ["", f"## {group}", "", "| name | what | unit | good |", "| - | - | - | - |"]
        what = metric.formula.replace("|", "\\|")
        lines.append(f"| `{metric.name}` | {what} | {metric.unit} | {metric.good} |")
    return "\n".join(lines) + "\n"
