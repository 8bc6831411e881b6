use proptest::prelude::*;

use super::*;
use crate::governance::model_name;
use crate::provider::Rewrite;
use bytes::Bytes;

const CHAT: RequestKind = RequestKind::ChatCompletion;
const TEXT: RequestKind = RequestKind::TextCompletion;
const RESPONSES: RequestKind = RequestKind::Responses;
const EMBEDDING: RequestKind = RequestKind::Embedding;

fn read_call(kind: RequestKind, body: &str) -> Call {
    super::read(kind, body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error:?}"))
}

#[test]
fn the_model_is_decoded_and_found() {
    let check = |body: &str, model: &str| {
        let call = read_call(CHAT, body);
        assert_eq!(call.model, model, "{body}");
        assert_eq!(serde_json::from_str::<String>(&body[call.seams.model_at[0].clone()]).unwrap(), model, "{body}");
    };
    check(r#"{"model":"gpt"}"#, "gpt");
    check(r#" { "messages" : [ ] , "model" : "gpt" } "#, "gpt");
    check(r#"{"model":"a\/b\u00e9\"\\"}"#, "a/bé\"\\");
    check(r#"{"m\u006fdel":"gpt","user":"é"}"#, "gpt");
    check(r#"{"metadata":{"model":"no"},"model":"yes"}"#, "yes");
}

#[test]
fn what_is_asked_for() {
    let check = |kind, members: &str, expected: (bool, Option<u64>, u64)| {
        let call = read_call(kind, &format!(r#"{{"model":"m"{members}}}"#));
        assert_eq!((call.stream, call.output_cap, call.choices), expected, "{members}");
    };
    check(CHAT, "", (false, None, 1));
    check(CHAT, r#","stream":true,"max_tokens":5"#, (true, Some(5), 1));
    check(CHAT, r#","max_tokens":5,"max_completion_tokens":7,"n":3"#, (false, Some(7), 3));
    check(CHAT, r#","max_tokens":12.0,"max_completion_tokens":null,"stream":null,"n":null"#, (false, Some(12), 1));
    check(CHAT, r#","max_output_tokens":5"#, (false, None, 1));
    check(RESPONSES, r#","max_output_tokens":5,"stream":false,"n":3"#, (false, Some(5), 1));
    check(EMBEDDING, r#","input":["a","b"]"#, (false, None, 1));
    check(TEXT, "", (false, Some(16), 1));
    check(TEXT, r#","prompt":"a","max_tokens":3"#, (false, Some(3), 1));
    check(TEXT, r#","prompt":["a","b"],"n":2"#, (false, Some(16), 4));
    check(TEXT, r#","prompt":["a","b"],"n":2,"best_of":5"#, (false, Some(16), 10));
    check(TEXT, r#","prompt":[1,2,3]"#, (false, Some(16), 1));
    check(TEXT, r#","prompt":[[1,2],[3],[4]]"#, (false, Some(16), 3));
    check(TEXT, r#","prompt":[]"#, (false, Some(16), 1));
    assert_eq!(read_call(CHAT, r#"{"model":"m","service_tier":"flex"}"#).tier, ServiceTier::Flex);
    assert!(read_call(CHAT, r#"{"model":"m","stream_options":{"include_usage":true}}"#).include_usage);
    assert!(!read_call(CHAT, r#"{"model":"m","stream_options":{"include_usage":null}}"#).include_usage);
}

#[test]
fn state_is_noticed() {
    let check = |kind, member: &str, expected| {
        let call = read_call(kind, &format!(r#"{{"model":"m",{member}}}"#));
        assert_eq!(call.refers_to_state, expected, "{member}");
        assert_eq!(call.input_bound().is_none(), expected, "{member}");
    };
    check(RESPONSES, r#""previous_response_id":"resp_1""#, true);
    check(RESPONSES, r#""conversation":{"id":"c"}"#, true);
    check(RESPONSES, r#""prompt":{"id":"pmpt"}"#, true);
    check(RESPONSES, r#""previous_response_id":null,"conversation":null,"prompt":null,"background":false"#, false);
    check(CHAT, r#""previous_response_id":"resp_1","background":true"#, false);
    check(TEXT, r#""prompt":"hello""#, false);
}

#[test]
fn what_is_not_in_the_body_has_no_bound() {
    let check = |kind, member: &str, bounded| {
        let call = read_call(kind, &format!(r#"{{"model":"m",{member}}}"#));
        assert_eq!(call.input_bound().is_some(), bounded, "{member}");
    };
    check(RESPONSES, r#""tools":[{"type":"function","name":"f"},{"type":"custom"}]"#, true);
    check(RESPONSES, r#""tools":[{"type":"web_search"}]"#, false);
    check(RESPONSES, r#""tools":[{"type":"mcp","server_url":"https://x"}]"#, false);
    check(RESPONSES, r#""tools":[{"type":"function","parameters":{"type":"object"}}]"#, true);
    check(RESPONSES, r#""input":[{"type":"item_reference","id":"x"}]"#, false);
    check(RESPONSES, r#""input":[{"role":"user","content":[{"type":"input_file","file_id":"f"}]}]"#, false);
    check(CHAT, r#""messages":[{"content":[{"type":"file","file":{"file_data":"data:x"}}]}]"#, false);
    check(CHAT, r#""web_search_options":{}"#, false);
    check(CHAT, r#""web_search_options":null"#, true);
}

#[test]
fn the_input_is_weighed() {
    // text bytes, messages, numbers, blobs
    let check = |kind, members: &str, expected: (u64, u64, u64, u64)| {
        let weight = read_call(kind, &format!(r#"{{"model":"m",{members}}}"#)).weight;
        assert_eq!((weight.text_bytes, weight.messages, weight.numbers, weight.blobs), expected, "{members}");
    };
    check(CHAT, r#""messages":[{"role":"user","content":"hello"}]"#, (5, 1, 0, 0));
    check(CHAT, r#""messages":[{"role":"user","content":"h\u00e9\n"},{"content":"é"}]"#, (6, 2, 0, 0));
    check(CHAT, r#""messages":[{"content":[{"type":"text","text":"abc"},{"type":"text","text":"d"}]}]"#, (4, 1, 0, 0));
    check(
        CHAT,
        r#""messages":[{"content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]"#,
        (0, 1, 0, 1),
    );
    check(
        CHAT,
        r#""messages":[{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]"#,
        (0, 1, 0, 1),
    );
    check(CHAT, r#""messages":[{"content":[{"type":"input_audio","input_audio":{"data":"AAAA"}}]}]"#, (0, 1, 0, 1));
    check(CHAT, r#""messages":[{"x":"data:image/png;base64,AAAA"}]"#, (0, 1, 0, 1));
    // A text is a text, whatever it begins with.
    check(CHAT, r#""messages":[{"content":"data: x"}]"#, (7, 1, 0, 0));
    check(
        CHAT,
        r#""messages":[{"role":"a role that is much longer than any role there is","content":""}]"#,
        (49, 1, 0, 0),
    );
    check(CHAT, r#""tools":[{"type":"function"}],"response_format":null,"user":"someone""#, (4 + 4 + 8 + 4, 0, 0, 0));
    check(RESPONSES, r#""instructions":"abc","input":"de""#, (5, 1, 0, 0));
    check(
        RESPONSES,
        r#""input":[{"role":"user","content":[{"type":"input_image","image_url":"https://x"}]}]"#,
        (0, 1, 0, 1),
    );
    check(EMBEDDING, r#""input":"hello""#, (5, 0, 0, 0));
    check(EMBEDDING, r#""input":["hello","you"]"#, (8, 0, 0, 0));
    check(EMBEDDING, r#""input":[[1,2,3],[4]]"#, (0, 0, 4, 0));
    check(TEXT, r#""prompt":[1,2,3]"#, (0, 0, 3, 0));
}

#[test]
fn estimates_follow_the_weight() {
    let call = read_call(CHAT, r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#);
    assert_eq!(call.input_estimate(), 2 + 4 + 3);
    let call = read_call(EMBEDDING, r#"{"model":"m","input":[[1,2,3],[4]]}"#);
    assert_eq!(call.input_estimate(), 4 + 3);
    let image = r#"{"model":"m","messages":[{"content":[{"image_url":{"url":"data:x"}}]}]}"#;
    assert_eq!(read_call(CHAT, image).input_estimate(), 4 + 3 + 1_600);
    assert!(read_call(CHAT, image).input_bound().unwrap() > 50_000);
}

#[test]
fn what_cannot_be_understood_is_named() {
    let check = |kind, body: &str, field: Option<&str>| {
        let error = super::read(kind, body.as_bytes()).expect_err(body);
        assert_eq!(error.field.as_deref(), field, "{body}: {error}");
    };
    let chat = |body: &str, field: &str| check(CHAT, body, Some(field));
    for body in ["", " ", "nonsense", "[]", "12", "null", "\"model\"", "{", r#"{"model":"m""#, r#"{"model":"m",}"#] {
        check(CHAT, body, None);
    }
    check(CHAT, r#"{"model":"m"} x"#, None);
    check(CHAT, r#"{"model":"m"}{}"#, None);
    check(RequestKind::ListModels, "{}", None);
    chat("{}", "model");
    chat(r#"{"model":null}"#, "model");
    chat(r#"{"model":7}"#, "model");
    chat(r#"{"model":""}"#, "model");
    chat(r#"{"model":"\ud800"}"#, "model");
    chat(&format!(r#"{{"model":"{}"}}"#, "m".repeat(3_000)), "model");
    chat(r#"{"model":"m","stream":"yes"}"#, "stream");
    chat(r#"{"model":"m","stream":1}"#, "stream");
    for field in ["max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of"] {
        for wrong in ["-1", "0", "1.5", "\"5\"", "true", "[]", "{}", "1e30", "-0.0"] {
            chat(&format!(r#"{{"model":"m","{field}":{wrong}}}"#), field);
        }
        chat(&format!(r#"{{"model":"m","{field}":1,"{field}":1}}"#), field);
    }
    chat(r#"{"model":"m","stream_options":7}"#, "stream_options");
    chat(r#"{"model":"m","stream_options":[]}"#, "stream_options");
    chat(r#"{"model":"m","stream_options":{"include_usage":1}}"#, "stream_options");
    chat(r#"{"model":"m","stream_options":{"include_usage":true,"include_usag\u0065":false}}"#, "stream_options");
    chat(r#"{"model":"m","stream_options":null,"stream_options":null}"#, "stream_options");
    chat(r#"{"model":"m","model":"m"}"#, "model");
    chat(r#"{"model":"m","mod\u0065l":"n"}"#, "model");
    chat(r#"{"stream":true,"model":"m","\u0073tream":false}"#, "stream");
    chat(r#"{"model":"m","service_tier":1}"#, "service_tier");
    check(RESPONSES, r#"{"model":"m","background":true}"#, Some("background"));
    check(RESPONSES, r#"{"model":"m","background":"x"}"#, Some("background"));
    assert!(super::read(CHAT, b"{\"model\":\"m\",\"user\":\"\xff\"}").is_err());
}

#[test]
fn deep_nesting_is_an_error() {
    for member in
        ["messages", "tools", "metadata", "previous_response_id", "stream", "model", "stream_options", "reasoning"]
    {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let (open, close) = (open.repeat(200_000), close.repeat(200_000));
            let body = format!(r#"{{"model":"m","{member}":{open}1{close}}}"#);
            assert!(super::read(RESPONSES, body.as_bytes()).is_err(), "{member}");
        }
    }
}

#[test]
fn rewriting_changes_nothing_else() {
    let check = |kind, body: &str, model: &str, ask: bool, expected: &str| {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        let rewritten = read_call(kind, body).rewrite(&bytes, Rewrite { model, ask_usage: ask, output_cap: None });
        assert_eq!(std::str::from_utf8(&rewritten).unwrap(), expected, "{body}");
        assert_eq!(body == expected, rewritten.as_ptr() == bytes.as_ptr(), "{body}: copied only if changed");
    };
    let streamed = r#" { "stream":true, "model" : "m" } "#;
    let asked = r#" {"stream_options":{"include_usage":true}, "stream":true, "model" : "m" } "#;
    check(CHAT, streamed, "m", false, streamed);
    check(CHAT, streamed, "x\"y", false, r#" { "stream":true, "model" : "x\"y" } "#);
    check(CHAT, streamed, "m", true, asked);
    check(TEXT, streamed, "m", true, asked);
    check(RESPONSES, streamed, "m", true, streamed);
    check(EMBEDDING, streamed, "m", true, streamed);
    check(CHAT, r#"{"model":"m"}"#, "m", true, r#"{"model":"m"}"#);
    check(CHAT, r#"{"mod\u0065l":"m","x":1.0}"#, "n", true, r#"{"mod\u0065l":"n","x":1.0}"#);
    check(CHAT, r#"{"model":"\u006d"}"#, "m", false, r#"{"model":"\u006d"}"#);
    let options = |before: &str, after: &str| {
        for order in
            [r#"{"stream_options":@,"stream":true,"model":"%"}"#, r#"{"model":"%","stream":true,"stream_options":@}"#]
        {
            let body = order.replace('%', "m").replace('@', before);
            check(CHAT, &body, "m", true, &order.replace('%', "m").replace('@', after));
            check(CHAT, &body, "longer", true, &order.replace('%', "longer").replace('@', after));
        }
    };
    options("null", r#"{"include_usage":true}"#);
    options("{ }", r#"{"include_usage":true }"#);
    options(r#"{"a":1}"#, r#"{"include_usage":true,"a":1}"#);
    options(r#"{"a":1,"include_usage": false , "b":2}"#, r#"{"a":1,"include_usage": true , "b":2}"#);
    options(r#"{"include_usage":null}"#, r#"{"include_usage":true}"#);
    options(r#"{"include_usage":true,"a":1}"#, r#"{"include_usage":true,"a":1}"#);
}

#[test]
fn thinking_is_told_in_tokens_or_not_at_all() {
    let check = |member: &str, tokens| {
        assert_eq!(read_call(CHAT, &format!(r#"{{"model":"m",{member}}}"#)).thinking, tokens, "{member}");
    };
    check(r#""thinking":{"type":"enabled","budget_tokens":1024}"#, 1_024);
    check(r#""reasoning":{"max_tokens":2000,"exclude":true}"#, 2_000);
    check(r#""reasoning":{"max_tokens":20},"thinking":{"budget_tokens":30.0}"#, 30);
    check(r#""reasoning":{"effort":"high"}"#, 0);
    check(r#""reasoning":null,"thinking":{"budget_tokens":"many"}"#, 0);
    check(r#""reasoning":[1],"thinking":7"#, 0);
}

#[test]
fn a_cap_is_lowered_in_place() {
    let check = |kind, body: &str, name, tokens, expected: &str| {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        let wanted = Rewrite { model: "m", ask_usage: false, output_cap: Some((name, tokens)) };
        let lowered = read_call(kind, body).rewrite(&bytes, wanted);
        assert_eq!(std::str::from_utf8(&lowered).unwrap(), expected, "{body}");
        assert_eq!(read_call(kind, expected).output_cap, Some(tokens), "{body}");
        // And once more changes nothing, not even where the body is.
        assert_eq!(read_call(kind, expected).rewrite(&lowered, wanted).as_ptr(), lowered.as_ptr(), "{body}");
    };
    let (old, new, responses) = ("max_tokens", "max_completion_tokens", "max_output_tokens");
    check(CHAT, r#"{"model":"m"}"#, new, 9, r#"{"max_completion_tokens":9,"model":"m"}"#);
    check(CHAT, r#" { "model":"m" }"#, old, 9, r#" {"max_tokens":9, "model":"m" }"#);
    check(CHAT, r#"{"max_tokens" : 100, "model":"m"}"#, new, 9, r#"{"max_tokens" : 9, "model":"m"}"#);
    check(CHAT, r#"{"max_tokens":null,"model":"m"}"#, old, 9, r#"{"max_tokens":9,"model":"m"}"#);
    check(
        CHAT,
        r#"{"max_tokens":null,"model":"m"}"#,
        new,
        9,
        r#"{"max_completion_tokens":9,"max_tokens":null,"model":"m"}"#,
    );
    check(
        CHAT,
        r#"{"max_completion_tokens":1e2,"model":"m","max_tokens":50}"#,
        new,
        9,
        r#"{"max_completion_tokens":9,"model":"m","max_tokens":9}"#,
    );
    check(
        CHAT,
        r#"{"max_completion_tokens":100,"model":"m","max_tokens":5}"#,
        new,
        9,
        r#"{"max_completion_tokens":9,"model":"m","max_tokens":5}"#,
    );
    check(TEXT, r#"{"model":"m","prompt":"x"}"#, old, 3, r#"{"max_tokens":3,"model":"m","prompt":"x"}"#);
    check(
        RESPONSES,
        r#"{"model":"m","max_tokens":5,"max_output_tokens":100}"#,
        responses,
        9,
        r#"{"model":"m","max_tokens":5,"max_output_tokens":9}"#,
    );
    // Beside other edits.
    let body = Bytes::from_static(br#"{"stream":true,"max_tokens":100,"model":"m"}"#);
    let wanted = Rewrite { model: "other", ask_usage: true, output_cap: Some((new, 9)) };
    let lowered = read_call(CHAT, r#"{"stream":true,"max_tokens":100,"model":"m"}"#).rewrite(&body, wanted);
    let expected = r#"{"stream_options":{"include_usage":true},"stream":true,"max_tokens":9,"model":"other"}"#;
    assert_eq!(std::str::from_utf8(&lowered).unwrap(), expected);
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        ".{0,12}".prop_map(Into::into),
        "data:.{0,4}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let key = prop_oneof!["[a-z]{1,5}", Just("content".to_owned()), Just("image_url".to_owned())];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::btree_map(key, inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

#[test]
fn what_other_parsers_read_differently_is_refused() {
    let refused = |body: &str| assert!(super::read(CHAT, body.as_bytes()).is_err(), "{body}");
    refused(r#"{"model":"m","Model":"other","messages":[]}"#);
    refused(r#"{"model":"m","MAX_TOKENS":1,"messages":[]}"#);
    refused(r#"{"model":"m","ſtream":true,"messages":[]}"#);
    refused(r#"{"model":"m ","messages":[]}"#);
    refused(r#"{"model":"m\r\nx: y","messages":[]}"#);
    refused(r#"{"model":"m","n":18446744073709551615,"messages":[]}"#);
}

fn any_model() -> impl Strategy<Value = String> {
    r"[^\s\pC]{1,20}".prop_filter("no model has such a name", |name| model_name::fault(name).is_none())
}

proptest! {
    #[test]
    fn any_bytes_are_survived(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        for kind in RequestKind::ALL {
            let _ = super::read(kind, &body);
        }
    }

    #[test]
    fn a_rewritten_call_is_the_same_with_another_name(
        messages in any_json(), tools in any_json(), rest in any_json(), model in any_model(), upstream in any_model(),
        options in prop_oneof![Just(None), Just(Some("null")), Just(Some("{}")), Just(Some(r#"{"x":[1]}"#)),
            Just(Some(r#"{"include_usage":false}"#)), Just(Some(r#"{"include_usage":true}"#))],
        pretty: bool, ask: bool,
    ) {
        let mut value = serde_json::json!({"messages": messages, "model": model, "stream": true, "tools": tools, "zz": rest});
        if let Some(options) = options {
            value["stream_options"] = serde_json::from_str(options).unwrap();
        }
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let body = Bytes::from(text);
        let call = super::read(CHAT, &body).unwrap();
        let rewritten = call.rewrite(&body, Rewrite { model: &upstream, ask_usage: ask, output_cap: None });
        let again = super::read(CHAT, &rewritten).unwrap();
        prop_assert_eq!(&again.model, &upstream);
        prop_assert_eq!(again.include_usage, call.include_usage || ask);
        prop_assert_eq!(again.weight, call.weight);
        prop_assert!(again.input_bound().is_none_or(|bound| bound >= again.weight.text_bytes));

        // Beyond the model and what asks for usage, the documents are equal...
        value["model"] = upstream.clone().into();
        if ask {
            let options = &mut value["stream_options"];
            if options.is_null() {
                *options = serde_json::json!({});
            }
            options["include_usage"] = true.into();
        }
        prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&rewritten).unwrap(), value);
        // ...and without asking, the bytes around the model.
        if !ask {
            prop_assert_eq!(&rewritten[..again.seams.model_at[0].start], &body[..call.seams.model_at[0].start]);
            prop_assert_eq!(&rewritten[again.seams.model_at[0].end..], &body[call.seams.model_at[0].end..]);
        }
    }
}
