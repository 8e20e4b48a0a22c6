"""The words that settings choose among."""

from __future__ import annotations

from enum import Enum


class StageName(Enum):
    all = "all"  # sft, reward, ppo, compare, in this order
    pretrain = "pretrain"
    sft = "sft"
    reward = "reward"
    ppo = "ppo"
    compare = "compare"
    report = "report"  # gathers what a run's sweeps trained: frontiers, ablations, tables
    label = "label"  # opens a page on which people judge responses
    data = "data"  # shows what is in the data, as a model would learn from it; trains nothing
    self_instruct = "self_instruct"  # grows a data set of instructions from seed tasks, with a model
    plan = "plan"  # prints what the chain would take of a GPU's memory, and runs nothing


class DType(Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Quantization(Enum):
    none = "none"
    int8 = "int8"  # LLM.int8() (arXiv:2208.07339)
    nf4 = "nf4"  # QLoRA's four bits, their scales quantized too (arXiv:2305.14314)


class Device(Enum):
    auto = "auto"  # CUDA when there is one, else CPU
    cpu = "cpu"
    cuda = "cuda"


class Float32Matmul(Enum):
    """torch.set_float32_matmul_precision; each names the least precise product that is allowed."""

    auto = "auto"  # medium on a CPU, where it is oneDNN's and agrees to 1e-5; highest on a GPU
    highest = "highest"
    high = "high"
    medium = "medium"


class DataSourceName(Enum):
    sandbox = "sandbox"  # the built-in instruction world
    jsonl = "jsonl"  # a file of one's own, of any common shape: rlhf/data/readers/jsonl.py
    mixture = "mixture"  # several of the others, as a YAML file says: rlhf/data/mixture.py
    phrasings = "phrasings"  # rows of a task, put into words by templates: rlhf/data/phrasings.py
    # Demonstrations; each is a module of rlhf/data/readers/.
    alpaca = "alpaca"
    dolly = "dolly"
    flan = "flan"
    flan_cot = "flan_cot"
    gpt4_llm = "gpt4_llm"
    instructgpt = "instructgpt"
    lima = "lima"
    openassistant = "openassistant"  # rankings too
    openhermes = "openhermes"
    self_instruct = "self_instruct"
    sharegpt = "sharegpt"
    slimorca = "slimorca"
    t0 = "t0"
    ultrachat = "ultrachat"
    # Rankings, whose best completions are demonstrations too.
    helpsteer = "helpsteer"
    hh_rlhf = "hh_rlhf"
    safe_rlhf = "safe_rlhf"  # by its label of helpfulness
    safe_rlhf_safer = "safe_rlhf_safer"  # by its label of safety
    shp = "shp"
    summarize_from_feedback = "summarize_from_feedback"
    ultrafeedback = "ultrafeedback"
    webgpt = "webgpt"


class Template(Enum):
    auto = "auto"  # the tokenizer's own chat template; `plain` when it has none
    plain = "plain"  # "Human: ...\n\nAssistant:"
    chatml = "chatml"
    llama3 = "llama3"
    alpaca = "alpaca"
    vicuna = "vicuna"
    zephyr = "zephyr"


class LongPrompts(Enum):
    refuse = "refuse"  # a bad row
    truncate = "truncate"  # its oldest turns are left out, whole exchanges at a time, and it is counted


class Sampling(Enum):
    weights = "weights"  # each part's share is its weight
    proportional = "proportional"  # examples-proportional: min(rows, data.mixture.cap), as FLAN's
    temperature = "temperature"  # the same numbers to the power 1 / data.mixture.temperature


class LossOn(Enum):
    last = "last"  # the last assistant turn of a conversation
    all = "all"  # every assistant turn


class SubsetRule(Enum):
    reward_model = "reward_model"  # the best by a reward model's score
    longest = "longest"  # the longest responses, in tokens (arXiv:2402.04833)
    random = "random"


class OnBadRow(Enum):
    refuse = "refuse"
    skip = "skip"  # counted, and listed in bad_rows.jsonl in the stage's folder


class SelectBy(Enum):
    validation_loss = "validation_loss"
    reward_model = "reward_model"  # mean score of sampled responses to held-out prompts, as InstructGPT chose
    last = "last"


class KLEstimator(Enum):
    k1 = "k1"  # log policy - log reference
    k2 = "k2"  # half its square
    k3 = "k3"  # r - 1 - log r, r = reference / policy


class KLPlacement(Enum):
    reward = "reward"  # taken from the reward of each token, as InstructGPT
    loss = "loss"  # a term of the policy's loss, as GRPO


class Advantage(Enum):
    gae = "gae"  # a value model and GAE, each token its own (arXiv:1506.02438)
    rloo = "rloo"  # less the mean reward of the prompt's other responses, one number a response (arXiv:2402.14740)
    group = "group"  # less the mean, over the std of the prompt's responses, one number a response (arXiv:2402.03300)


class ValueHead(Enum):
    separate = "separate"  # a model of its own, from the reward model, as InstructGPT
    shared = "shared"  # a head on the policy's trunk, which the value loss trains too


class LossMean(Enum):
    token = "token"  # over all tokens of the minibatch, as PPO's paper (its mean is over time steps)
    sequence = "sequence"  # over responses, of the mean over each one's tokens, as GRPO's


class Keep(Enum):
    last = "last"
    best = "best"  # by eval/score - ppo.kl.coef * eval/kl on the held-out prompts, the starting policy among them


class JudgeName(Enum):
    gold = "gold"  # the sandbox's own rubric
    reward_model = "reward_model"
    llm = "llm"  # a language model behind an OpenAI-compatible server, which compares two responses; costs requests


class TextMetric(Enum):
    bleu = "bleu"  # of a corpus, by sacrebleu
    rouge = "rouge"  # mean F1 of ROUGE-1, -2 and -L, by rouge-score
    squad = "squad"  # mean F1 over words and exact match, as SQuAD 2.0's
    drop = "drop"  # mean F1 and exact match, by the numbers in them, as DROP's
    accuracy = "accuracy"  # share that is a reference, but for case, space and punctuation around it


class RolloutEngineName(Enum):
    hf = "hf"  # our own sampling loop over the policy itself
    paged = "paged"  # Transformers' continuous batching over the policy itself; made for GPUs
    vllm = "vllm"  # vLLM in this process, weights copied to it before every rollout
    vllm_server = "vllm_server"  # a vLLM server that someone started, weights handed over through a folder


CHAIN = (StageName.sft, StageName.reward, StageName.ppo, StageName.compare)  # what stage=all means
