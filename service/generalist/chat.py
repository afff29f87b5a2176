"""ChatML as MedDr speaks it, the same for both engines.

One user turn: the image, a line break, the text. Texts may quote what came from outside (reports,
DICOM), so `plain` breaks everything that a tokenizer or a server would read as a control token.
"""

import re
from typing import Any

SYSTEM = "Answer the questions."
UNKNOWN, START, END = "<unk>", "<|startoftext|>", "<|endoftext|>"
TURN, END_OF_TURN = "<|im_start|>", "<|im_end|>"
IMAGE_START, IMAGE_END, IMAGE_PLACE = "<img>", "</img>", "<IMG_CONTEXT>"

# Their ids in a new tokenizer are their places here; the first five in the order of Yi's.
SPECIAL_TOKENS = (
    UNKNOWN, START, END, TURN, END_OF_TURN, IMAGE_START, IMAGE_END, IMAGE_PLACE,
)  # fmt: skip
STOP_TOKENS = (END, END_OF_TURN)

# "Hermes-2" of InternVL: no line break between turns. vLLM applies it to the parts of a message.
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\n" + SYSTEM + "<|im_end|>' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Every special token of the open vision–language models is "<" and one of these characters.
_OPENING = re.compile(r"<(?=[^\s\d<=.,])")


def plain(text: str) -> str:
    """The text with no control token left in it: `<|im_end|>` becomes `< |im_end|>`.

    Idempotent; comparisons such as `<5 mm` and `p<=0.05` stay as they are.
    """
    return _OPENING.sub("< ", text)


def chat_ids(tokenizer: Any, text: str, image_tokens: int, answer: str = "") -> list[int]:
    """The token ids of the prompt as vLLM computes them from the chat template.

    `answer` is the beginning of the assistant's turn, when the answer is to be continued.
    """
    image = IMAGE_START + IMAGE_PLACE * image_tokens + IMAGE_END
    turns = (
        f"{TURN}system\n{SYSTEM}{END_OF_TURN}"
        f"{TURN}user\n{image}\n{plain(text)}{END_OF_TURN}"
        f"{TURN}assistant\n{plain(answer)}"
    )
    ids: list[int] = tokenizer.encode(turns, add_special_tokens=False)
    return ids
