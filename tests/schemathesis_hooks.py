"""What tests/schemathesis changes in generated requests, so that they reach what they are meant to test.

Made-up names refer to nothing, and a request that is refused for that is not looked at any further. So three of four
requests are told what exists. A part of a request that is wrong on purpose stays as it is.
"""

import itertools
import os

import schemathesis
from schemathesis.core.parameters import ParameterLocation

# What the configuration of tests/schemathesis declares, and the documented examples refer to.
CUSTOMER = "3d9f7a52-8b1e-4f0a-9c7d-5a2b6e4c1d20"
TEAM = "6a0d8f3c-1f0b-4c55-9f5d-2f8f1f6f2a10"
KEY = "b1f5c0de-0000-4000-8000-000000000001"
PROVIDERS = ["openai", "local-llm"]
OWN = {CUSTOMER, TEAM, KEY, *PROVIDERS}
# There to be rotated as often as somebody likes, and to be deleted one after the other.
SPARE_KEY = "b1f5c0de-0000-4000-8000-000000000002"
# What a process left behind that was killed in a call.
UNRESOLVED_ENTRY = os.environ["TOLLGATE_UNRESOLVED_ENTRY"]
SPARE_PROVIDER_KEYS = [f"spare-{n}" for n in range(100)]

IDS = {
    "team_id": TEAM,
    "customer_id": CUSTOMER,
    "virtual_key_id": KEY,
    "virtual_key": KEY,
    "provider": PROVIDERS[0],
    "provider_id": PROVIDERS[0],
    "provider_key_id": "main",
    "key_id": "main",
}
EXPRESSIONS = [
    'model == "gpt-4o"',
    'headers["X-Tier"] in ["free", "trial"] && !model.startsWith("o")',
    'budget_used > 80 || team_name == "research"',
]

count = itertools.count(1)
spares = iter(SPARE_PROVIDER_KEYS)
names_used = set()


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None:
        return
    n, linked = next(count), case.meta.phase.name.value == "stateful"
    if not case.meta.is_negative_at(ParameterLocation.HEADER):
        change_headers(case, n, linked)
    if not case.meta.is_negative_at(ParameterLocation.PATH):
        spare_own_objects(case)
        if case.path == "/api/ledger/{id}/correct" and n % 4:
            case.path_parameters["id"] = UNRESOLVED_ENTRY
    if not case.meta.is_negative_at(ParameterLocation.BODY) and isinstance(case.body, dict):
        if case.path == "/api/config":
            keep_it_closed(case.body)
        elif n % 4:
            change_body(case, n)


def change_headers(case, n, linked):
    # A made-up version would stop nearly every change before it begins. Links carry a true one.
    if "If-Match" in case.headers and not linked and n % 4:
        case.headers["If-Match"] = "*"
    # One key for all bodies would stop all of them but the first, and a repeated answer tells of an object that may
    # be gone.
    if "Idempotency-Key" in case.headers and (linked or n % 4):
        case.headers["Idempotency-Key"] = f"run-{n}"


def spare_own_objects(case):
    """Without them nothing else could be reached, and with another value the run's own key would open nothing."""
    if case.path == "/api/governance/providers/{provider_name}":
        return  # removes limits, not providers
    parameters = case.path_parameters
    if case.path.endswith("/rotate"):
        if parameters.get("vk_id") == KEY:
            parameters["vk_id"] = SPARE_KEY
    elif case.method.upper() == "DELETE" and "key_id" in parameters:
        if parameters == {"provider": PROVIDERS[0], "key_id": "main"}:
            parameters["key_id"] = next(spares, "gone")
    elif case.method.upper() == "DELETE":
        for name, value in parameters.items():
            if value in OWN:
                parameters[name] = "gone"


def keep_it_closed(body):
    """A path that is open to everybody would be right to answer without the token."""
    client = body.get("client_config")
    if isinstance(client, dict) and client.get("whitelisted_routes"):
        client["whitelisted_routes"] = ["/open"]


def change_body(case, n):
    body, creates = case.body, case.method.upper() == "POST"
    if creates and case.path == "/api/providers":
        # There are few built-in names, and those are soon taken.
        if body.get("custom_provider_config"):
            body["provider"] = f"custom-{n}"
    else:
        tell_what_exists(body)
    if creates and "name" in body:
        if body["name"] in names_used:
            body["name"] = f"run {n}"
        names_used.add(body["name"])


def tell_what_exists(body):
    for name, known in IDS.items():
        if body.get(name):
            body[name] = known
    if body.get("team_id"):
        body.pop("customer_id", None)
    for config, provider in zip(body.get("provider_configs") or [], PROVIDERS):
        tell_what_exists(config)
        config.update(provider=provider, id=None)
        if config.get("key_ids"):
            config["key_ids"] = ["*"]
        if config.get("keys"):
            config["keys"] = []
    if body.get("provider_configs"):
        del body["provider_configs"][len(PROVIDERS) :]
    if body.get("budgets"):
        body.pop("budget", None)
    change_rule(body)


def change_rule(body):
    for i, target in enumerate(body.get("targets") or []):
        tell_what_exists(target)
        target.update(model=f"model-{i}", weight=0 if i else 1)
    if body.get("scope_id"):
        scopes = {"team": TEAM, "customer": CUSTOMER, "virtual_key": KEY}
        body["scope_id"] = scopes.get(body.get("scope"), body["scope_id"])
    if body.get("fallbacks"):
        body["fallbacks"] = ["local-llm/some-model", "openai"]
    if body.get("cel_expression"):
        body["cel_expression"] = EXPRESSIONS[len(body["cel_expression"]) % len(EXPRESSIONS)]
