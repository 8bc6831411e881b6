//! Model names and the names they stand for.

/// The longest name that is one.
const BYTES_MAX: usize = 2_048;

/// What keeps a text from being the name of a model, if anything does. Some dialects write the name into a path,
/// where `.` and `..` would lead elsewhere.
pub fn fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("must not be empty")
    } else if name.trim() != name || name.contains(char::is_control) {
        Some("must not begin or end with blanks, nor hold control characters")
    } else if name.split('/').any(|part| matches!(part, "." | "..")) {
        Some("must not have '.' or '..' between slashes")
    } else {
        (name.len() > BYTES_MAX).then_some("is too long")
    }
}

/// The part behind a `provider/` prefix; of a nested name the last part.
pub fn without_prefix(model: &str) -> &str {
    model.rsplit('/').next().unwrap_or(model)
}

/// The name that a model's dated or numbered releases share: one suffix less, if it is a date, a version
/// like `v1.0`, a release candidate or a stage of release.
pub fn base(model: &str) -> &str {
    let model = without_prefix(model);
    // A date is written with hyphens of its own.
    if let Some((head, date)) = model.split_at_checked(model.len().saturating_sub("-2024-08-06".len()))
        && !head.is_empty()
        && is_date_with_hyphens(date.as_bytes())
    {
        return head;
    }
    match model.rsplit_once('-') {
        Some((head, suffix)) if !head.is_empty() && is_release(suffix) => head,
        _ => model,
    }
}

fn is_date_with_hyphens(text: &[u8]) -> bool {
    text.len() == 11
        && text
            .iter()
            .enumerate()
            .all(|(i, byte)| if [0, 5, 8].contains(&i) { *byte == b'-' } else { byte.is_ascii_digit() })
}

fn is_release(suffix: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_version = |text: &str| text.split('.').count() <= 3 && text.split('.').all(digits);
    matches!(suffix, "alpha" | "beta" | "preview" | "canary" | "experimental")
        || (suffix.len() == 8 && digits(suffix))
        || suffix.strip_prefix('v').is_some_and(is_version)
        || suffix.strip_prefix("rc").is_some_and(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_told_from_other_texts() {
        for good in ["m", "accounts/fireworks/models/m", "gpt-4.1", "a..b", "meta-llama/Llama-3.3", "modell für alles"]
        {
            assert_eq!(fault(good), None, "{good}");
        }
        for bad in ["", " m", "m\n", "a\r\nX: 1", "x/../m", "..", "./m", "m/."] {
            assert!(fault(bad).is_some(), "{bad:?}");
        }
        assert!(fault(&"m".repeat(BYTES_MAX + 1)).is_some());
    }

    #[test]
    fn releases_share_a_name() {
        let check = |model, of| assert_eq!(base(model), of, "{model}");
        check("gpt-4o-2024-08-06", "gpt-4o");
        check("claude-sonnet-4-20250514", "claude-sonnet-4");
        check("anthropic/claude-sonnet-4-20250514", "claude-sonnet-4");
        check("command-r-v2.1", "command-r");
        check("model-rc2", "model");
        check("gemini-2.5-pro-preview", "gemini-2.5-pro");
        for whole in
            ["claude-sonnet-4.5", "gpt-4", "gpt-4o", "o1", "", "-", "-preview", "-2024-08-06", "a-v", "x-v1.2.3.4"]
        {
            check(whole, whole);
        }
    }

    proptest! {
        #[test]
        fn any_name_has_a_base_within_it(model in ".{0,40}") {
            prop_assert!(model.contains(base(&model)));
        }
    }
}
