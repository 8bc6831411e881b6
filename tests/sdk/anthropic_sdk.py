"""Speaks through Tollgate with the official Anthropic SDK, changed in nothing but base URL and key.

usage: anthropic_sdk.py BASE_URL KEY SPENT_KEY LIMITED_KEY

The provider behind it is the fake one of tests/it; what it says is known here. It calls a tool when it is
given tools and one message. SPENT_KEY has no budget left, LIMITED_KEY no requests. KEY makes five messages.
"""

import sys

import anthropic
from anthropic import Anthropic

BASE_URL, KEY, SPENT_KEY, LIMITED_KEY = sys.argv[1:]
TEXT = "Hello from Claude é!"
MODEL = "claude-sonnet-5-5"
HELLO = [{"role": "user", "content": "Say hello."}]
TOOLS = [
    {
        "name": "weather",
        "description": "The weather of a city.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
]


def client(key: str = KEY) -> Anthropic:
    return Anthropic(base_url=BASE_URL + "/anthropic", api_key=key, max_retries=0, timeout=20)


def ask(key: str = KEY, **more):
    return client(key).messages.create(model=MODEL, max_tokens=200, messages=HELLO, **more)


def message():
    answer = ask()
    assert answer.content[0].text == TEXT, answer
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (1000, 100), answer


def streamed_message():
    with client().messages.stream(model=MODEL, max_tokens=200, messages=HELLO, system="Be brief.") as stream:
        text = "".join(stream.text_stream)
        answer = stream.get_final_message()
    assert text == TEXT, text
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (1000, 100), answer
    assert answer.stop_reason == "end_turn"


def tools():
    answer = ask(tools=TOOLS)
    (call,) = answer.content
    assert (call.name, call.input, answer.stop_reason) == ("weather", {"city": "Zürich"}, "tool_use"), answer
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    answered = HELLO + [
        {"role": "assistant", "content": [call.to_dict()]},
        {"role": "user", "content": [result]},
    ]
    answer = client().messages.create(model=MODEL, max_tokens=200, messages=answered, tools=TOOLS)
    assert answer.content[0].text == TEXT, answer


def streamed_tools():
    with client().messages.stream(model=MODEL, max_tokens=200, messages=HELLO, tools=TOOLS) as stream:
        answer = stream.get_final_message()
    assert answer.content[0].input == {"city": "Zürich"}, answer


def count_tokens():
    assert client().messages.count_tokens(model=MODEL, messages=HELLO).input_tokens == 2095


def models():
    ids = [model.id for model in client().models.list()]
    assert "anthropic/" + MODEL in ids, ids
    assert client().models.retrieve(MODEL).type == "model"


def raises(kind, status, word, code, call):
    try:
        call()
    except kind as error:
        assert type(error) is kind, type(error)
        assert error.status_code == status, error
        inner = error.body["error"]
        assert (inner["type"], inner["details"]["error_code"]) == (word, code), error.body
        return error
    raise AssertionError(f"no {kind.__name__}")


def budget_exceeded():
    error = raises(anthropic.PaymentRequiredError, 402, "billing_error", "budget_exceeded", lambda: ask(SPENT_KEY))
    assert "budget exceeded" in error.message, error.message
    assert 0 < int(error.response.headers["retry-after"]) <= 3600
    raises(anthropic.PaymentRequiredError, 402, "billing_error", "budget_exceeded", lambda: ask(SPENT_KEY, stream=True))


def rate_limited():
    error = raises(anthropic.RateLimitError, 429, "rate_limit_error", "request_limited", lambda: ask(LIMITED_KEY))
    assert "limit" in error.message


def unknown_key():
    call = lambda: ask("sk-bf-nobody")
    raises(anthropic.AuthenticationError, 401, "authentication_error", "virtual_key_not_found", call)


def other_provider():
    call = lambda: client().messages.create(model="openai/gpt-4o", max_tokens=9, messages=HELLO)
    raises(anthropic.PermissionDeniedError, 403, "permission_error", "provider_blocked", call)


for test in [
    message,
    streamed_message,
    tools,
    streamed_tools,
    count_tokens,
    models,
    budget_exceeded,
    rate_limited,
    unknown_key,
    other_provider,
]:
    test()
    print("ok", test.__name__)
