"""Speaks through Tollgate with the official google-genai SDK, changed in nothing but base URL and key.

usage: genai_sdk.py BASE_URL KEY SPENT_KEY

The provider behind it is the fake one of tests/it; what it says is known here. It calls a tool when it is given
tools. SPENT_KEY has no budget left. KEY generates four times.
"""

import sys

from google import genai
from google.genai import errors, types

BASE_URL, KEY, SPENT_KEY = sys.argv[1:]
TEXT = "Hello from Gemini é!"
MODEL = "gemini-2.5-pro"


# A client closes when nobody has it any more, in the middle of a call if need be.
CLIENTS = []


def client(key: str = KEY, **more) -> genai.Client:
    options = types.HttpOptions(base_url=BASE_URL + "/genai", **more)
    CLIENTS.append(genai.Client(api_key=key, http_options=options))
    return CLIENTS[-1]


def generate():
    answer = client().models.generate_content(model=MODEL, contents="Say hello.")
    assert answer.text == TEXT, answer
    assert (answer.usage_metadata.prompt_token_count, answer.usage_metadata.thoughts_token_count) == (1000, 40), answer


def generate_beta():
    config = types.GenerateContentConfig(max_output_tokens=200, system_instruction="Be brief.")
    answer = client(api_version="v1beta").models.generate_content(model=MODEL, contents="Hello.", config=config)
    assert answer.text == TEXT, answer


def stream():
    parts = list(client().models.generate_content_stream(model=MODEL, contents="Say hello."))
    assert "".join(part.text or "" for part in parts) == TEXT, parts
    assert parts[-1].usage_metadata.candidates_token_count == 60, parts[-1]


def tools():
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    weather = types.FunctionDeclaration(name="weather", parameters_json_schema=parameters)
    config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[weather])])
    answer = client().models.generate_content(model=MODEL, contents="The weather?", config=config)
    (call,) = answer.function_calls
    assert (call.name, call.args) == ("weather", {"city": "Zürich"}), call


def count_tokens():
    assert client().models.count_tokens(model=MODEL, contents="Hello.").total_tokens == 31


def embed():
    answer = client().models.embed_content(model="gemini-embedding-001", contents=["hello"])
    assert answer.embeddings[0].values == [0.25, -0.5], answer


def models():
    names = [model.name for model in client().models.list()]
    assert "models/gemini/" + MODEL in names, names


def budget_exceeded():
    try:
        client(SPENT_KEY).models.generate_content(model=MODEL, contents="Say hello.")
    except errors.ClientError as error:
        assert (error.code, error.status) == (402, "FAILED_PRECONDITION"), error
        assert "budget exceeded" in error.message, error.message
    else:
        raise AssertionError("no error")


for test in [generate, generate_beta, stream, tools, count_tokens, embed, models, budget_exceeded]:
    test()
    print("ok", test.__name__)
