//! Pictures, speech and transcripts: each charged in its own units, to the nano.

use crate::fake::answers::{document, stream};
use crate::fake::{Behaviour, Step};
use crate::house::{House, Key, Reply, house, house_with};
use serde_json::{Value, json};

/// Nano-dollars of gpt-image-1.5 for a token of text and of a picture.
const TEXT: u64 = 5_000;
const DRAWN: u64 = 32_000;
/// Of tts-1 for a character, of whisper-1 for a second.
const CHARACTER: u64 = 15_000;
const SECOND: u64 = 100_000;
/// Of gpt-4o-transcribe.
const HEARD: u64 = 2_500;
const WRITTEN: u64 = 10_000;

fn answers(body: Value) -> Behaviour {
    Behaviour::new(move |_| document(&body))
}

/// A good answer that is no JSON.
fn plain(kind: &'static str, body: &'static [u8]) -> Behaviour {
    Behaviour::new(move |_| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
        vec![Step::Send([head.as_bytes(), body].concat().into())]
    })
}

fn form(model: &str, file: usize, more: &[(&str, &str)]) -> Vec<u8> {
    let mut body = b"--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\nContent-Type: audio/mpeg\r\n\r\n".to_vec();
    body.resize(body.len() + file, b'a');
    for (name, value) in [("model", model)].iter().chain(more) {
        let part = format!("\r\n--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}");
        body.extend_from_slice(part.as_bytes());
    }
    body.extend_from_slice(b"\r\n--xyz--\r\n");
    body
}

async fn transcribe(house: &House, key: &Key, path: &str, body: Vec<u8>) -> Reply {
    let request = house.http.post(format!("{}{path}", house.proxy)).bearer_auth(&key.value);
    let request = request.header("content-type", "multipart/form-data; boundary=xyz").body(body);
    Reply::read(request.send().await.unwrap()).await
}

#[test]
fn pictures_are_charged_by_what_the_answer_tells() {
    house(async |house| {
        let key = house.key_with_budget(10.0).await;
        let tokens = json!({"total_tokens": 1_130, "input_tokens": 50, "output_tokens": 1_080,
            "input_tokens_details": {"text_tokens": 50, "image_tokens": 0}});
        let asked =
            json!({"model": "openai/gpt-image-1.5", "prompt": "a tower", "size": "1024x1024", "quality": "medium"});
        let answer = json!({"created": 1, "data": [{"b64_json": "QUJD".repeat(100_000)}],
            "size": "1024x1024", "quality": "medium", "usage": tokens});
        house.fake.script([answers(answer)]);
        let reply = house.call("/v1/images/generations", &key, &asked).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let mut spent = 50 * TEXT + 1_080 * DRAWN;
        assert_eq!(house.spent(&key).await, spent);
        let seen = house.fake.request(0).await;
        assert_eq!((&*seen.path, &seen.json()["model"]), ("/v1/images/generations", &json!("gpt-image-1.5")));
        // In a stream it is told by the last event.
        let streamed = Behaviour::new(move |_| {
            let events = [
                json!({"type": "image_generation.partial_image", "b64_json": "QUJD", "partial_image_index": 0}),
                json!({"type": "image_generation.completed", "b64_json": "QUJD", "usage": {"input_tokens": 7, "output_tokens": 272}}),
            ];
            stream("text/event-stream", events.into_iter().map(|event| format!("data: {event}\n\n").into_bytes()))
        });
        house.fake.script([streamed]);
        let mut with_stream = asked.clone();
        with_stream["stream"] = json!(true);
        assert_eq!(house.call("/openai/images/generations", &key, &with_stream).await.status, 200);
        spent += 7 * TEXT + 272 * DRAWN;
        assert_eq!(house.spent(&key).await, spent);
        // An answer without a usage: two squares of this quality have so many tokens.
        house.fake.script([answers(json!({"created": 1, "data": [{"url": "x"}, {"url": "y"}]}))]);
        let mut two = asked.clone();
        two["n"] = json!(2);
        assert_eq!(house.call("/v1/images/generations", &key, &two).await.status, 200);
        let before = spent;
        spent = house.spent(&key).await;
        let input = spent - before - 2 * 1_056 * DRAWN;
        assert!((1..100 * TEXT).contains(&input) && input.is_multiple_of(TEXT), "{input}");
        // No picture has so many; what was held is charged: the same.
        let absurd = json!({"created": 1, "data": [], "usage": {"input_tokens": 1, "output_tokens": 90_000_000}});
        house.fake.script([answers(absurd)]);
        assert_eq!(house.call("/v1/images/generations", &key, &two).await.status, 200);
        assert_eq!(house.spent(&key).await - spent, spent - before);
    });
}

#[test]
fn speech_is_charged_by_the_characters_that_were_sent() {
    house(async |house| {
        let key = house.key_with_budget(0.01).await;
        house.fake.usually(plain("audio/mpeg", b"\xff\xfb\x90\x00 not { JSON"));
        let asked = |input: &str| json!({"model": "tts-1", "input": input, "voice": "alloy"});
        let reply = house.call("/v1/audio/speech", &key, &asked("Grüße aus Zürich 🎈")).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("audio/mpeg")), "{reply:?}");
        assert_eq!(house.spent(&key).await, 18 * CHARACTER);
        // What is left is less than this would cost.
        let reply = house.call("/v1/audio/speech", &key, &asked(&"a".repeat(600))).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(house.spent(&key).await, 618 * CHARACTER);
        let reply = house.call("/v1/audio/speech", &key, &asked(&"a".repeat(600))).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        house.idle().await;
        let reply = house.call("/v1/audio/speech", &key, &asked("a")).await;
        assert_eq!((reply.status, &reply.json()["error"]["type"]), (402, &json!("budget_exceeded")), "{reply:?}");
        // Nobody knows what this one costs.
        let reply = house.call("/v1/audio/speech", &key, &json!({"model": "tts-unheard-of", "input": "a"})).await;
        assert!((400..500).contains(&reply.status), "{reply:?}");
        for odd in [r#"{"model":"tts-1","input":"a","input":"b"}"#, r#"{"model":"tts-1","Input":"a","input":"b"}"#] {
            let request = house.http.post(format!("{}/v1/audio/speech", house.proxy)).bearer_auth(&key.value);
            let reply = Reply::read(request.body(odd).send().await.unwrap()).await;
            assert_eq!(reply.status, 400, "{reply:?}");
        }
        assert_eq!(house.fake.seen().len(), 3);
    });
}

