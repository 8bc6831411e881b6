//! Bedrock's dialect: converse and its binary streams, Claude by `invoke`, and signatures towards AWS.

use crate::fake::answers::stream;
use crate::fake::bedrock::{WORDS, exception_first, frames, good, status};
use crate::fake::{Behaviour, Request, Step};
use crate::house::{House, Key, Reply, house_with, provider};
use serde_json::{Value, json};

const MODEL: &str = "/bedrock/model/us.anthropic.claude-sonnet-4-6";

/// The price of that model in nano-dollars per token.
const INPUT: u64 = 3_300;
const CACHED: u64 = 330;
const WRITTEN: u64 = 4_125;
const OUTPUT: u64 = 16_500;

/// A house whose second provider is Bedrock, with a key that signs and one that is shown as it is.
pub fn bedrock_house(test: impl AsyncFnOnce(&mut House)) {
    house_with(
        |config| {
            let url = config["providers"]["openai"]["network_config"]["base_url"].as_str().unwrap().to_owned();
            let mut bedrock = provider(&url, &[("signing", ""), ("bearer", "bedrock-api-key")]);
            bedrock["keys"][0]["bedrock_key_config"] = json!({
                "access_key": "AKIDEXAMPLE", "secret_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
                "session_token": "the-session", "region": "eu-west-1",
            });
            config["providers"]["bedrock"] = bedrock;
        },
        async |house| {
            house.fake.usually(good(plain()));
            test(house).await;
        },
    );
}

pub async fn bedrock_key(house: &House, dollars: f64) -> Key {
    let through = json!([{"provider": "bedrock", "weight": 1, "allowed_models": ["*"], "key_ids": ["*"]}]);
    house.key(json!({"provider_configs": through, "budget": {"max_limit": dollars, "reset_duration": "1h"}})).await
}

fn plain() -> Value {
    json!({"inputTokens": 1_000, "outputTokens": 100, "totalTokens": 1_100})
}

fn converse() -> Value {
    json!({"messages": [{"role": "user", "content": [{"text": "Say hello."}]}], "inferenceConfig": {"maxTokens": 200}})
}

fn invoke() -> Value {
    json!({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 200, "messages": [{"role": "user", "content": "Say hello."}]})
}

#[track_caller]
fn refused(reply: &Reply, status: u16, kind: &str, reason: &str) -> String {
    let body = reply.json();
    let seen = (reply.status, reply.header("x-amzn-errortype"), &body["reason"]);
    assert_eq!(seen, (status, Some(kind), &json!(reason)), "{body}");
    body["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_conversation_is_charged_by_its_usage() {
    bedrock_house(async |house| {
        let cached = json!({
            "inputTokens": 7, "outputTokens": 5, "totalTokens": 312, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 200,
        });
        let cost = 7 * INPUT + 100 * CACHED + 200 * WRITTEN + 5 * OUTPUT;
        for (usage, cost) in [(plain(), 1_000 * INPUT + 100 * OUTPUT), (cached, cost)] {
            for verb in ["converse", "converse-stream"] {
                let key = bedrock_key(house, 1.0).await;
                house.fake.script([good(usage.clone())]);
                let reply = house.call(&format!("{MODEL}/{verb}"), &key, &converse()).await;
                assert_eq!((reply.status, reply.header("x-tollgate-provider")), (200, Some("bedrock")), "{reply:?}");
                if verb == "converse-stream" {
                    assert_eq!(reply.body, frames(&usage).concat(), "not a byte is changed");
                }
                assert_eq!(house.spent(&key).await, cost, "{usage} {verb}");
            }
        }
        for verb in ["invoke", "invoke-with-response-stream"] {
            let key = bedrock_key(house, 1.0).await;
            let reply = house.call(&format!("{MODEL}/{verb}"), &key, &invoke()).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            assert_eq!(house.spent(&key).await, 1_000 * INPUT + 100 * OUTPUT, "{verb}");
        }
        let key = bedrock_key(house, 1.0).await;
        let reply =
            house.call(&format!("{MODEL}/count-tokens"), &key, &json!({"input": {"converse": converse()}})).await;
        assert_eq!((reply.status, house.spent(&key).await), (200, 0));
        assert!(
            String::from_utf8_lossy(&house.call(&format!("{MODEL}/converse"), &key, &converse()).await.body)
                .contains(WORDS[2])
        );
    });
}

/// What AWS would compute from what it was sent.
fn signature_holds(request: &Request) -> bool {
    use tollgate::provider::sign::{Signed, Signer};
    let header = |name: &str| request.header(name).unwrap_or_else(|| panic!("{name} is missing"));
    let date = header("x-amz-date");
    let headers = ["content-type", "host", "x-amz-date", "x-amz-security-token"].map(|name| (name, header(name)));
    let signer = Signer {
        access_key: "AKIDEXAMPLE",
        secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        region: "eu-west-1",
        service: "bedrock",
    };
    let sent = Signed { method: "POST", path: &request.path, headers: &headers, body: &request.body };
    header("authorization") == signer.authorization(sent, date)
}

#[test]
fn a_request_is_signed_as_it_is_sent_and_again_for_the_next_key() {
    bedrock_house(async |house| {
        let key = bedrock_key(house, 1.0).await;
        for path in ["amazon.nova-pro-v1:0", "amazon.nova-pro-v1%3A0", "bedrock%2Famazon.nova-pro-v1%3A0"] {
            house.heal("bedrock").await;
            house.fake.script([status(403, "AccessDeniedException"), good(plain())]);
            let reply = house.call(&format!("/bedrock/model/{path}/converse?x=y"), &key, &converse()).await;
            assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some("2")), "{reply:?}");
        }
        for pair in house.fake.seen().chunks(2) {
            let [signed, bearer] = pair else { panic!("two attempts each") };
            assert_eq!(signed.path, "/model/amazon.nova-pro-v1%3A0/converse");
            assert!(signature_holds(signed), "{signed:?}");
            assert_eq!(bearer.header("authorization"), Some("Bearer bedrock-api-key"));
            assert!(bearer.header("x-amz-date").is_none() && bearer.header("x-amz-security-token").is_none());
        }
    });
}

