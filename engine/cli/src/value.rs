//! Bytes as JSON: text and JSON as themselves, everything else as `{"base64":"…"}`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64 {
    base64: String,
}

/// The bytes that `{"base64":"…"}` stands for: exactly this one member, and valid.
fn base64_of(json: &str) -> Option<Vec<u8>> {
    if !json.starts_with('{') {
        return None;
    }
    let form: Base64 = serde_json::from_str(json).ok()?;
    STANDARD.decode(form.base64).ok()
}

fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(b"{\"base64\":\"");
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    out.extend_from_slice(b"\"}");
}

/// What a JSON value stands for: raw bytes if it is the base64 form, else its own text.
pub(crate) fn bytes_of(json: &RawValue) -> Vec<u8> {
    base64_of(json.get()).unwrap_or_else(|| json.get().as_bytes().to_vec())
}

/// Writes bytes so that [`bytes_of`] reads them back: as they are if they are one JSON value on one line.
pub(crate) fn push(out: &mut Vec<u8>, bytes: &[u8]) {
    if is_json(bytes) { out.extend_from_slice(bytes) } else { push_base64(out, bytes) }
}

fn is_json(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let whole =
        serde_json::from_str::<&RawValue>(text).is_ok_and(|raw| raw.get().len() == text.len());
    whole && !bytes.contains(&b'\n') && base64_of(text).is_none()
}

/// The key that a JSON value names.
pub(crate) fn key_of(json: &RawValue) -> Result<Vec<u8>, String> {
    if let Ok(text) = serde_json::from_str::<String>(json.get()) {
        return Ok(text.into_bytes());
    }
    base64_of(json.get()).ok_or_else(|| {
        format!("expected a text or {{\"base64\":\"…\"}}, found {}", excerpt(json.get()))
    })
}

/// The key that a command's argument names: its bytes, or what they stand for if they are the base64 form.
pub(crate) fn key_of_argument(argument: &[u8]) -> Vec<u8> {
    str::from_utf8(argument).ok().and_then(base64_of).unwrap_or_else(|| argument.to_vec())
}

/// Writes a key so that [`key_of`] reads it back.
pub(crate) fn push_key(out: &mut Vec<u8>, key: &[u8]) {
    match str::from_utf8(key) {
        Ok(text) => push_text(out, text),
        Err(_) => push_base64(out, key),
    }
}

/// Writes a text as a JSON string.
pub(crate) fn push_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a text is JSON and a vector takes it");
}

/// A key as people read it: bare where it is plain text, quoted or in base64 otherwise.
pub(crate) fn shown(key: &[u8]) -> String {
    match str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => {
            let mut out = Vec::new();
            push_key(&mut out, key);
            String::from_utf8_lossy(&out).into_owned()
        }
    }
}

/// The beginning of a JSON value, for messages.
pub(crate) fn excerpt(json: &str) -> String {
    const CHARACTERS: usize = 40;
    match json.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{}…", &json[..end]),
        None => json.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    fn pushed(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        push(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_is_kept_to_the_letter() {
        for json in [
            r#"{ "b": 1.50,  "a": 1e400, "a": "\u00e9é" }"#,
            "null",
            "12345678901234567890123",
            r#""text""#,
            "[]",
            r#"{"base64":5}"#,
            r#"{"base64":"not base64!"}"#,
            r#"{"base64":"AAAA","more":1}"#,
            r#"["AAAA"]"#,
        ] {
            assert_eq!(bytes_of(&raw(json)), json.as_bytes());
            assert_eq!(pushed(json.as_bytes()), json);
        }
    }

    #[test]
    fn other_bytes_are_base64() {
        for bytes in [
            &b"\xff\0"[..],
            b"plain text",
            b" {}",
            b"{} ",
            b"{\n}",
            b"{} {}",
            br#"{"base64":"AAAA"}"#,
            br#"{"b\u0061se64":"AAAA"}"#,
            b"",
        ] {
            let json = pushed(bytes);
            assert!(json.starts_with(r#"{"base64":"#), "{json}");
            assert_eq!(bytes_of(&raw(&json)), bytes);
        }
    }

    #[test]
    fn keys_come_back() {
        for key in
            [&b"order-1"[..], b"\xff", b"\0", "\u{7f}\"é\\".as_bytes(), br#"{"base64":"AA=="}"#]
        {
            let mut json = Vec::new();
            push_key(&mut json, key);
            assert_eq!(key_of(&raw(str::from_utf8(&json).unwrap())).unwrap(), key);
        }
        for json in ["5", "null", "[]", r#"["AA=="]"#, r#"{"base64":"%"}"#, "{}"] {
            assert!(key_of(&raw(json)).unwrap_err().contains(json), "{json}");
        }
        assert_eq!(key_of_argument(b"order-1"), b"order-1");
        assert_eq!(key_of_argument(br#"{"base64":"AA=="}"#), b"\0");
        assert_eq!(shown(b"order-1"), "order-1");
        assert_eq!(shown(b"a\x1bb"), r#""a\u001bb""#);
    }
}
