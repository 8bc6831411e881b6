use super::*;
use crate::governance::time::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue};

const NOW: i64 = 1_790_000_000_000;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair =
        |(name, value): &(&str, &str)| (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
    pairs.iter().map(pair).collect()
}

fn told(pairs: &[(&str, &str)], body: &str) -> Told {
    Told::read(&headers(pairs), body.as_bytes(), Timestamp::from_millis(NOW))
}

#[test]
fn statuses_and_codes_mean_what_the_table_says() {
    let check = |base: &str, status: u16, body: &str, expected: Verdict| {
        assert_eq!(verdict(base, status, &told(&[], body)), expected, "{base} {status} {body}");
    };
    let plain = |status: u16, expected: Verdict| {
        check("openai", status, "", expected);
        check("anthropic", status, "<html>never assume JSON</html>", expected);
        check("gemini", status, r#"{"error":"#, expected);
    };
    for status in [400, 404, 405, 413, 415, 418, 422, 301, 501, 505] {
        plain(status, MISTAKE);
    }
    for status in [500, 502, 503, 504, 520, 524, 527, 529, 599] {
        plain(status, SICK);
    }
    plain(401, REJECTED);
    plain(402, EMPTY);
    plain(403, NOT_THIS_MODEL);
    plain(408, Verdict { sick: true, ..CONFLICT });
    plain(409, CONFLICT);
    plain(424, CONFLICT);
    plain(429, LIMIT);
    plain(498, BUSY);
    plain(499, GIVEN_UP);
    // The body refines.
    check(
        "openai",
        429,
        r#"{"error":{"message":"m","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
        EMPTY,
    );
    check("openai", 429, r#"{"error":{"type":"tokens","code":"rate_limit_exceeded"}}"#, LIMIT);
    check("openai", 400, r#"{"error":{"code":"context_length_exceeded","type":"invalid_request_error"}}"#, MISTAKE);
    check("openai", 404, r#"{"error":{"code":"model_not_found"}}"#, MISTAKE);
    check("openai", 403, r#"{"error":{"code":"model_not_found"}}"#, NOT_THIS_MODEL);
    check("anthropic", 400, r#"{"type":"error","error":{"type":"billing_error","message":"m"}}"#, EMPTY);
    check(
        "anthropic",
        400,
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API."}}"#,
        EMPTY,
    );
    check(
        "anthropic",
        429,
        r#"{"error":{"type":"rate_limit_error","details":{"error_code":"enforced_spend_limit_reached"}}}"#,
        EMPTY,
    );
    check("anthropic", 529, r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#, SICK);
    check(
        "gemini",
        400,
        r#"[{"error":{"code":400,"status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}]"#,
        REJECTED,
    );
    check("gemini", 400, r#"{"error":{"code":400,"status":"INVALID_ARGUMENT","message":"bad"}}"#, MISTAKE);
    check("vertex", 429, r#"{"error":{"status":"RESOURCE_EXHAUSTED"}}"#, LIMIT);
    check("bedrock", 400, r#"{"__type":"com.amazon#ServiceQuotaExceededException","message":"m"}"#, LIMIT);
    check("bedrock", 400, r#"{"__type":"ThrottlingException"}"#, LIMIT);
    check("bedrock", 403, r#"{"__type":"UnrecognizedClientException"}"#, REJECTED);
    check("bedrock", 403, r#"{"__type":"AccessDeniedException"}"#, NOT_THIS_MODEL);
    check("bedrock", 429, r#"{"__type":"ModelNotReadyException"}"#, BUSY);
    check("azure", 404, r#"{"error":{"code":"DeploymentNotFound","message":"m"}}"#, NOT_THIS_MODEL);
    check("openai", 404, r#"{"error":{"code":"DeploymentNotFound","message":"m"}}"#, MISTAKE);
    check("elevenlabs", 401, r#"{"detail":{"status":"quota_exceeded","message":"m"}}"#, EMPTY);
    check("mistral", 400, r#"{"object":"error","message":"Too many requests, tokens per minute"}"#, LIMIT);
    check("xai", 400, r#"{"code":"x","error":"Some text"}"#, MISTAKE);
}

#[test]
fn what_stands_in_headers_counts() {
    let check = |base: &str, status: u16, pairs: &[(&str, &str)], expected: Verdict| {
        assert_eq!(verdict(base, status, &told(pairs, "{}")), expected, "{base} {status} {pairs:?}");
    };
    check("bedrock", 400, &[("x-amzn-errortype", "ThrottlingException:http://internal.amazon.com/")], LIMIT);
    check("openrouter", 402, &[("retry-after", "3")], LIMIT);
    check("openrouter", 402, &[], EMPTY);
    check("openai", 402, &[("retry-after", "3")], EMPTY);
    check("openai", 500, &[("x-should-retry", "false")], Verdict { again: Again::Never, ..SICK });
    check("openai", 400, &[("x-should-retry", "true")], Verdict { again: Again::Paced, ..MISTAKE });
    check("openai", 401, &[("x-should-retry", "true")], REJECTED);
    check("openai", 409, &[("x-should-retry", "true")], CONFLICT);
    check("openai", 500, &[("x-should-retry", "perhaps")], SICK);
}

#[test]
fn waits_are_read_in_every_spelling() {
    let check = |pairs: &[(&str, &str)], body: &str, millis: Option<u64>| {
        assert_eq!(told(pairs, body).wait, millis.map(Duration::from_millis), "{pairs:?} {body}");
    };
    let after = |text: &str, millis: Option<u64>| check(&[("retry-after", text)], "", millis);
    after("33", Some(33_000));
    after(" 1.5 ", Some(1_500));
    after("0", Some(0));
    after("-1", None);
    after("1e9", None);
    after("soon", None);
    after("", None);
    // 1,790,000,000 seconds after 1970 it is 13:33:20.
    after("Mon, 21 Sep 2026 14:14:20 GMT", Some(60_000));
    after("Mon, 21 Sep 2026 14:13:20 GMT", Some(0));
    after("Sun, 20 Sep 2026 14:13:20 GMT", Some(0));
    after("2026-09-21T14:13:30Z", Some(10_000));
    after("6m0s", Some(360_000));
    after("99999999999999999999999999999999", Some(9_223_372_036_854_775_807 - NOW as u64));
    after("..", None);
    check(&[("retry-after-ms", "250"), ("retry-after", "9")], "", Some(250));
    check(&[("retry-after-ms", "x"), ("retry-after", "9")], "", Some(9_000));
    // The body, where Google has it, before the limits in the head.
    let google = r#"{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[
        {"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[]},
        {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.5s"}]}}"#;
    check(&[("x-ratelimit-reset-requests", "1s")], google, Some(34_500));
    check(&[], &format!("[{google}]"), Some(34_500));
    // The limit that is used up; of several the last to end; if nobody says what is left, the first.
    let reset = |pairs: &[(&str, &str)], millis: Option<u64>| check(pairs, "", millis);
    let (left, ends) = ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests");
    let (left_tokens, ends_tokens) = ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens");
    reset(&[(left, "0"), (ends, "1.5s"), (left_tokens, "7"), (ends_tokens, "6m0s")], Some(1_500));
    reset(&[(left, "0"), (ends, "20ms"), (left_tokens, "0"), (ends_tokens, "1h2m3.5s")], Some(3_723_500));
    reset(&[(left, "5"), (ends, "20ms")], None);
    reset(&[(left, "-1"), (ends, "0")], None);
    reset(&[(ends, "8"), (ends_tokens, "3")], Some(3_000));
    reset(
        &[("anthropic-ratelimit-tokens-remaining", "0"), ("anthropic-ratelimit-tokens-reset", "2026-09-21T14:13:25Z")],
        Some(5_000),
    );
    reset(&[("x-ratelimit-reset", "1790000004")], Some(4_000));
    reset(&[("x-ratelimit-reset", "1790000004500")], Some(4_500));
    reset(&[("x-ratelimit-reset-requests-day", "1d")], Some(86_400_000));
    // A sentence.
    let says = |message: &str, millis: Option<u64>| {
        check(&[], &serde_json::json!({"error": {"message": message}}).to_string(), millis);
    };
    says("Requests have exceeded the limit. Please retry after 4 seconds.", Some(4_000));
    says("Rate limit reached. Please try again in 41.724s. Visit us.", Some(41_724));
    says("Please try again in 2 minutes.", Some(120_000));
    says("Please try again in 6m0s.", Some(360_000));
    says("Please try again in a while", None);
    says("nothing of the kind", None);
}

#[test]
fn no_body_is_too_odd() {
    let deep = format!("{}1{}", r#"{"error":"#.repeat(100), "}".repeat(100));
    let wide = format!(r#"{{"details":[{}1]}}"#, r#"{"code":"insufficient_quota"},"#.repeat(1_000));
    for body in ["", "null", "[]", "7", "\"text\"", "{\"error\":null}", "{\"code\":{}}", "\u{0}", &deep] {
        assert_eq!(told(&[], body).codes_for_tests(), 0, "{body}");
    }
    assert!(told(&[], &wide).codes_for_tests() <= 16);
    let long = "x".repeat(100_000);
    assert_eq!(
        told(&[], &serde_json::json!({"code": long, "message": format!("{long}rate limit")}).to_string())
            .codes_for_tests(),
        0
    );
}
