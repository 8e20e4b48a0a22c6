from __future__ import annotations

import copy

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from rlhf.evaluation.answering.kl import response_logprobs


def tiny_model(architecture: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if architecture == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=31, n_positions=64, n_embd=16, n_layer=2, n_head=2))
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=31, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    )


def sequences(count: int) -> tuple[list[list[int]], list[list[int]]]:
    generator = torch.Generator().manual_seed(1)

    def ids(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high, (), generator=generator))
        return torch.randint(0, 31, (length,), generator=generator).tolist()

    return [ids(1, 12) for _ in range(count)], [ids(0, 9) for _ in range(count)]


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("token_budget", [1, 40, 10_000])
def test_batched_sums_equal_one_sequence_at_a_time(architecture: str, token_budget: int) -> None:
    model = tiny_model(architecture).train()  # its dropout must not matter
    prompts, responses = sequences(17)
    found = response_logprobs(model, prompts, responses, token_budget=token_budget)
    assert model.training
    model.eval()
    for prompt, response, total in zip(prompts, responses, found, strict=True):
        expected = 0.0
        for t, token in enumerate(response):
            logits = model(torch.tensor([prompt + response[:t]])).logits[0, -1].detach().double()
            expected += float(logits.log_softmax(-1)[token])
        assert total == pytest.approx(expected, abs=1e-4)


def test_kl_of_a_model_from_itself_is_zero_and_from_another_is_positive_on_its_own_samples() -> None:
    reference = tiny_model("llama").eval()
    policy = copy.deepcopy(reference)
    with torch.no_grad():
        policy.lm_head.weight += 0.3 * torch.randn(policy.lm_head.weight.shape, generator=torch.manual_seed(0))
    prompts = [[1, 2, 3]] * 400
    logits = policy(torch.tensor([[1, 2, 3]])).logits[0, -1].detach()
    drawn = torch.distributions.Categorical(logits=logits).sample((400,))
    responses = [[int(token)] for token in drawn]
    own = response_logprobs(policy, prompts, responses)
    assert own == response_logprobs(policy, prompts, responses)
    reference_logits = reference(torch.tensor([[1, 2, 3]])).logits[0, -1].detach()
    exact = float((logits.softmax(-1) * (logits.log_softmax(-1) - reference_logits.log_softmax(-1))).sum())
    differences = torch.tensor(own) - torch.tensor(response_logprobs(reference, prompts, responses))
    assert float(differences.mean()) == pytest.approx(exact, abs=4 * float(differences.std()) / 20)
    assert exact > 0
