"""PPO: the policy learns to please the reward model without leaving its reference (arXiv:2203.02155, section 3.5).

Every iteration: roll out, score, penalise divergence, estimate advantages, update policy and value model, log, save.
All randomness is a function of seed and iteration, so a resumed run ends with the same bits as one that never stopped.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rlhf.data.encoding import context_of
from rlhf.models import adapters
from rlhf.models.load import torch_dtype
from rlhf.models.save import save_model
from rlhf.models.sharding import gathered
from rlhf.ppo.engines.requirements import require_server
from rlhf.ppo.engines.start import open_engine
from rlhf.ppo.evaluate import evaluate
from rlhf.ppo.experience import make_experience, pack, roll_out, score
from rlhf.ppo.guard import check_limits, not_finite
from rlhf.ppo.order import seed_for
from rlhf.ppo.roles import Roles
from rlhf.ppo.setup import load_pretraining, load_prompts, load_roles
from rlhf.ppo.shared_value import SharedValueModel
from rlhf.ppo.training import Training
from rlhf.ppo.update import split_minibatches, update
from rlhf.pretraining.text_loss import held_out_blocks, text_loss
from rlhf.runtime.distributed import from_main, is_main_process
from rlhf.runtime.progress import Laps, Progress, progress
from rlhf.training import stopping
from rlhf.training.engine import NonFiniteLossError

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
    held_out_text = held_out_blocks(context.data, roles.tokenizer, context_of(roles.policy.config))
    training = Training(roles, config)
    start = _resume(context, training)

    def evaluation(step: int) -> dict[str, float]:
        with training.evaluated_policy():
            metrics, rows = evaluate(roles, engine, prompts.held_out, context.data.gold, config)
            if held_out_text is not None:
                budget = ppo.micro_batch_tokens
                with gathered(roles.policy):
                    metrics["eval/text_loss"] = text_loss(roles.policy, held_out_text, token_budget=budget)
            if training.best is not None:
                training.best.offer(step, metrics)
        tracker.samples(step, rows)
        return metrics

    if start == 0 and ppo.evaluate_every > 0:
        tracker.log(0, evaluation(0))
    bar: Progress[None] = progress(training.iterations, "ppo", "iteration", config.tracker.progress, initial=start)
    with stopping.between_steps(), bar:
        for iteration in range(start, training.iterations):
            training.set_learning_rates(iteration)
            seed = seed_for(config.seed, "iteration", iteration)
            laps = Laps()

            asked = prompts.take(iteration, ppo.batch_size, samples=ppo.samples_per_prompt)
            episodes = roll_out(roles, engine, asked, seed=seed)
            laps.end("rollout")

            scores = score(roles, episodes, token_budget=ppo.micro_batch_tokens)
            experience = make_experience(
                roles,
                pack(roles, episodes),
                scores.total,
                episodes.ended,
                split_minibatches(ppo.batch_size, ppo.num_minibatches, seed),
                config=ppo,
                kl_coef=training.kl.coef,
                temperature=config.rollout.temperature,
                score_std=training.score_std(scores.total),
                rollout_logprobs=episodes.rollout_logprobs,
            )
            measured = experience.metrics()
            laps.end("experience")

            value_alone = iteration < ppo.value_warmup_iterations
            losses: dict[str, float] = {}
            if not training.spent(measured["objective/kl"]):
                check_limits(iteration + 1, measured, ppo.limits, context.folder)
                try:
                    losses = update(
                        training.policy if not value_alone else None,
                        training.value_model,
                        experience,
                        ppo,
                        temperature=config.rollout.temperature,
                        seed=seed,
                        pretraining=pretraining.take(iteration) if pretraining is not None else None,
                        ema=training.ema,
                    )
                except NonFiniteLossError as error:
                    raise not_finite(iteration + 1, error, episodes, experience, context.folder) from error
                check_limits(iteration + 1, losses, ppo.limits, context.folder)
            laps.end("update")

            training.metrics = {
                **measured,
                **scores.metrics(),
                **episodes.metrics(context.data.gold),
                **losses,
                **training.state_metrics(),
                **laps.metrics,
            }
            if not value_alone:
                training.kl.update(measured["objective/kl"], episodes=ppo.batch_size)

            step = iteration + 1
            last = training.over_max_kl or step == training.iterations
            if last or (ppo.evaluate_every > 0 and step % ppo.evaluate_every == 0):
                training.metrics |= evaluation(step)
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

    _save(context, roles, training)
    return training.metrics | (training.best.metrics if training.best is not None else {})


def _save(context: StageContext, roles: Roles, training: Training) -> None:
    """Every rank takes part in making weights whole; the first one writes them."""
    with training.saved_policy(), gathered(roles.policy):
        if is_main_process():
            dtype = torch_dtype(context.config.model.dtype)
            save_model(roles.policy, roles.tokenizer, context.folder.model_dir, dtype=dtype)
    if roles.value_model is not None:
        with gathered(roles.value_model):
            if is_main_process():
                _save_value_model(context, roles)


def _save_value_model(context: StageContext, roles: Roles) -> None:
    config, tokenizer = context.config.model, roles.tokenizer
    dtype = torch_dtype(config.dtype)
    value_model, adapter = roles.value_model, None
    if isinstance(value_model, SharedValueModel):
        value_model = value_model.as_classifier(str(context.parents["policy"]), config)
    elif context.config.ppo.share_base:
        adapter = adapters.adapter_of(value_model, context.parents["policy"])
    save_model(value_model, tokenizer, context.folder.path / "value_model", dtype=dtype, adapter=adapter)


def _resume(context: StageContext, training: Training) -> int:
    """Load the newest checkpoint where an earlier attempt left one; the iteration to go on with."""
    latest = from_main(context.folder.latest_checkpoint) if context.resume else None
    if latest is None:
        context.tracker.rewind(-1)
        return 0
    step, folder = latest
    training.load(folder)
    context.tracker.rewind(step)
    return training.iterations if training.metrics.get("objective/over_max_kl") else step
