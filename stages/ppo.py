"""PPO: the policy learns to please the reward model without leaving its reference (arXiv:2203.02155, section 3.5).

Every iteration: roll out, score, penalise divergence, estimate advantages, update policy and value model, log, save.
All randomness is a function of seed and iteration, so a resumed run ends with the same bits as one that never stopped.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rlhf import adapters, models
from rlhf.ppo.evaluate import evaluate
from rlhf.ppo.experience import gold_scores, make_experience, pack, roll_out, score
from rlhf.ppo.order import seed_for
from rlhf.ppo.setup import load_pretraining, load_prompts, load_roles
from rlhf.ppo.training import Training
from rlhf.ppo.update import split_minibatches, update
from rlhf.tracking import Progress, progress

if TYPE_CHECKING:
    from rlhf.pipeline import StageContext


def run(context: StageContext) -> dict[str, float]:
    """Trains, saves model/ and value_model/, and returns the final metrics."""
    config, ppo, tracker = context.config, context.config.ppo, context.tracker
    roles = load_roles(context)
    prompts = load_prompts(context, roles)
    pretraining = load_pretraining(context, roles)
    training = Training(roles, config)
    start = _resume(context, training)

    def evaluation(step: int) -> dict[str, float]:
        with training.saved_policy():
            metrics, rows = evaluate(roles, prompts.held_out, context.data.gold, config)
        tracker.samples(step, rows)
        return metrics

    if start == 0 and ppo.evaluate_every > 0:
        tracker.log(0, evaluation(0))
    bar: Progress[None] = progress(training.iterations, "ppo", "iteration", config.tracker.progress, initial=start)
    with bar:
        for iteration in range(start, training.iterations):
            training.set_learning_rates(iteration)
            seed = seed_for(config.seed, "iteration", iteration)
            clock = [time.perf_counter()]

            episodes = roll_out(roles, prompts.take(iteration, ppo.batch_size), config.rollout, seed=seed)
            clock.append(time.perf_counter())

            experience = make_experience(
                roles,
                pack(roles, episodes),
                score(roles, episodes, token_budget=ppo.micro_batch_tokens),
                episodes.ended,
                split_minibatches(ppo.batch_size, ppo.num_minibatches, seed),
                config=ppo,
                kl_coef=training.kl.coef,
                temperature=config.rollout.temperature,
            )
            clock.append(time.perf_counter())

            losses = update(
                training.policy,
                training.value_model,
                experience,
                ppo,
                temperature=config.rollout.temperature,
                seed=seed,
                pretraining=pretraining.take(iteration) if pretraining is not None else None,
                ema=training.ema,
            )
            clock.append(time.perf_counter())

            step = iteration + 1
            measured = experience.metrics()
            training.metrics = {
                **measured,
                **losses,
                "rollout/ended": sum(episodes.ended) / ppo.batch_size,
                "optim/lr": training.policy.lr,
                "optim/value_lr": training.value_model.lr,
                "kl/coef": training.kl.coef,
                "time/rollout_s": clock[1] - clock[0],
                "time/experience_s": clock[2] - clock[1],
                "time/update_s": clock[3] - clock[2],
            }
            gold = gold_scores(context.data.gold, episodes)
            if gold is not None:
                training.metrics["objective/gold"] = sum(gold) / len(gold)
            training.kl.update(measured["objective/kl"], episodes=ppo.batch_size)

            last = step == training.iterations
            if last or (ppo.evaluate_every > 0 and step % ppo.evaluate_every == 0):
                training.metrics |= evaluation(step)
            tracker.log(step, training.metrics)
            if last or step % ppo.save_every == 0:
                with context.folder.checkpoint(step) as folder:
                    training.save(folder)
            bar.update()
            bar.show({name: measured[name] for name in ("objective/score", "objective/kl")})

    dtype = models.torch_dtype(config.model.dtype)
    with training.saved_policy():
        models.save_model(roles.policy, roles.tokenizer, context.folder.model_dir, dtype=dtype)
    adapter = adapters.adapter_of(roles.value_model, context.parents["policy"]) if ppo.share_base else None
    models.save_model(
        roles.value_model, roles.tokenizer, context.folder.path / "value_model", dtype=dtype, adapter=adapter
    )
    return training.metrics


def _resume(context: StageContext, training: Training) -> int:
    """Load the newest checkpoint where an earlier attempt left one; the iteration to go on with."""
    latest = context.folder.latest_checkpoint() if context.resume else None
    if latest is None:
        context.tracker.rewind(-1)
        return 0
    step, folder = latest
    training.load(folder)
    context.tracker.rewind(step)
    return step