#[test]
fn what_can_cost_more_than_any_call_may_is_never_asked_for() {
    let strict = |config: &mut Value| {
        config["governance"] = json!({"admission": "never_exceed"});
    };
    house_with(strict, async |house| {
        // A picture of this size has 9,192 tokens at most.
        let key = house.key_with_budget(0.3).await;
        let mut asked = json!({"model": "gpt-image-1.5", "prompt": "a", "size": "1024x1024", "quality": "low", "n": 2});
        let reply = house.call("/v1/images/generations", &key, &asked).await;
        assert_eq!((reply.status, &reply.json()["error"]["type"]), (402, &json!("budget_exceeded")), "{reply:?}");
        asked["n"] = json!(1);
        let usage = json!({"input_tokens": 8, "output_tokens": 272});
        house.fake.script([answers(json!({"created": 1, "data": [{"b64_json": "QUJD"}], "usage": usage}))]);
        let reply = house.call("/v1/images/generations", &key, &asked).await;
        assert_eq!((reply.status, reply.header("x-tollgate-max-tokens")), (200, None), "{reply:?}");
        // The bound of a picture is what was held, and the true price what is charged.
        assert_eq!(house.spent(&key).await, 8 * TEXT + 272 * DRAWN);
        assert_eq!(house.fake.seen().len(), 1);
    });
}

#[test]
fn a_client_that_leaves_pays_for_the_speech_it_asked_for() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        house.fake.script([Behaviour::new(|_| vec![Step::Stall])]);
        let body = json!({"model": "tts-1", "input": "hello"});
        let call = tokio::spawn(house.post("/v1/audio/speech", &key, &body).send());
        let seen = house.fake.request(0).await;
        call.abort();
        seen.hung_up().await;
        assert_eq!(house.spent(&key).await, 5 * CHARACTER);
    });
}

#[test]
fn transcripts_are_charged_by_seconds_or_tokens() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        let mut spent = 0;
        // What the answer says, for a file of 40,000 bytes: about ten seconds, and at most eighty.
        let by_seconds = [
            (answers(json!({"text": "hi", "usage": {"type": "duration", "seconds": 9}})), 9 * SECOND),
            (answers(json!({"text": "hi", "duration": 8.47, "segments": []})), 847 * SECOND / 100),
            (answers(json!({"text": "hi"})), 10 * SECOND),
            (plain("text/plain", b"hi\n"), 10 * SECOND),
            (answers(json!({"text": "hi", "usage": {"type": "duration", "seconds": 81}})), 10 * SECOND),
            (answers(json!({"text": "hi", "usage": {"type": "duration", "seconds": -1}})), 10 * SECOND),
        ];
        let count = by_seconds.len();
        for (n, (behaviour, cost)) in by_seconds.into_iter().enumerate() {
            house.fake.script([behaviour]);
            let path = if n == 0 { "/openai/v1/audio/translations" } else { "/v1/audio/transcriptions" };
            let reply = transcribe(house, &key, path, form("openai/whisper-1", 40_000, &[])).await;
            assert_eq!(reply.status, 200, "{n} {reply:?}");
            spent += cost;
            assert_eq!(house.spent(&key).await, spent, "{n}");
        }
        let seen = house.fake.request(1).await;
        assert_eq!(seen.body, form("whisper-1", 40_000, &[]));
        assert_eq!(seen.header("content-type"), Some("multipart/form-data; boundary=xyz"));
        assert_eq!(house.fake.request(0).await.path, "/v1/audio/translations");
        let usage = json!({"type": "tokens", "total_tokens": 59, "input_tokens": 14, "output_tokens": 45,
            "input_token_details": {"text_tokens": 4, "audio_tokens": 10}});
        let whole = answers(json!({"text": "hi", "usage": usage}));
        let streamed = Behaviour::new(move |_| {
            let events = [
                json!({"type": "transcript.text.delta", "delta": "hi"}),
                json!({"type": "transcript.text.done", "text": "hi", "usage": usage}),
            ];
            stream("text/event-stream", events.into_iter().map(|event| format!("data: {event}\n\n").into_bytes()))
        });
        for (behaviour, more) in [(whole, &[][..]), (streamed, &[("stream", "true")][..])] {
            house.fake.script([behaviour]);
            let body = form("openai/gpt-4o-transcribe", 40_000, more);
            assert_eq!(transcribe(house, &key, "/v1/audio/transcriptions", body).await.status, 200);
            spent += 14 * HEARD + 45 * WRITTEN;
            assert_eq!(house.spent(&key).await, spent);
        }
        let twice = form("whisper-1", 10, &[("model", "whisper-1")]);
        assert_eq!(transcribe(house, &key, "/v1/audio/transcriptions", twice).await.status, 400);
        let reply = house.call("/v1/audio/transcriptions", &key, &json!({"model": "whisper-1"})).await;
        assert_eq!(reply.status, 400, "{reply:?}");
        assert_eq!(house.fake.seen().len(), count + 2);
        assert_eq!(house.spent(&key).await, spent);
    });
}
