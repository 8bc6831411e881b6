//! A provider that only an authority of its own vouches for: reached with that authority's certificate, and
//! not without it.

use crate::house::{House, chat, custom_provider, house_with};
use serde_json::json;

const AUTHORITY: &str = include_str!("../fixtures/tls/authority.pem");
const OTHER_AUTHORITY: &str = include_str!("../fixtures/tls/other-authority.pem");

#[test]
fn a_provider_is_reached_by_its_own_authority_alone() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");
    let tls = json!({"cert": format!("{fixtures}/server.pem"), "key": format!("{fixtures}/server.key")});
    // One Tollgate with TLS at its door is the provider of another.
    house_with(
        |config| config["server"]["tls"] = tls,
        async |provider| {
            let key = provider.key(json!({})).await;
            let url = format!("https://localhost:{}", provider.proxy_port());
            let vouched_for = |name: &str, authority: &str| {
                let mut declared = custom_provider(&url, &[(name, &key.value)]);
                declared["network_config"]["ca_cert_pem"] = json!(authority);
                declared
            };
            let mut house = House::start(|config| {
                config["providers"]["trusted"] = vouched_for("trusted", AUTHORITY);
                config["providers"]["mistaken"] = vouched_for("mistaken", OTHER_AUTHORITY);
                config["providers"]["public"] = vouched_for("public", "");
                config["governance"] = json!({"default_access": "allow"});
            })
            .await;
            let caller = house.key(json!({"provider_configs": []})).await;
            for (name, status) in [("mistaken", 502), ("trusted", 200), ("mistaken", 502), ("public", 502)] {
                let mut body = chat();
                body["model"] = json!(format!("{name}/openai/gpt-4o"));
                let reply = house.chat(&caller, &body).await;
                assert_eq!(reply.status, status, "{name}: {reply:?}");
            }
            assert_eq!(provider.fake.seen().len(), 1);
            house.idle().await;
            house.stop();
        },
    );
}
