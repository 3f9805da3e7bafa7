"""A tokenizer with one token per byte, so that any text encodes, and a short chat template.

Tools cost few tokens, because a small model has to find out by trying how they are called. Two control
bytes that no text needs mark them::

    system  ...\\x01move row col\\x01pass      each tool's name and the names of its parameters
    model   ...\\x01move\\x022\\x021           a call and its arguments, in the order of the parameters
    user    \\x02ok                           what a call gave

A string argument is written as it is, any other as JSON. One that is left out before another is empty.
"""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, END = "<|pad|>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
SPECIAL = (PAD, END, *ROLES)

_TOOLS = (
    "{% if tools %}"
    "{{ '<|system|>' + (messages[0]['content'] if messages[0]['role'] == 'system' else '') }}"
    "{% for tool in tools %}"
    r"{{ '\x01' + tool['function']['name'] }}"
    "{% for name in (tool['function']['parameters'] or {})['properties'] or {} %}{{ ' ' + name }}{% endfor %}"
    "{% endfor %}"
    "{{ '<|end|>' }}"
    "{% endif %}"
)

_ARGUMENTS = (
    "{% set arguments = call['function']['arguments'] %}"
    r"{% if arguments is string %}{{ '\x02' + arguments }}{% else %}"
    "{% set found = namespace(names=arguments, gap='') %}"
    "{% for tool in tools or [] if tool['function']['name'] == call['function']['name'] %}"
    "{% set found.names = (tool['function']['parameters'] or {})['properties'] or {} %}"
    "{% endfor %}"
    "{% for name in found.names %}"
    r"{% set found.gap = found.gap + '\x02' %}"
    "{% if name in arguments %}"
    "{% set value = arguments[name] %}"
    "{{ found.gap + (value if value is string else value | tojson) }}"
    "{% set found.gap = '' %}"
    "{% endif %}"
    "{% endfor %}"
    "{% endif %}"
)

CHAT_TEMPLATE = (
    f"{_TOOLS}"
    "{% for message in messages %}"
    "{% if not (tools and loop.first and message['role'] == 'system') %}"
    r"{{ '<|user|>\x02' if message['role'] == 'tool' else '<|' + message['role'] + '|>' }}"
    "{{ message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}"
    rf"{{{{ '\x01' + call['function']['name'] }}}}{_ARGUMENTS}"
    "{% endfor %}"
    "{{ '<|end|>' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def bytes_tokenizer(*, context: int) -> PreTrainedTokenizerFast:
    """Make the tokenizer of a model that reads at most *context* tokens.

    Ids 0 to 4 are the special tokens in the order of ``SPECIAL``; the 256 bytes follow.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
