"""Speaks through Tollgate with boto3, changed in nothing but the endpoint and the access key id.

usage: bedrock_sdk.py BASE_URL KEY SPENT_KEY

The provider behind it is the fake one of tests/it; what it says is known here. SPENT_KEY has no budget left.
KEY converses twice and invokes twice.
"""

import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

BASE_URL, KEY, SPENT_KEY = sys.argv[1:]
TEXT = "Hello from Bedrock é!"
MODEL = "us.anthropic.claude-sonnet-4-6"
HELLO = [{"role": "user", "content": [{"text": "Say hello."}]}]
INVOKED = json.dumps(
    {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 200,
        "messages": [{"role": "user", "content": "Say hello."}],
    }
)


def client(key: str = KEY):
    return boto3.client(
        "bedrock-runtime",
        endpoint_url=BASE_URL + "/bedrock",
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key="whatever",
        config=Config(retries={"total_max_attempts": 1}),
    )


def converse():
    answer = client().converse(modelId=MODEL, messages=HELLO, inferenceConfig={"maxTokens": 200})
    assert answer["output"]["message"]["content"][0]["text"] == TEXT, answer
    assert (answer["usage"]["inputTokens"], answer["usage"]["outputTokens"]) == (1000, 100), answer


def converse_stream():
    events = list(client().converse_stream(modelId=MODEL, messages=HELLO)["stream"])
    deltas = [event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event]
    assert "".join(deltas) == TEXT, events
    assert events[-1]["metadata"]["usage"]["outputTokens"] == 100, events[-1]


def invoke():
    answer = json.loads(client().invoke_model(modelId=MODEL, body=INVOKED)["body"].read())
    assert answer["content"][0]["text"] == TEXT, answer


def invoke_stream():
    events = client().invoke_model_with_response_stream(modelId=MODEL, body=INVOKED)["body"]
    parts = [json.loads(event["chunk"]["bytes"]) for event in events]
    assert parts[-1]["type"] == "message_stop", parts


def count_tokens():
    counted = client().count_tokens(modelId=MODEL, input={"converse": {"messages": HELLO}})
    assert counted["inputTokens"] == 31, counted


def refused(key, status, code):
    try:
        client(key).converse(modelId=MODEL, messages=HELLO)
    except ClientError as error:
        seen = (error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"])
        assert seen == (status, code), error.response
        return error.response["Error"]["Message"]
    raise AssertionError("no error")


def budget_exceeded():
    assert "budget exceeded" in refused(SPENT_KEY, 402, "ServiceQuotaExceededException")


def unknown_key():
    assert "not found" in refused("sk-bf-nobody", 403, "AccessDeniedException")


for test in [converse, converse_stream, invoke, invoke_stream, count_tokens, budget_exceeded, unknown_key]:
    test()
    print("ok", test.__name__)