/// As boto3 sends it: the id of the key that signed is the virtual key.
#[test]
fn the_virtual_key_may_sign() {
    bedrock_house(async |house| {
        let key = bedrock_key(house, 1.0).await;
        let signed = format!(
            "AWS4-HMAC-SHA256 Credential={}/20261121/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature=00",
            key.value
        );
        let request = house.http.post(format!("{}{MODEL}/converse", house.proxy)).json(&converse());
        let request = request.header("authorization", signed).header("x-amz-date", "20261121T000000Z");
        let request = request.header("x-amz-security-token", "the-client-s").header("amz-sdk-invocation-id", "1");
        let reply = Reply::read(request.send().await.unwrap()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let seen = house.fake.seen();
        assert!(signature_holds(&seen[0]));
        assert_eq!(seen[0].header("x-amz-security-token"), Some("the-session"));
        assert!(seen[0].header("amz-sdk-invocation-id").is_none() && !format!("{:?}", seen[0]).contains("sk-bf-"));
    });
}

#[test]
fn errors_are_those_of_the_dialect() {
    bedrock_house(async |house| {
        let path = format!("{MODEL}/converse");
        let spent = bedrock_key(house, 0.001).await;
        assert_eq!(house.call(&path, &spent, &converse()).await.status, 200);
        house.idle().await;
        let reply = house.call(&path, &spent, &converse()).await;
        assert!(
            refused(&reply, 402, "ServiceQuotaExceededException", "budget_exceeded").contains("VK budget exceeded")
        );
        let reply = house.call(&path, &Key::unknown(), &converse()).await;
        refused(&reply, 403, "AccessDeniedException", "virtual_key_not_found");
        let key = bedrock_key(house, 1.0).await;
        let reply = house.call(&path, &key, &json!({"additionalModelRequestFields": {"max_tokens": 9}})).await;
        refused(&reply, 400, "ValidationException", "invalid_request");
        let reply = house.call(&format!("{MODEL}/invoke"), &key, &json!({"inputText": "x"})).await;
        assert!(refused(&reply, 400, "ValidationException", "invalid_request").contains("only Claude"));
        refused(
            &house.call(&format!("{MODEL}/other"), &key, &converse()).await,
            404,
            "ResourceNotFoundException",
            "not_found",
        );
        // AWS names the account when it says no: the client must not see that.
        house.fake.script([status(403, "AccessDeniedException"), status(403, "UnrecognizedClientException")]);
        let reply = house.call(&path, &key, &converse()).await;
        assert!(!refused(&reply, 502, "InternalServerException", "upstream_credentials_rejected").contains("arn:"));
        house.heal("bedrock").await;
        house.fake.script([status(400, "ValidationException")]);
        let reply = house.call(&path, &key, &converse()).await;
        assert_eq!((reply.status, reply.header("x-amzn-errortype")), (400, Some("ValidationException")), "{reply:?}");
        house.fake.script([exception_first(), good(plain())]);
        let reply = house.call(&format!("{MODEL}/converse-stream"), &key, &converse()).await;
        assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some("2")), "{reply:?}");
        assert_eq!(house.spent(&key).await, 1_000 * INPUT + 100 * OUTPUT);
    });
}

/// The usage is in the last frame, behind the end of the answer.
#[test]
fn a_stream_without_its_last_frame_is_charged_by_estimate() {
    bedrock_house(async |house| {
        let key = bedrock_key(house, 1.0).await;
        let mut cut = frames(&plain());
        cut.pop();
        let all = cut.concat();
        let broken = Behaviour::new(move |_| {
            let mut steps = stream("application/vnd.amazon.eventstream", all.chunks(7).map(<[u8]>::to_vec));
            steps.pop();
            steps.push(Step::Close);
            steps
        });
        house.fake.script([broken]);
        let sent = house.post(&format!("{MODEL}/converse-stream"), &key, &converse()).send().await.unwrap();
        assert!(sent.bytes().await.is_err());
        // "Hello from Bedrock é!" is 22 bytes; the input is estimated, too.
        let spent = house.spent(&key).await;
        assert!((6 * OUTPUT + INPUT..=6 * OUTPUT + 20 * INPUT).contains(&spent), "{spent}");
    });
}
