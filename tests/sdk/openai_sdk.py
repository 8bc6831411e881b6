"""Speaks through Tollgate with the official OpenAI SDK, changed in nothing but base URL and key.

usage: openai_sdk.py BASE_URL KEY SPENT_KEY LIMITED_KEY

The provider behind it is the fake one of tests/it; what it says is known here. A model named
`gpt-4o-mini` calls a tool. SPENT_KEY has no budget left, LIMITED_KEY no requests.
"""

import sys

import openai
from openai import OpenAI

BASE_URL, KEY, SPENT_KEY, LIMITED_KEY = sys.argv[1:]
TEXT = "Hello from the fake provider, Zürich!"
HELLO = [{"role": "user", "content": "Say hello."}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


def client(key: str = KEY, **more) -> OpenAI:
    return OpenAI(base_url=BASE_URL + "/v1", api_key=key, max_retries=0, timeout=20, **more)


def chat():
    answer = client().chat.completions.create(model="openai/gpt-4o", messages=HELLO)
    assert answer.choices[0].message.content == TEXT, answer
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (1000, 100), answer


def streamed_chat():
    chunks = list(client().chat.completions.create(model="openai/gpt-4o", messages=HELLO, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT, chunks
    assert all(chunk.usage is None for chunk in chunks), "usage that was not asked for"


def streamed_chat_with_usage():
    options = {"include_usage": True}
    answer = client().chat.completions.create(
        model="openai/gpt-4o", messages=HELLO, stream=True, stream_options=options
    )
    chunks = list(answer)
    assert chunks[-1].usage.total_tokens == 1100 and chunks[-1].choices == [], chunks[-1]


def tools():
    answer = client().chat.completions.create(model="openai/gpt-4o-mini", messages=HELLO, tools=TOOLS)
    (call,) = answer.choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", '{"city":"Zürich"}'), call
    assert answer.choices[0].finish_reason == "tool_calls"
    answered = HELLO + [
        answer.choices[0].message.to_dict(),
        {"role": "tool", "tool_call_id": call.id, "content": "rain"},
    ]
    client().chat.completions.create(model="openai/gpt-4o", messages=answered, tools=TOOLS)


def streamed_tools():
    arguments, name = "", None
    answer = client().chat.completions.create(
        model="openai/gpt-4o-mini", messages=HELLO, tools=TOOLS, stream=True
    )
    for chunk in answer:
        for call in chunk.choices[0].delta.tool_calls or []:
            name = call.function.name or name
            arguments += call.function.arguments or ""
    assert (name, arguments) == ("weather", '{"city":"Zürich"}'), (name, arguments)


def embeddings():
    answer = client().embeddings.create(model="openai/text-embedding-3-small", input=["hello"], encoding_format="float")
    assert answer.data[0].embedding == [0.25, -0.5, 1.0], answer


def images():
    answer = client().images.generate(model="openai/gpt-image-1.5", prompt="a tower", size="1024x1024")
    assert answer.data[0].b64_json == "QUJD" and answer.usage.output_tokens == 100, answer


def speech():
    answer = client().audio.speech.create(model="openai/tts-1", voice="alloy", input="hello")
    assert answer.read() == b"\xff\xfb not text", answer


def transcriptions():
    answer = client().audio.transcriptions.create(model="openai/whisper-1", file=("a.mp3", b"ID3" * 1000))
    assert (answer.text, answer.usage.seconds) == (TEXT, 9), answer


def completions():
    answer = client().completions.create(model="openai/gpt-4o", prompt="hello")
    assert answer.choices[0].text == TEXT, answer


def responses():
    answer = client().responses.create(model="openai/gpt-4o", input="Say hello.")
    assert answer.output_text == TEXT and answer.usage.output_tokens == 100, answer


def streamed_responses():
    events = list(client().responses.create(model="openai/gpt-4o", input="Say hello.", stream=True))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert events[-1].type == "response.completed" and events[-1].response.usage.input_tokens == 1000, events[-1]


def models():
    ids = [model.id for model in client().models.list()]
    assert "openai/gpt-4o" in ids, ids
    assert client().models.retrieve("openai/gpt-4o").id == "openai/gpt-4o"


def raises(kind, status, code, call):
    try:
        call()
    except kind as error:
        assert type(error) is kind, type(error)
        assert (error.status_code, error.type, error.code) == (status, code, code), error
        return error
    raise AssertionError(f"no {kind.__name__}")


def budget_exceeded():
    ask = client(SPENT_KEY).chat.completions.create
    error = raises(
        openai.APIStatusError, 402, "budget_exceeded", lambda: ask(model="openai/gpt-4o", messages=HELLO)
    )
    assert "budget" in error.message.lower() and "exceeded" in error.message.lower(), error.message
    assert 0 < int(error.response.headers["retry-after"]) <= 3600
    assert error.request_id


def rate_limited():
    ask = client(LIMITED_KEY).chat.completions.create
    error = raises(
        openai.RateLimitError, 429, "request_limited", lambda: ask(model="openai/gpt-4o", messages=HELLO, stream=True)
    )
    assert "limit" in error.message and 0 < int(error.response.headers["retry-after"]) <= 3600


def unknown_key():
    ask = client("sk-bf-nobody").chat.completions.create
    raises(
        openai.AuthenticationError, 401, "virtual_key_not_found", lambda: ask(model="openai/gpt-4o", messages=HELLO)
    )


def unknown_provider():
    ask = client().chat.completions.create
    error = raises(
        openai.BadRequestError, 400, "unknown_provider", lambda: ask(model="nobody/gpt-4o", messages=HELLO)
    )
    assert error.param == "model" and "openai" in error.message


for test in [
    chat,
    streamed_chat,
    streamed_chat_with_usage,
    tools,
    streamed_tools,
    embeddings,
    images,
    speech,
    transcriptions,
    completions,
    responses,
    streamed_responses,
    models,
    budget_exceeded,
    rate_limited,
    unknown_key,
    unknown_provider,
]:
    test()
    print("ok", test.__name__)
