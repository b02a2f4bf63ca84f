#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use proptest::prelude::*;

use super::*;

fn holding(values: &[&str]) -> Secrets {
    let secrets = Secrets::new();
    for (n, value) in values.iter().enumerate() {
        secrets.insert(&format!("S{n}"), (*value).to_owned());
    }
    secrets
}

#[test]
fn values_are_given_by_name_and_shown_to_nobody() {
    let secrets = holding(&["hunter2-hunter2"]);
    let secret = secrets.get("S0").unwrap();
    assert_eq!(secret.expose(), "hunter2-hunter2");
    assert!(secrets.get("S1").is_none());
    let shown = format!("{secrets:?} {secret:?}");
    assert!(shown.contains("S0") && !shown.contains("hunter2"));
}

#[test]
fn the_environment_is_taken_by_name_only() {
    let secrets = Secrets::from_env(["PATH", "PI_VERS_NOT_SET", "", "A=B", "A\0"]);
    assert_eq!(secrets.names(), ["PATH"]);
    assert_eq!(
        secrets.get("PATH").unwrap().expose(),
        std::env::var("PATH").unwrap()
    );
}

#[test]
fn a_replaced_value_is_still_redacted_and_a_short_one_never() {
    let secrets = holding(&["old-value", "short"]);
    secrets.insert("S0", "new-value".to_owned());
    assert_eq!(
        secrets.redact("old-value new-value short"),
        "[redacted] [redacted] short"
    );
}

#[test]
fn overlapping_values_leave_no_rest() {
    assert_eq!(
        holding(&["abcdefgh", "efghijkl"]).redact("xabcdefghijkly"),
        "x[redacted]y"
    );
    assert_eq!(holding(&["ababab"]).redact("abababab!"), "[redacted]!");
    assert_eq!(
        holding(&["secret", "secret-and-more"]).redact("secret-and-more"),
        MARK
    );
}

#[test]
fn a_value_that_looks_like_the_mark_does_not_come_back_with_it() {
    for value in ["redact", "redacted", MARK, "[redacted] x", "a[redacted]"] {
        let secrets = holding(&[value, "another-value"]);
        for text in [format!("a{value} x"), "aanother-value x".to_owned()] {
            assert!(!secrets.redact(&text).contains(value), "{value} in {text}");
        }
    }
}

#[test]
fn a_text_without_values_is_untouched() {
    let secrets = holding(&["hunter2-hunter2"]);
    for text in ["", "hunter2", "100% + 5 %zz %4", "é%c3%a9"] {
        assert!(matches!(secrets.redact(text), Cow::Borrowed(same) if same == text));
    }
}

fn percent(text: &str, pick: u64) -> String {
    let encode = |(n, byte): (usize, u8)| match (byte, (pick >> (n % 64)) & 1) {
        (b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9', 0) => char::from(byte).to_string(),
        (_, 0) => format!("%{byte:02X}"),
        _ => format!("%{byte:02x}"),
    };
    text.bytes().enumerate().map(encode).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn no_held_value_survives(
        values in prop::collection::vec("[ -~]{6,24}|\\PC{6,12}|[ab]{6,9}|[a-z\"\\\\\n\t+/%=]{6,12}", 1..4),
        noise in prop::collection::vec("\\PC{0,8}|[ab]{0,6}|[%+=]{0,4}", 5),
        forms in prop::collection::vec(0..9_usize, 4),
        pick in any::<u64>(),
    ) {
        let secrets = holding(&values.iter().map(String::as_str).collect::<Vec<_>>());
        let mut text = noise[0].clone();
        let mut planted = Vec::new();
        for (n, form) in forms.iter().enumerate() {
            let value = &values[n % values.len()];
            let in_form = match form {
                0 => value.clone(),
                1 => STANDARD.encode(value),
                2 => URL_SAFE.encode(value),
                3 => percent(value, pick),
                4 => url::form_urlencoded::byte_serialize(value.as_bytes()).collect(),
                5 => serde_json::to_string(value).unwrap(),
                6 => value.bytes().map(|byte| format!("{byte:02x}")).collect(),
                // As in a header of basic authentication: at any of the three offsets.
                7 => STANDARD.encode(format!("{}{value}{}", &"user:"[..n % 5], &"xyz"[..n % 3])),
                _ => percent(&STANDARD.encode(value), pick),
            };
            text.push_str(&in_form);
            text.push_str(&noise[n + 1]);
            planted.push((*form, in_form));
        }
        let clean = secrets.redact(&text);
        for value in &values {
            prop_assert!(!clean.contains(value.as_str()));
            prop_assert!(!clean.contains(&STANDARD_NO_PAD.encode(value)));
        }
        for (form, in_form) in planted {
            prop_assert!(!clean.contains(&in_form), "form {}", form);
        }
    }
}
