"""PPO: the policy learns to please the reward model without leaving its reference (arXiv:2203.02155, section 3.5).

Every iteration: roll out, score, penalise divergence, estimate advantages, update policy and value model, log, save.
All randomness is a function of seed and iteration, so a resumed run ends with the same bits as one that never stopped.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rlhf.ppo.engines.requirements import require_server
from rlhf.ppo.engines.start import open_engine
from rlhf.ppo.evaluate import Evaluation
from rlhf.ppo.experience import Responses, make_experience, pack, roll_out, score
from rlhf.ppo.guard import guarded
from rlhf.ppo.order import seed_for
from rlhf.ppo.save import save
from rlhf.ppo.setup import load_pretraining, load_prompts, load_roles
from rlhf.ppo.training import Training, resume
from rlhf.ppo.update import split_minibatches, update
from rlhf.runtime.progress import Laps, Progress, progress
from rlhf.training import stopping

if TYPE_CHECKING:
    from rlhf.ppo.engines.engine import RolloutEngine
    from rlhf.ppo.roles import Roles
    from rlhf.training.context import StageContext

log = logging.getLogger("rlhf")


def run(context: StageContext) -> dict[str, float]:
    """Trains, saves model/ and, where there is one, value_model/, and returns the final metrics."""
    require_server(context.config.rollout)
    roles = load_roles(context)
    with open_engine(context, roles) as engine:
        return _train(context, roles, engine)


def _train(context: StageContext, roles: Roles, engine: RolloutEngine) -> dict[str, float]:
    config, ppo, tracker = context.config, context.config.ppo, context.tracker
    prompts = load_prompts(context, roles)
    pretraining = load_pretraining(context, roles)
    evaluation = Evaluation(context, roles, engine, prompts.held_out)
    training = Training(roles, config)
    start = resume(context, training)
    if start == 0 and ppo.evaluate_every > 0:
        tracker.log(0, evaluation.of(training, 0))
    bar: Progress[None] = progress(training.iterations, "ppo", "iteration", config.tracker.progress, initial=start)
    with stopping.between_steps(), bar:
        for iteration in range(start, training.iterations):
            step, seed, laps = iteration + 1, seed_for(config.seed, "iteration", iteration), Laps()
            training.set_learning_rates(iteration)

            asked = prompts.take(iteration, ppo.batch_size, samples=ppo.samples_per_prompt)
            episodes = roll_out(roles, engine, asked, seed=seed)
            laps.end("rollout")

            scores = score(roles, episodes, token_budget=ppo.micro_batch_tokens)
            score_std = training.score_std(scores.total)
            experience = make_experience(
                roles,
                Responses(pack(roles, episodes), scores.total, episodes.ended, score_std, episodes.rollout_logprobs),
                split_minibatches(ppo.batch_size, ppo.num_minibatches, seed),
                config=ppo,
                kl_coef=training.kl.coef,
                temperature=config.rollout.temperature,
            )
            measured = experience.metrics()
            laps.end("experience")

            losses: dict[str, float] = {}
            value_alone = iteration < ppo.value_warmup_iterations
            if not training.spent(measured["objective/kl"]):
                with guarded(step, measured, episodes, experience, context) as losses:
                    losses |= update(
                        training.policy if not value_alone else None,
                        training.value_model,
                        experience,
                        ppo,
                        temperature=config.rollout.temperature,
                        seed=seed,
                        pretraining=pretraining.take(iteration) if pretraining is not None else None,
                        ema=training.ema,
                    )
            laps.end("update")

            training.metrics = {**measured, **scores.metrics(), **episodes.metrics(context.data.gold), **losses}
            training.metrics |= {**training.state_metrics(), **laps.metrics}
            if not value_alone:
                training.kl.update(measured["objective/kl"], episodes=ppo.batch_size)
            last = training.over_max_kl or step == training.iterations
            if last or (ppo.evaluate_every > 0 and step % ppo.evaluate_every == 0):
                training.metrics |= evaluation.of(training, step)
            tracker.log(step, training.metrics)
            stop = stopping.asked()
            if last or stop or step % ppo.save_every == 0:
                training.save(context.folder, step, keep=config.run.keep_checkpoints)
            bar.update()
            bar.show({name: measured[name] for name in ("objective/score", "objective/kl")})
            if training.over_max_kl:
                spent = (ppo.max_kl, iteration, training.iterations)
                log.info("ppo: objective/kl is over ppo.max_kl=%g; ended after %d of %d iterations", *spent)
                break
            if stop and not last:
                raise stopping.Stopped(step)

    save(context, roles, training)
    return training.metrics | (training.best.metrics if training.best is not None else {})
